-- question: execution_time_by_agent
-- title: Execution time by agent
-- about: Tasks by tenant and agent, and quantiles of their execution time by nearest rank: the least time within which that share of
--   them ended.
-- parameters: tenant, from, to
-- column: tenant text
-- column: agent_id text
-- column: tasks integer
-- column: p50 number milliseconds
-- column: p90 number milliseconds
SELECT tenant, agent_id, max(n) AS tasks,
    max(execution_time) FILTER (WHERE (place - 1) * 100 < n * 50 AND place * 100 >= n * 50) AS p50,
    max(execution_time) FILTER (WHERE (place - 1) * 100 < n * 90 AND place * 100 >= n * 90) AS p90
FROM (
    SELECT tenant, agent_id, execution_time,
        row_number() OVER (PARTITION BY tenant, agent_id ORDER BY execution_time) AS place,
        count(*) OVER (PARTITION BY tenant, agent_id) AS n
    FROM task_completed WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)
) ranked
GROUP BY tenant, agent_id
ORDER BY tenant, agent_id
