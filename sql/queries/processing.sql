-- How the processing of content ended and how long it took, by tenant, kind and outcome.
SELECT tenant, processing_type, status, count(*) AS processed,
    sum(CAST(least(processing_duration, 1e11) AS DECIMAL(18, 6))) AS duration_sum, max(processing_duration) AS duration_max
FROM content_processing_completed
GROUP BY tenant, processing_type, status
ORDER BY tenant, processing_type, status
