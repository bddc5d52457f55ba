-- question: learners_inactive
-- title: Learners gone quiet
-- about: Learners who had been active and have not begun a session or completed an assessment for so many days before the newest such
--   event of their tenant, so that a summer in which all is closed makes no learner inactive. Those who left are not among them.
-- parameters: tenant, from, to
-- parameter: days integer 14 Days without activity
-- column: tenant text
-- column: user_id text
-- column: last_active_at time
-- column: days_inactive integer days
-- column: sessions integer
-- column: assessments integer
WITH activity AS (
    SELECT tenant, user_id, "timestamp" AS happened_at, 1 AS is_session FROM learning_session_started WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)
    UNION ALL
    SELECT tenant, user_id, "timestamp" AS happened_at, 0 AS is_session FROM assessment_completed WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)
), newest AS (
    SELECT tenant, max(happened_at) AS newest_at FROM activity GROUP BY tenant
), learners AS (
    SELECT tenant, user_id, max(happened_at) AS last_active_at, sum(is_session) AS sessions, sum(1 - is_session) AS assessments
    FROM activity GROUP BY tenant, user_id
)
SELECT l.tenant AS tenant, l.user_id AS user_id, l.last_active_at AS last_active_at,
    CAST(floor(CAST(toUnixTimestamp64Milli(n.newest_at) - toUnixTimestamp64Milli(l.last_active_at) AS DOUBLE) / 86400000) AS BIGINT) AS days_inactive,
    l.sessions AS sessions, l.assessments AS assessments
FROM learners l
JOIN newest n ON n.tenant = l.tenant
LEFT JOIN (SELECT DISTINCT tenant, user_id, 1 AS gone FROM user_deactivated WHERE ($tenant = '' OR tenant = $tenant)) d
    ON d.tenant = l.tenant AND d.user_id = l.user_id
WHERE coalesce(d.gone, 0) = 0 AND toUnixTimestamp64Milli(n.newest_at) - toUnixTimestamp64Milli(l.last_active_at) >= $days * 86400000
ORDER BY tenant, user_id
-- on: read-models
WITH activity AS (
    SELECT tenant, user_id, started_at AS happened_at, 1 AS is_session FROM learning_session_read_model
    WHERE started_at >= $from AND started_at < $to AND ($tenant = '' OR tenant = $tenant)
    UNION ALL
    SELECT tenant, user_id, completed_at AS happened_at, 0 AS is_session FROM assessment_read_model
    WHERE completed_at >= $from AND completed_at < $to AND ($tenant = '' OR tenant = $tenant)
), newest AS (
    SELECT tenant, max(happened_at) AS newest_at FROM activity GROUP BY tenant
), learners AS (
    SELECT tenant, user_id, max(happened_at) AS last_active_at, sum(is_session) AS sessions, sum(1 - is_session) AS assessments
    FROM activity GROUP BY tenant, user_id
)
SELECT l.tenant, l.user_id, l.last_active_at, floor(extract(epoch FROM n.newest_at - l.last_active_at) / 86400)::bigint AS days_inactive,
    l.sessions, l.assessments
FROM learners l
JOIN newest n ON n.tenant = l.tenant
LEFT JOIN user_read_model u ON u.tenant = l.tenant AND u.id = l.user_id
WHERE u.deactivated_at IS NULL AND n.newest_at - l.last_active_at >= $days * interval '1 day'
ORDER BY l.tenant COLLATE "C", l.user_id COLLATE "C"
