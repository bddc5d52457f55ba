-- question: agent_failures
-- title: Failures of agents
-- about: Completed, failed and cancelled tasks by the agent's type and the priority that the assignment names.
-- parameters: tenant, from, to
-- column: tenant text
-- column: agent_type text
-- column: priority text
-- column: tasks integer
-- column: failed integer
-- column: cancelled integer
-- column: failed_percent number percent
SELECT c.tenant AS tenant, coalesce(a.agent_type, '(unknown)') AS agent_type, coalesce(a.priority, '(unknown)') AS priority, count(*) AS tasks,
    sum(CASE WHEN c.status = 'failed' THEN 1 ELSE 0 END) AS failed, sum(CASE WHEN c.status = 'cancelled' THEN 1 ELSE 0 END) AS cancelled,
    CAST(sum(CASE WHEN c.status = 'failed' THEN 1 ELSE 0 END) AS DOUBLE) * 100 / CAST(count(*) AS DOUBLE) AS failed_percent
FROM (SELECT tenant, task_id, status FROM task_completed WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)) c
LEFT JOIN (
    SELECT tenant, task_id, max(agent_type) AS agent_type, max(priority) AS priority FROM task_assigned
    WHERE ($tenant = '' OR tenant = $tenant)
    GROUP BY tenant, task_id
) a ON a.tenant = c.tenant AND a.task_id = c.task_id
GROUP BY c.tenant, coalesce(a.agent_type, '(unknown)'), coalesce(a.priority, '(unknown)')
ORDER BY tenant, agent_type, priority
