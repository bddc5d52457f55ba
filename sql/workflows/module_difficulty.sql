-- workflow: module_difficulty
-- about: How learners fare in the assessments of each module; the hardest have the least share of passes
-- trigger: every 60 minutes
-- window: none
-- keys: tenant, module_id
SELECT s.tenant, s.module_id, count(*) AS attempts, count(DISTINCT a.user_id) AS learners,
    round(avg(a.score_percent), 6) AS mean_score_percent, round(stddev_samp(a.score_percent), 6) AS score_percent_deviation,
    round(avg(a.passed::integer), 6) AS share_passed, round(avg(a.time_spent_seconds), 3) AS mean_time_spent_seconds,
    round(1 - avg(a.passed::integer) * avg(a.score_percent) / 100, 6) AS difficulty
FROM assessment_read_model a
JOIN learning_session_read_model s ON s.tenant = a.tenant AND s.id = a.session_id
GROUP BY s.tenant, s.module_id
