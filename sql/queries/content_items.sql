-- question: content_items
-- title: Content items
-- about: Each content item: who uploaded it, how large it is, how often its processing was begun, ended and failed, and when it was last touched.
-- parameters: tenant, from, to
-- column: tenant text
-- column: content_id text
-- column: content_type text
-- column: user_id text
-- column: file_size integer bytes
-- column: started integer
-- column: processed integer
-- column: failed integer
-- column: last_at time
SELECT tenant, content_id, max(content_type) AS content_type, max(uploader) AS user_id, max(file_size) AS file_size,
    sum(is_start) AS started, sum(is_end) AS processed, sum(is_failure) AS failed, max(happened_at) AS last_at
FROM (
    SELECT tenant, content_id, content_type, user_id AS uploader, file_size, 0 AS is_start, 0 AS is_end, 0 AS is_failure, "timestamp" AS happened_at
    FROM content_uploaded WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)
    UNION ALL
    SELECT tenant, content_id, NULL AS content_type, NULL AS uploader, NULL AS file_size, 1 AS is_start, 0 AS is_end, 0 AS is_failure, "timestamp" AS happened_at
    FROM content_processing_started WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)
    UNION ALL
    SELECT tenant, content_id, NULL AS content_type, NULL AS uploader, NULL AS file_size, 0 AS is_start, 1 AS is_end,
        CASE WHEN status = 'failed' THEN 1 ELSE 0 END AS is_failure, "timestamp" AS happened_at
    FROM content_processing_completed WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)
) touched
GROUP BY tenant, content_id
ORDER BY tenant, content_id
