-- question: assessment_difficulty
-- title: Difficulty and discrimination
-- about: For each assessment: difficulty, the mean score as a percent of what could be reached (low is hard), and discrimination, by how
--   many percents the best third of the tenant's learners (by their mean over all assessments) did better in it than the worst third.
-- parameters: tenant, from, to
-- column: tenant text
-- column: assessment_id text
-- column: attempts integer
-- column: difficulty number percent
-- column: discrimination number percent
WITH attempts AS (
    SELECT tenant, assessment_id, user_id, CAST(floor(score * 1000000 / nullif(max_score, 0) + 0.5) AS BIGINT) AS millionths
    FROM assessment_completed WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)
), means AS (
    SELECT tenant, user_id, CAST(sum(millionths) AS DOUBLE) / CAST(count(*) AS DOUBLE) AS mean
    FROM attempts WHERE millionths IS NOT NULL GROUP BY tenant, user_id
), ranked AS (
    SELECT tenant, user_id, row_number() OVER (PARTITION BY tenant ORDER BY mean, user_id) AS place,
        count(*) OVER (PARTITION BY tenant) AS n
    FROM means
), graded AS (
    SELECT a.tenant AS tenant, a.assessment_id AS assessment_id, a.millionths AS millionths,
        CASE WHEN r.place * 3 > r.n * 2 THEN a.millionths END AS of_best, CASE WHEN r.place * 3 <= r.n THEN a.millionths END AS of_worst
    FROM attempts a JOIN ranked r ON r.tenant = a.tenant AND r.user_id = a.user_id
)
SELECT tenant, assessment_id, count(millionths) AS attempts,
    CAST(sum(millionths) AS DOUBLE) / CAST(count(millionths) AS DOUBLE) / 10000 AS difficulty,
    CASE WHEN count(of_best) > 0 AND count(of_worst) > 0 THEN CAST(sum(of_best) AS DOUBLE) / CAST(count(of_best) AS DOUBLE) / 10000
        - CAST(sum(of_worst) AS DOUBLE) / CAST(count(of_worst) AS DOUBLE) / 10000 END AS discrimination
FROM graded
WHERE millionths IS NOT NULL
GROUP BY tenant, assessment_id
ORDER BY tenant, assessment_id
