-- question: engagement_by_module
-- title: Engagement by module
-- about: Sessions and learners of each module of each learning path, and when it was last used.
-- parameters: tenant, from, to
-- parameter: path text '' One learning path; empty for all
-- column: tenant text
-- column: learning_path_id text
-- column: module_id text
-- column: sessions integer
-- column: learners integer
-- column: sessions_per_learner number
-- column: last_session_at time
SELECT tenant, learning_path_id, module_id, count(*) AS sessions, count(DISTINCT user_id) AS learners,
    CAST(count(*) AS DOUBLE) / CAST(count(DISTINCT user_id) AS DOUBLE) AS sessions_per_learner,
    max("timestamp") AS last_session_at
FROM learning_session_started
WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant) AND ($path = '' OR learning_path_id = $path)
GROUP BY tenant, learning_path_id, module_id
ORDER BY tenant, learning_path_id, module_id
-- on: read-models
SELECT tenant, learning_path_id, module_id, count(*) AS sessions, count(DISTINCT user_id) AS learners,
    count(*)::double precision / count(DISTINCT user_id) AS sessions_per_learner, max(started_at) AS last_session_at
FROM learning_session_read_model
WHERE started_at >= $from AND started_at < $to AND ($tenant = '' OR tenant = $tenant) AND ($path = '' OR learning_path_id = $path)
GROUP BY tenant, learning_path_id, module_id
ORDER BY tenant COLLATE "C", learning_path_id COLLATE "C", module_id COLLATE "C"
