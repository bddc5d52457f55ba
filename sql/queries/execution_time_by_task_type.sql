-- question: execution_time_by_task_type
-- title: Execution time by task type
-- about: Tasks by tenant and by the type that the assignment names, and quantiles of their execution time by nearest rank.
-- parameters: tenant, from, to
-- column: tenant text
-- column: task_type text
-- column: tasks integer
-- column: p50 number milliseconds
-- column: p90 number milliseconds
SELECT tenant, task_type, max(n) AS tasks,
    max(execution_time) FILTER (WHERE (place - 1) * 100 < n * 50 AND place * 100 >= n * 50) AS p50,
    max(execution_time) FILTER (WHERE (place - 1) * 100 < n * 90 AND place * 100 >= n * 90) AS p90
FROM (
    SELECT c.tenant AS tenant, a.task_type AS task_type, c.execution_time AS execution_time,
        row_number() OVER (PARTITION BY c.tenant, a.task_type ORDER BY c.execution_time) AS place,
        count(*) OVER (PARTITION BY c.tenant, a.task_type) AS n
    FROM (SELECT tenant, task_id, execution_time FROM task_completed WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)) c
    JOIN (SELECT tenant, task_id, task_type FROM task_assigned WHERE ($tenant = '' OR tenant = $tenant)) a
        ON a.tenant = c.tenant AND a.task_id = c.task_id
) ranked
GROUP BY tenant, task_type
ORDER BY tenant, task_type
