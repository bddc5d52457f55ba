-- The same by the task's type, which the assignment names.
SELECT tenant, task_type, max(n) AS tasks,
    max(execution_time) FILTER (WHERE (place - 1) * 100 < n * 50 AND place * 100 >= n * 50) AS p50,
    max(execution_time) FILTER (WHERE (place - 1) * 100 < n * 90 AND place * 100 >= n * 90) AS p90
FROM (
    SELECT c.tenant AS tenant, a.task_type AS task_type, c.execution_time AS execution_time,
        row_number() OVER (PARTITION BY c.tenant, a.task_type ORDER BY c.execution_time) AS place,
        count(*) OVER (PARTITION BY c.tenant, a.task_type) AS n
    FROM task_completed c
    JOIN task_assigned a ON a.tenant = c.tenant AND a.task_id = c.task_id
) ranked
GROUP BY tenant, task_type
ORDER BY tenant, task_type
