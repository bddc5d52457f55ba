-- question: processing_by_size
-- title: Processing by type and size
-- about: How long the processing of content took and how often it failed, by its type and by the size of what was uploaded; quantiles by
--   nearest rank.
-- parameters: tenant, from, to
-- column: tenant text
-- column: processing_type text
-- column: size text
-- column: processed integer
-- column: failed integer
-- column: p50 number milliseconds
-- column: p90 number milliseconds
SELECT tenant, processing_type, size, max(n) AS processed, sum(is_failure) AS failed,
    max(CASE WHEN (place - 1) * 100 < n * 50 AND place * 100 >= n * 50 THEN processing_duration END) AS p50,
    max(CASE WHEN (place - 1) * 100 < n * 90 AND place * 100 >= n * 90 THEN processing_duration END) AS p90
FROM (
    SELECT tenant, processing_type, size, processing_duration, is_failure,
        row_number() OVER (PARTITION BY tenant, processing_type, size ORDER BY processing_duration) AS place,
        count(*) OVER (PARTITION BY tenant, processing_type, size) AS n
    FROM (
        SELECT p.tenant AS tenant, p.processing_type AS processing_type, p.processing_duration AS processing_duration,
            CASE WHEN p.status = 'failed' THEN 1 ELSE 0 END AS is_failure,
            CASE WHEN u.bytes IS NULL THEN 'unknown' WHEN u.bytes < 1048576 THEN '0 to 1 MiB' WHEN u.bytes < 10485760 THEN '1 to 10 MiB'
                WHEN u.bytes < 104857600 THEN '10 to 100 MiB' ELSE '100 MiB and more' END AS size
        FROM (SELECT tenant, content_id, processing_type, processing_duration, status FROM content_processing_completed WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)) p
        LEFT JOIN (
            SELECT tenant, content_id, max(file_size) AS bytes FROM content_uploaded WHERE ($tenant = '' OR tenant = $tenant)
            GROUP BY tenant, content_id
        ) u ON u.tenant = p.tenant AND u.content_id = p.content_id
    ) sized
) ranked
GROUP BY tenant, processing_type, size
ORDER BY tenant, processing_type, size
