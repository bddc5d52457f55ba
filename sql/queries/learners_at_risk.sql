-- Learners who are registered, not deactivated, and have less than 40 % of what their assessments could have brought them.
SELECT a.tenant AS tenant, a.user_id AS user_id, count(*) AS assessments,
    sum(CAST(least(a.score, 1e11) AS DECIMAL(18, 6))) AS score_sum, sum(CAST(least(a.max_score, 1e11) AS DECIMAL(18, 6))) AS max_score_sum
FROM assessment_completed a
JOIN (SELECT DISTINCT tenant, user_id FROM user_registered) r ON r.tenant = a.tenant AND r.user_id = a.user_id
LEFT JOIN (SELECT DISTINCT tenant, user_id, 1 AS gone FROM user_deactivated) d
    ON d.tenant = a.tenant AND d.user_id = a.user_id
WHERE coalesce(d.gone, 0) = 0
GROUP BY a.tenant, a.user_id
HAVING sum(CAST(least(a.score, 1e11) AS DECIMAL(18, 6))) * 100 < sum(CAST(least(a.max_score, 1e11) AS DECIMAL(18, 6))) * 40
ORDER BY tenant, user_id
