-- question: score_distribution
-- title: Score distribution by assessment
-- about: Attempts at each assessment by bands of ten percents of what could be reached; the best band holds 90 to 100.
-- parameters: tenant, from, to
-- parameter: assessment text '' One assessment; empty for all
-- column: tenant text
-- column: assessment_id text
-- column: band integer percent
-- column: attempts integer
-- column: learners integer
SELECT tenant, assessment_id, band, count(*) AS attempts, count(DISTINCT user_id) AS learners
FROM (
    SELECT tenant, assessment_id, user_id, CAST(least(floor(score * 10 / nullif(max_score, 0)), 9) AS BIGINT) * 10 AS band
    FROM assessment_completed WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant) AND ($assessment = '' OR assessment_id = $assessment)
) banded
WHERE band IS NOT NULL
GROUP BY tenant, assessment_id, band
ORDER BY tenant, assessment_id, band
-- on: read-models
SELECT tenant, assessment_id, band, count(*) AS attempts, count(DISTINCT user_id) AS learners
FROM (
    SELECT tenant, assessment_id, user_id, least(floor(score * 10 / nullif(max_score, 0)), 9)::bigint * 10 AS band
    FROM assessment_read_model
    WHERE completed_at >= $from AND completed_at < $to AND ($tenant = '' OR tenant = $tenant) AND ($assessment = '' OR assessment_id = $assessment)
) banded
WHERE band IS NOT NULL
GROUP BY tenant, assessment_id, band
ORDER BY tenant COLLATE "C", assessment_id COLLATE "C", band
