-- Of tasks with a deadline, by tenant and type: completed in time, completed later, and not yet.
SELECT a.tenant AS tenant, a.task_type AS task_type, count(*) AS tasks,
    count(*) FILTER (WHERE c.completed_at <= a.deadline) AS kept,
    count(*) FILTER (WHERE c.completed_at > a.deadline) AS missed,
    count(*) FILTER (WHERE c.completed_at IS NULL) AS open
FROM (SELECT tenant, task_id, task_type, deadline FROM task_assigned WHERE deadline IS NOT NULL) a
LEFT JOIN (SELECT tenant, task_id, data_timestamp AS completed_at FROM task_completed) c
    ON c.tenant = a.tenant AND c.task_id = a.task_id
GROUP BY a.tenant, a.task_type
ORDER BY tenant, task_type
