-- question: results_by_learning_path
-- title: Results by learning path
-- about: Pass rate and distribution of scores by learning path. An assessment counts for each path in which its learner had a session;
--   scores are percents of the best possible one.
-- parameters: tenant, from, to
-- column: tenant text
-- column: learning_path_id text
-- column: assessments integer
-- column: passed integer
-- column: below_40 integer
-- column: from_40 integer
-- column: from_60 integer
-- column: from_80 integer
-- column: score_sum number points
SELECT a.tenant AS tenant, coalesce(p.learning_path_id, '(none)') AS learning_path_id,
    count(*) AS assessments,
    count(*) FILTER (WHERE a.passed) AS passed,
    count(*) FILTER (WHERE a.score * 100 < a.max_score * 40) AS below_40,
    count(*) FILTER (WHERE a.score * 100 >= a.max_score * 40 AND a.score * 100 < a.max_score * 60) AS from_40,
    count(*) FILTER (WHERE a.score * 100 >= a.max_score * 60 AND a.score * 100 < a.max_score * 80) AS from_60,
    count(*) FILTER (WHERE a.score * 100 >= a.max_score * 80) AS from_80,
    sum(CAST(least(a.score, 1e11) AS DECIMAL(18, 6))) AS score_sum
FROM (SELECT tenant, user_id, score, max_score, passed FROM assessment_completed WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)) a
LEFT JOIN (
    SELECT DISTINCT tenant, user_id, learning_path_id FROM learning_session_started WHERE ($tenant = '' OR tenant = $tenant)
) p ON p.tenant = a.tenant AND p.user_id = a.user_id
GROUP BY a.tenant, coalesce(p.learning_path_id, '(none)')
ORDER BY tenant, learning_path_id
