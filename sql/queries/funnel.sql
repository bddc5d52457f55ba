-- question: funnel
-- title: From registration to a passed assessment
-- about: Of the learners who registered: those with a session, of those with an assessment, and of those who passed one.
-- parameters: tenant, from, to
-- column: tenant text
-- column: registered integer
-- column: with_session integer
-- column: with_assessment integer
-- column: passed integer
SELECT tenant, sum(is_registered) AS registered, sum(is_registered * has_session) AS with_session,
    sum(is_registered * has_session * has_assessment) AS with_assessment, sum(is_registered * has_session * has_passed) AS passed
FROM (
    SELECT tenant, user_id, max(is_registration) AS is_registered, max(is_session) AS has_session, max(is_assessment) AS has_assessment,
        max(is_pass) AS has_passed
    FROM (
        SELECT tenant, user_id, 1 AS is_registration, 0 AS is_session, 0 AS is_assessment, 0 AS is_pass FROM user_registered WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)
        UNION ALL
        SELECT tenant, user_id, 0 AS is_registration, 1 AS is_session, 0 AS is_assessment, 0 AS is_pass FROM learning_session_started WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)
        UNION ALL
        SELECT tenant, user_id, 0 AS is_registration, 0 AS is_session, 1 AS is_assessment, CASE WHEN passed THEN 1 ELSE 0 END AS is_pass
        FROM assessment_completed WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)
    ) steps
    GROUP BY tenant, user_id
) learners
GROUP BY tenant
HAVING sum(is_registered) > 0
ORDER BY tenant
