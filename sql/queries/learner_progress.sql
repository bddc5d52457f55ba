-- question: learner_progress
-- title: Progress of a learner
-- about: How far one learner is on each learning path: of the modules in which any learner of that path had a session, those that this one has seen.
-- parameters: tenant, from, to
-- parameter: user text - The learner
-- column: tenant text
-- column: learning_path_id text
-- column: sessions integer
-- column: modules_seen integer
-- column: modules integer
-- column: percent number percent
-- column: first_session_at time
-- column: last_session_at time
SELECT l.tenant AS tenant, l.learning_path_id AS learning_path_id, l.sessions AS sessions, l.modules_seen AS modules_seen,
    p.modules AS modules, CAST(l.modules_seen AS DOUBLE) * 100 / CAST(p.modules AS DOUBLE) AS percent,
    l.first_session_at AS first_session_at, l.last_session_at AS last_session_at
FROM (
    SELECT tenant, learning_path_id, count(*) AS sessions, count(DISTINCT module_id) AS modules_seen,
        min("timestamp") AS first_session_at, max("timestamp") AS last_session_at
    FROM learning_session_started WHERE user_id = $user AND "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)
    GROUP BY tenant, learning_path_id
) l
JOIN (
    SELECT tenant, learning_path_id, count(DISTINCT module_id) AS modules
    FROM learning_session_started WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)
    GROUP BY tenant, learning_path_id
) p ON p.tenant = l.tenant AND p.learning_path_id = l.learning_path_id
ORDER BY tenant, learning_path_id
