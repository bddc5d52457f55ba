-- question: learner_scores
-- title: Scores of a learner
-- about: What one learner reached in each assessment: attempts, best and last score as percents of what could be reached, time spent.
-- parameters: tenant, from, to
-- parameter: user text - The learner
-- column: tenant text
-- column: assessment_id text
-- column: attempts integer
-- column: best_percent number percent
-- column: last_percent number percent
-- column: passed flag
-- column: last_completed_at time
-- column: seconds_spent number seconds
SELECT tenant, assessment_id, count(*) AS attempts, max(score_percent) AS best_percent,
    max(CASE WHEN newest = 1 THEN score_percent END) AS last_percent,
    CAST(max(CASE WHEN passed THEN 1 ELSE 0 END) = 1 AS BOOLEAN) AS passed, max(completed_at) AS last_completed_at,
    CAST(sum(spent) AS DOUBLE) / 1000 AS seconds_spent
FROM (
    SELECT tenant, assessment_id, passed, "timestamp" AS completed_at, score * 100 / nullif(max_score, 0) AS score_percent,
        CAST(floor(least(time_spent, 1e14) + 0.5) AS BIGINT) AS spent,
        row_number() OVER (PARTITION BY tenant, assessment_id ORDER BY "timestamp" DESC, event_id DESC) AS newest
    FROM assessment_completed WHERE user_id = $user AND "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)
) attempts
GROUP BY tenant, assessment_id
ORDER BY tenant, assessment_id
