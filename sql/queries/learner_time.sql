-- question: learner_time
-- title: Days of a learner
-- about: One learner by day (UTC): sessions begun, assessments completed, and the time that those took.
-- parameters: tenant, from, to
-- parameter: user text - The learner
-- column: tenant text
-- column: day date
-- column: sessions integer
-- column: assessments integer
-- column: seconds_spent number seconds
SELECT tenant, CAST(happened_at AS DATE) AS day, sum(is_session) AS sessions, sum(1 - is_session) AS assessments,
    CAST(sum(spent) AS DOUBLE) / 1000 AS seconds_spent
FROM (
    SELECT tenant, "timestamp" AS happened_at, 1 AS is_session, CAST(0 AS BIGINT) AS spent FROM learning_session_started
    WHERE user_id = $user AND "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)
    UNION ALL
    SELECT tenant, "timestamp" AS happened_at, 0 AS is_session, CAST(floor(least(coalesce(time_spent, 0), 1e14) + 0.5) AS BIGINT) AS spent
    FROM assessment_completed
    WHERE user_id = $user AND "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)
) activity
GROUP BY tenant, CAST(happened_at AS DATE)
ORDER BY tenant, day
