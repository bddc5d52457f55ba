-- question: learning_paths_compared
-- title: Two learning paths compared
-- about: Two learning paths side by side: learners, sessions and modules, and what their learners reached in all their assessments.
-- parameters: tenant, from, to
-- parameter: path text - One learning path
-- parameter: other text - The other one
-- column: tenant text
-- column: learning_path_id text
-- column: learners integer
-- column: sessions integer
-- column: modules integer
-- column: assessments integer
-- column: passed integer
-- column: mean_percent number percent
WITH learners AS (
    SELECT tenant, learning_path_id, user_id, count(*) AS sessions
    FROM learning_session_started WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant) AND learning_path_id IN ($path, $other)
    GROUP BY tenant, learning_path_id, user_id
), modules AS (
    SELECT tenant, learning_path_id, count(DISTINCT module_id) AS modules
    FROM learning_session_started WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant) AND learning_path_id IN ($path, $other)
    GROUP BY tenant, learning_path_id
), results AS (
    SELECT tenant, user_id, count(*) AS assessments, count(*) FILTER (WHERE passed) AS passed,
        sum(CAST(floor(score * 1000000 / nullif(max_score, 0) + 0.5) AS BIGINT)) AS millionths
    FROM assessment_completed WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)
    GROUP BY tenant, user_id
), joined AS (
    SELECT l.tenant AS tenant, l.learning_path_id AS learning_path_id, l.sessions AS sessions, coalesce(r.assessments, 0) AS assessments,
        coalesce(r.passed, 0) AS passed, coalesce(r.millionths, 0) AS millionths
    FROM learners l LEFT JOIN results r ON r.tenant = l.tenant AND r.user_id = l.user_id
), summed AS (
    SELECT tenant, learning_path_id, count(*) AS n, sum(sessions) AS session_sum, sum(assessments) AS assessment_sum,
        sum(passed) AS passed_sum, sum(millionths) AS millionth_sum
    FROM joined GROUP BY tenant, learning_path_id
)
SELECT s.tenant AS tenant, s.learning_path_id AS learning_path_id, s.n AS learners, s.session_sum AS sessions, m.modules AS modules,
    s.assessment_sum AS assessments, s.passed_sum AS passed,
    CASE WHEN s.assessment_sum > 0 THEN CAST(s.millionth_sum AS DOUBLE) / CAST(s.assessment_sum AS DOUBLE) / 10000 END AS mean_percent
FROM summed s JOIN modules m ON m.tenant = s.tenant AND m.learning_path_id = s.learning_path_id
ORDER BY tenant, learning_path_id
