-- workflow: cohort_retention
-- about: Of the learners who registered in a week, how many had a session in each week since
-- trigger: cron 20 4 * * *
-- window: none
-- keys: tenant, cohort_week, weeks_since
WITH cohort AS (
    SELECT tenant, id AS user_id, date_trunc('week', created_at, 'UTC') AS cohort_week FROM user_read_model WHERE created_at IS NOT NULL
), sized AS (
    SELECT tenant, cohort_week, count(*) AS learners FROM cohort GROUP BY tenant, cohort_week
), active AS (
    SELECT c.tenant, c.cohort_week, (date_trunc('week', s.started_at, 'UTC')::date - c.cohort_week::date) / 7 AS weeks_since,
        count(DISTINCT c.user_id) AS active
    FROM cohort c JOIN learning_session_read_model s ON s.tenant = c.tenant AND s.user_id = c.user_id
    WHERE s.started_at >= c.cohort_week
    GROUP BY c.tenant, c.cohort_week, (date_trunc('week', s.started_at, 'UTC')::date - c.cohort_week::date) / 7
)
SELECT a.tenant, a.cohort_week, a.weeks_since, z.learners, a.active, round(a.active::numeric / z.learners, 6) AS retention
FROM active a JOIN sized z ON z.tenant = a.tenant AND z.cohort_week = a.cohort_week
