-- question: attempts_until_passed
-- title: Attempts until passed
-- about: How many attempts learners needed until they passed an assessment for the first time.
-- parameters: tenant, from, to
-- column: tenant text
-- column: attempts integer
-- column: learners integer
SELECT tenant, needed AS attempts, count(*) AS learners
FROM (
    SELECT tenant, assessment_id, user_id, min(CASE WHEN passed THEN attempt END) AS needed
    FROM (
        SELECT tenant, assessment_id, user_id, passed,
            row_number() OVER (PARTITION BY tenant, assessment_id, user_id ORDER BY "timestamp", event_id) AS attempt
        FROM assessment_completed WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)
    ) ranked
    GROUP BY tenant, assessment_id, user_id
) by_learner
WHERE needed IS NOT NULL
GROUP BY tenant, needed
ORDER BY tenant, attempts
-- on: read-models
SELECT tenant, needed AS attempts, count(*) AS learners
FROM (
    SELECT tenant, assessment_id, user_id, min(attempt) FILTER (WHERE passed) AS needed
    FROM (
        SELECT tenant, assessment_id, user_id, passed,
            row_number() OVER (PARTITION BY tenant, assessment_id, user_id ORDER BY completed_at, key) AS attempt
        FROM assessment_read_model WHERE completed_at >= $from AND completed_at < $to AND ($tenant = '' OR tenant = $tenant)
    ) ranked
    GROUP BY tenant, assessment_id, user_id
) by_learner
WHERE needed IS NOT NULL
GROUP BY tenant, needed
ORDER BY tenant COLLATE "C", attempts
