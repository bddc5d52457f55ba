-- Pass rate and distribution of scores by learning path. An assessment counts for each path in which its learner had a session;
-- scores are percents of the best possible one.
SELECT a.tenant AS tenant, coalesce(p.learning_path_id, '(none)') AS learning_path_id,
    count(*) AS assessments,
    count(*) FILTER (WHERE a.passed) AS passed,
    count(*) FILTER (WHERE a.score * 100 < a.max_score * 40) AS below_40,
    count(*) FILTER (WHERE a.score * 100 >= a.max_score * 40 AND a.score * 100 < a.max_score * 60) AS from_40,
    count(*) FILTER (WHERE a.score * 100 >= a.max_score * 60 AND a.score * 100 < a.max_score * 80) AS from_60,
    count(*) FILTER (WHERE a.score * 100 >= a.max_score * 80) AS from_80,
    sum(CAST(least(a.score, 1e11) AS DECIMAL(18, 6))) AS score_sum
FROM assessment_completed a
LEFT JOIN (SELECT DISTINCT tenant, user_id, learning_path_id FROM learning_session_started) p
    ON p.tenant = a.tenant AND p.user_id = a.user_id
GROUP BY a.tenant, coalesce(p.learning_path_id, '(none)')
ORDER BY tenant, learning_path_id
