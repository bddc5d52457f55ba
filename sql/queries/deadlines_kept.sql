-- question: deadlines_kept
-- title: Deadlines kept
-- about: Of tasks with a deadline, by tenant and type: completed in time, completed later, and not yet.
-- parameters: tenant, from, to
-- column: tenant text
-- column: task_type text
-- column: tasks integer
-- column: kept integer
-- column: missed integer
-- column: open integer
SELECT a.tenant AS tenant, a.task_type AS task_type, count(*) AS tasks,
    count(*) FILTER (WHERE c.completed_at <= a.deadline) AS kept,
    count(*) FILTER (WHERE c.completed_at > a.deadline) AS missed,
    count(*) FILTER (WHERE c.completed_at IS NULL) AS open
FROM (SELECT tenant, task_id, task_type, deadline FROM task_assigned WHERE deadline IS NOT NULL AND "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)) a
LEFT JOIN (SELECT tenant, task_id, data_timestamp AS completed_at FROM task_completed WHERE ($tenant = '' OR tenant = $tenant)) c
    ON c.tenant = a.tenant AND c.task_id = a.task_id
GROUP BY a.tenant, a.task_type
ORDER BY tenant, task_type
-- on: read-models
SELECT tenant, task_type, count(*) AS tasks, count(*) FILTER (WHERE completed_at <= deadline) AS kept,
    count(*) FILTER (WHERE completed_at > deadline) AS missed, count(*) FILTER (WHERE completed_at IS NULL) AS open
FROM task_read_model
WHERE deadline IS NOT NULL AND assigned_at >= $from AND assigned_at < $to AND ($tenant = '' OR tenant = $tenant)
GROUP BY tenant, task_type
ORDER BY tenant COLLATE "C", task_type COLLATE "C"
