-- question: attempts_by_assessment
-- title: Attempts by assessment
-- about: For each assessment: how many learners took it and how often, and how many passed, at the first attempt and at any.
-- parameters: tenant, from, to
-- column: tenant text
-- column: assessment_id text
-- column: learners integer
-- column: attempts integer
-- column: attempts_max integer
-- column: passed_first integer
-- column: passed integer
SELECT tenant, assessment_id, count(*) AS learners, sum(takes) AS attempts, max(takes) AS attempts_max,
    sum(at_first) AS passed_first, sum(at_any) AS passed
FROM (
    SELECT tenant, assessment_id, user_id, count(*) AS takes,
        max(CASE WHEN attempt = 1 AND passed THEN 1 ELSE 0 END) AS at_first,
        max(CASE WHEN passed THEN 1 ELSE 0 END) AS at_any
    FROM (
        SELECT tenant, assessment_id, user_id, passed,
            row_number() OVER (PARTITION BY tenant, assessment_id, user_id ORDER BY "timestamp", event_id) AS attempt
        FROM assessment_completed WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)
    ) AS ranked
    GROUP BY tenant, assessment_id, user_id
) AS by_learner
GROUP BY tenant, assessment_id
ORDER BY tenant, assessment_id
-- on: read-models
SELECT tenant, assessment_id, count(*) AS learners, sum(takes)::bigint AS attempts, max(takes) AS attempts_max,
    sum(at_first) AS passed_first, sum(at_any) AS passed
FROM (
    SELECT tenant, assessment_id, user_id, count(*) AS takes, max((attempt = 1 AND passed)::integer) AS at_first,
        max(passed::integer) AS at_any
    FROM (
        SELECT tenant, assessment_id, user_id, passed,
            row_number() OVER (PARTITION BY tenant, assessment_id, user_id ORDER BY completed_at, key) AS attempt
        FROM assessment_read_model WHERE completed_at >= $from AND completed_at < $to AND ($tenant = '' OR tenant = $tenant)
    ) AS ranked
    GROUP BY tenant, assessment_id, user_id
) AS by_learner
GROUP BY tenant, assessment_id
ORDER BY tenant COLLATE "C", assessment_id COLLATE "C"
