-- question: processing
-- title: Outcomes of processing
-- about: How the processing of content ended and how long it took, by tenant, kind and outcome.
-- parameters: tenant, from, to
-- column: tenant text
-- column: processing_type text
-- column: status text
-- column: processed integer
-- column: duration_sum number milliseconds
-- column: duration_max number milliseconds
SELECT tenant, processing_type, status, count(*) AS processed,
    sum(CAST(least(processing_duration, 1e11) AS DECIMAL(18, 6))) AS duration_sum, max(processing_duration) AS duration_max
FROM content_processing_completed
WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)
GROUP BY tenant, processing_type, status
ORDER BY tenant, processing_type, status
