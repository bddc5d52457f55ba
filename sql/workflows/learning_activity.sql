-- workflow: learning_activity
-- about: Sessions, learners, attempts and passes of each day
-- trigger: event LearningSessionStarted, AssessmentCompleted debounce 30 s
-- window: day
-- lookback: 1100 days
-- keys: tenant, window_start
SELECT tenant, date_trunc('day', at, 'UTC') AS window_start, count(DISTINCT user_id) AS learners, sum(sessions) AS sessions,
    sum(attempts) AS attempts, sum(passes) AS passes
FROM (
    SELECT tenant, user_id, started_at AS at, 1 AS sessions, 0 AS attempts, 0 AS passes FROM learning_session_read_model
    UNION ALL
    SELECT tenant, user_id, completed_at, 0, 1, passed::integer FROM assessment_read_model
) did
GROUP BY tenant, date_trunc('day', at, 'UTC')
