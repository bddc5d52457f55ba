-- workflow: agent_performance
-- about: How agents do their tasks, by type and priority, and whether in time
-- trigger: every 60 minutes
-- window: none
-- keys: tenant, agent_type, priority
SELECT tenant, coalesce(agent_type, '(unknown)') AS agent_type, coalesce(priority, '(unknown)') AS priority, count(*) AS tasks,
    count(*) FILTER (WHERE status = 'completed') AS completed, count(*) FILTER (WHERE status = 'failed') AS failed,
    count(*) FILTER (WHERE deadline_met) AS deadlines_kept, count(*) FILTER (WHERE NOT deadline_met) AS deadlines_missed,
    round(avg(deadline_met::integer), 6) AS share_deadlines_kept,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY execution_seconds::double precision) AS median_execution_seconds,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY execution_seconds::double precision) AS p95_execution_seconds,
    round(avg(execution_seconds / nullif(expected_seconds, 0)), 6) AS mean_share_of_expected
FROM task_read_model
GROUP BY tenant, coalesce(agent_type, '(unknown)'), coalesce(priority, '(unknown)')
