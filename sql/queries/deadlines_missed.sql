-- question: deadlines_missed
-- title: Deadlines missed
-- about: Tasks that were completed after their deadline, and by how much.
-- parameters: tenant, from, to
-- column: tenant text
-- column: task_id text
-- column: agent_id text
-- column: task_type text
-- column: priority text
-- column: deadline time
-- column: completed_at time
-- column: late_seconds number seconds
SELECT a.tenant AS tenant, a.task_id AS task_id, c.agent_id AS agent_id, a.task_type AS task_type, a.priority AS priority, a.deadline AS deadline,
    c.completed_at AS completed_at, CAST(toUnixTimestamp64Milli(c.completed_at) - toUnixTimestamp64Milli(a.deadline) AS DOUBLE) / 1000 AS late_seconds
FROM (SELECT tenant, task_id, task_type, priority, deadline FROM task_assigned WHERE deadline IS NOT NULL AND ($tenant = '' OR tenant = $tenant)) a
JOIN (SELECT tenant, task_id, agent_id, data_timestamp AS completed_at FROM task_completed WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)) c
    ON c.tenant = a.tenant AND c.task_id = a.task_id
WHERE c.completed_at > a.deadline
ORDER BY tenant, task_id
-- on: read-models
SELECT tenant, id AS task_id, agent_id, task_type, priority, deadline, completed_at,
    extract(epoch FROM completed_at - deadline)::double precision AS late_seconds
FROM task_read_model
WHERE completed_at > deadline AND completed_at >= $from AND completed_at < $to AND ($tenant = '' OR tenant = $tenant)
ORDER BY tenant COLLATE "C", id COLLATE "C"
