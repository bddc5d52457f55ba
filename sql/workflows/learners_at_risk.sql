-- workflow: learners_at_risk
-- about: Learners who are registered, not deactivated, and likely to give up, with the reasons
-- trigger: every 60 minutes
-- window: none
-- keys: tenant, user_id
WITH last AS (
    -- Time is counted from a tenant's last session, so that a platform that was closed for the summer has no risk by that alone.
    SELECT tenant, max(started_at) AS at FROM learning_session_read_model GROUP BY tenant
), sessions AS (
    SELECT tenant, user_id, max(started_at) AS last_session_at FROM learning_session_read_model GROUP BY tenant, user_id
), attempts AS (
    SELECT tenant, user_id, least(score, 1e11)::numeric(18, 6) AS score, least(max_score, 1e11)::numeric(18, 6) AS max_score,
        score_percent, row_number() OVER (PARTITION BY tenant, user_id ORDER BY completed_at DESC, key DESC) AS newest
    FROM assessment_read_model
), scores AS (
    SELECT tenant, user_id, count(*) AS assessments, sum(score) AS score_sum, sum(max_score) AS max_score_sum,
        avg(score_percent) FILTER (WHERE newest <= 3) AS recent_percent, avg(score_percent) FILTER (WHERE newest > 3) AS earlier_percent
    FROM attempts GROUP BY tenant, user_id
), judged AS (
    SELECT u.tenant, u.id AS user_id, s.last_session_at, c.assessments, c.score_sum, c.max_score_sum,
        round(c.recent_percent, 6) AS recent_percent, round(c.earlier_percent, 6) AS earlier_percent,
        s.last_session_at < l.at - interval '30 days' AS is_absent,
        c.score_sum * 100 < c.max_score_sum * 40 AS has_low_scores,
        c.recent_percent < c.earlier_percent - 15 AS has_falling_scores
    FROM user_read_model u
    LEFT JOIN sessions s ON s.tenant = u.tenant AND s.user_id = u.id
    LEFT JOIN last l ON l.tenant = u.tenant
    LEFT JOIN scores c ON c.tenant = u.tenant AND c.user_id = u.id
    WHERE u.status = 'active' AND u.created_at IS NOT NULL
)
SELECT tenant, user_id,
    concat_ws(', ', CASE WHEN is_absent THEN 'no session for 30 days' END, CASE WHEN has_low_scores THEN 'low scores' END,
        CASE WHEN has_falling_scores THEN 'falling scores' END) AS reason,
    last_session_at, assessments, score_sum, max_score_sum, recent_percent, earlier_percent
FROM judged WHERE is_absent OR has_low_scores OR has_falling_scores
