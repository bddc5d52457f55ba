-- question: session_length
-- title: Session length
-- about: How long sessions took by learning path: from their start to the last assessment completed in them, since no event ends a session.
--   Sessions without an assessment have no length. Quantiles by nearest rank.
-- parameters: tenant, from, to
-- column: tenant text
-- column: learning_path_id text
-- column: sessions integer
-- column: p50 number seconds
-- column: p90 number seconds
SELECT tenant, learning_path_id, max(n) AS sessions,
    CAST(max(CASE WHEN (place - 1) * 100 < n * 50 AND place * 100 >= n * 50 THEN took END) AS DOUBLE) / 1000 AS p50,
    CAST(max(CASE WHEN (place - 1) * 100 < n * 90 AND place * 100 >= n * 90 THEN took END) AS DOUBLE) / 1000 AS p90
FROM (
    SELECT tenant, learning_path_id, took, row_number() OVER (PARTITION BY tenant, learning_path_id ORDER BY took) AS place,
        count(*) OVER (PARTITION BY tenant, learning_path_id) AS n
    FROM (
        SELECT s.tenant AS tenant, s.session_id AS session_id, max(s.learning_path_id) AS learning_path_id,
            max(toUnixTimestamp64Milli(a.completed_at)) - max(toUnixTimestamp64Milli(s.started_at)) AS took
        FROM (SELECT tenant, session_id, learning_path_id, "timestamp" AS started_at FROM learning_session_started WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)) s
        JOIN (SELECT tenant, session_id, "timestamp" AS completed_at FROM assessment_completed WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant) AND session_id IS NOT NULL) a
            ON a.tenant = s.tenant AND a.session_id = s.session_id
        WHERE a.completed_at >= s.started_at
        GROUP BY s.tenant, s.session_id
    ) sessions
) ranked
GROUP BY tenant, learning_path_id
ORDER BY tenant, learning_path_id
