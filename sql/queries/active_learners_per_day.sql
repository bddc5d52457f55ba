-- Learners who began a session or completed an assessment, by tenant and day (UTC).
SELECT tenant, CAST("timestamp" AS DATE) AS day, count(DISTINCT user_id) AS learners
FROM events
WHERE event_type IN ('LearningSessionStarted', 'AssessmentCompleted')
GROUP BY tenant, CAST("timestamp" AS DATE)
ORDER BY tenant, day
