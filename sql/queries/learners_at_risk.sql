-- question: learners_at_risk
-- title: Learners at risk
-- about: Learners who are registered, not deactivated, and have less than 40 % of what their assessments could have brought them.
-- parameters: tenant, from, to
-- column: tenant text
-- column: user_id text
-- column: assessments integer
-- column: score_sum number points
-- column: max_score_sum number points
SELECT a.tenant AS tenant, a.user_id AS user_id, count(*) AS assessments,
    sum(CAST(least(a.score, 1e11) AS DECIMAL(18, 6))) AS score_sum, sum(CAST(least(a.max_score, 1e11) AS DECIMAL(18, 6))) AS max_score_sum
FROM (SELECT tenant, user_id, score, max_score FROM assessment_completed WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)) a
JOIN (SELECT DISTINCT tenant, user_id FROM user_registered WHERE ($tenant = '' OR tenant = $tenant)) r
    ON r.tenant = a.tenant AND r.user_id = a.user_id
LEFT JOIN (SELECT DISTINCT tenant, user_id, 1 AS gone FROM user_deactivated WHERE ($tenant = '' OR tenant = $tenant)) d
    ON d.tenant = a.tenant AND d.user_id = a.user_id
WHERE coalesce(d.gone, 0) = 0
GROUP BY a.tenant, a.user_id
HAVING sum(CAST(least(a.score, 1e11) AS DECIMAL(18, 6))) * 100 < sum(CAST(least(a.max_score, 1e11) AS DECIMAL(18, 6))) * 40
ORDER BY tenant, user_id
-- on: read-models
SELECT a.tenant, a.user_id, count(*) AS assessments, sum(least(a.score, 1e11)::numeric(18, 6)) AS score_sum,
    sum(least(a.max_score, 1e11)::numeric(18, 6)) AS max_score_sum
FROM assessment_read_model a
JOIN user_read_model u ON u.tenant = a.tenant AND u.id = a.user_id AND u.status = 'active' AND u.created_at IS NOT NULL
WHERE a.completed_at >= $from AND a.completed_at < $to AND ($tenant = '' OR a.tenant = $tenant)
GROUP BY a.tenant, a.user_id
HAVING sum(least(a.score, 1e11)::numeric(18, 6)) * 100 < sum(least(a.max_score, 1e11)::numeric(18, 6)) * 40
ORDER BY a.tenant COLLATE "C", a.user_id COLLATE "C"
