-- question: agent_resources
-- title: Resources of agents
-- about: What the tasks of each agent used, as they report it: processor time, memory at most, calls of interfaces. What a task does not report counts as 0.
-- parameters: tenant, from, to
-- column: tenant text
-- column: agent_id text
-- column: tasks integer
-- column: cpu_seconds number seconds
-- column: memory_max number MB
-- column: api_calls integer
SELECT tenant, agent_id, count(*) AS tasks, CAST(sum(cpu) AS DOUBLE) / 1000000 AS cpu_seconds, max(memory) AS memory_max, sum(calls) AS api_calls
FROM (
    SELECT tenant, agent_id, CAST(floor(least(JSONExtractFloat(coalesce(resource_usage, '{}'), 'cpuTime'), 1e12) * 1000 + 0.5) AS BIGINT) AS cpu,
        JSONExtractFloat(coalesce(resource_usage, '{}'), 'memoryUsage') AS memory, CAST(floor(least(JSONExtractFloat(coalesce(resource_usage, '{}'), 'apiCalls'), 1e12) + 0.5) AS BIGINT) AS calls
    FROM task_completed WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)
) used
GROUP BY tenant, agent_id
ORDER BY tenant, agent_id
