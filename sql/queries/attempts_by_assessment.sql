-- For each assessment: how many learners took it and how often, and how many passed, at the first attempt and at any.
SELECT tenant, assessment_id, count(*) AS learners, sum(takes) AS attempts, max(takes) AS attempts_max,
    sum(at_first) AS passed_first, sum(at_any) AS passed
FROM (
    SELECT tenant, assessment_id, user_id, count(*) AS takes,
        max(CASE WHEN attempt = 1 AND passed THEN 1 ELSE 0 END) AS at_first,
        max(CASE WHEN passed THEN 1 ELSE 0 END) AS at_any
    FROM (
        SELECT tenant, assessment_id, user_id, passed,
            row_number() OVER (PARTITION BY tenant, assessment_id, user_id ORDER BY "timestamp", event_id) AS attempt
        FROM assessment_completed
    ) AS ranked
    GROUP BY tenant, assessment_id, user_id
) AS by_learner
GROUP BY tenant, assessment_id
ORDER BY tenant, assessment_id
