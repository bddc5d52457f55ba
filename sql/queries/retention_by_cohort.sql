-- question: retention_by_cohort
-- title: Retention by cohort
-- about: Of the learners who registered in one week (from Monday, UTC), how many were active so many weeks later.
-- parameters: tenant, from, to
-- column: tenant text
-- column: cohort date
-- column: week integer weeks
-- column: learners integer
-- column: active integer
-- column: percent number percent
WITH activity AS (
    SELECT tenant, user_id, "timestamp" AS happened_at, 1 AS is_session FROM learning_session_started WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)
    UNION ALL
    SELECT tenant, user_id, "timestamp" AS happened_at, 0 AS is_session FROM assessment_completed WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)
), registered AS (
    SELECT tenant, user_id, min("timestamp") AS happened_at FROM user_registered WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant) GROUP BY tenant, user_id
), cohorts AS (
    SELECT tenant, user_id, CAST(date_trunc('week', happened_at) AS DATE) AS cohort,
        CAST(floor(CAST(toUnixTimestamp64Milli(happened_at) + 259200000 AS DOUBLE) / 604800000) AS BIGINT) AS joined_in
    FROM registered
), sizes AS (
    SELECT tenant, cohort, count(*) AS learners FROM cohorts GROUP BY tenant, cohort
), weeks AS (
    SELECT DISTINCT tenant, user_id, CAST(floor(CAST(toUnixTimestamp64Milli(happened_at) + 259200000 AS DOUBLE) / 604800000) AS BIGINT) AS active_in FROM activity
), kept AS (
    SELECT c.tenant AS tenant, c.cohort AS cohort, w.active_in - c.joined_in AS week, count(*) AS active
    FROM cohorts c JOIN weeks w ON w.tenant = c.tenant AND w.user_id = c.user_id
    WHERE w.active_in >= c.joined_in
    GROUP BY c.tenant, c.cohort, w.active_in - c.joined_in
)
SELECT k.tenant AS tenant, k.cohort AS cohort, k.week AS week, s.learners AS learners, k.active AS active,
    CAST(k.active AS DOUBLE) * 100 / CAST(s.learners AS DOUBLE) AS percent
FROM kept k JOIN sizes s ON s.tenant = k.tenant AND s.cohort = k.cohort
ORDER BY tenant, cohort, week
