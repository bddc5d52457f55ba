-- workflow: learner_engagement
-- about: What each learner did in each week, and a score of it: a session counts 1, an attempt 2, a pass 3
-- trigger: event LearningSessionStarted, AssessmentCompleted debounce 30 s
-- window: week
-- lookback: 1100 days
-- keys: tenant, user_id, window_start
SELECT tenant, user_id, date_trunc('week', at, 'UTC') AS window_start, sum(sessions) AS sessions, sum(attempts) AS attempts,
    sum(passes) AS passes, sum(sessions + 2 * attempts + 3 * passes) AS score
FROM (
    SELECT tenant, user_id, started_at AS at, 1 AS sessions, 0 AS attempts, 0 AS passes FROM learning_session_read_model
    UNION ALL
    SELECT tenant, user_id, completed_at, 0, 1, passed::integer FROM assessment_read_model
) did
GROUP BY tenant, user_id, date_trunc('week', at, 'UTC')
