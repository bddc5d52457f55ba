-- question: active_learners_per_day
-- title: Active learners per day
-- about: Learners who began a session or completed an assessment, by tenant and day (UTC).
-- parameters: tenant, from, to
-- column: tenant text
-- column: day date
-- column: learners integer
SELECT tenant, CAST(happened_at AS DATE) AS day, count(DISTINCT user_id) AS learners
FROM (
    SELECT tenant, user_id, "timestamp" AS happened_at, 1 AS is_session FROM learning_session_started WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)
    UNION ALL
    SELECT tenant, user_id, "timestamp" AS happened_at, 0 AS is_session FROM assessment_completed WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)
) active
GROUP BY tenant, CAST(happened_at AS DATE)
ORDER BY tenant, day
-- on: read-models
SELECT tenant, day, count(DISTINCT user_id) AS learners
FROM (
    SELECT tenant, user_id, (started_at AT TIME ZONE 'UTC')::date AS day FROM learning_session_read_model
    WHERE started_at >= $from AND started_at < $to AND ($tenant = '' OR tenant = $tenant)
    UNION ALL
    SELECT tenant, user_id, (completed_at AT TIME ZONE 'UTC')::date AS day FROM assessment_read_model
    WHERE completed_at >= $from AND completed_at < $to AND ($tenant = '' OR tenant = $tenant)
) active
GROUP BY tenant, day
ORDER BY tenant, day
