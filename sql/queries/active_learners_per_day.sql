-- Learners who began a session or completed an assessment, by tenant and day (UTC).
SELECT tenant, CAST("timestamp" AS DATE) AS day, count(DISTINCT user_id) AS learners
FROM (
    SELECT tenant, "timestamp", user_id FROM learning_session_started
    UNION ALL
    SELECT tenant, "timestamp", user_id FROM assessment_completed
) active
GROUP BY tenant, CAST("timestamp" AS DATE)
ORDER BY tenant, day
