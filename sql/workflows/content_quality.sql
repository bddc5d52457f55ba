-- workflow: content_quality
-- about: How processing of uploaded content goes, by type of content and of processing
-- trigger: every 60 minutes
-- window: none
-- keys: tenant, content_type, processing_type
SELECT tenant, coalesce(content_type, '(unknown)') AS content_type, coalesce(processing_type, '(none yet)') AS processing_type,
    count(*) AS contents, count(*) FILTER (WHERE status = 'completed') AS completed, count(*) FILTER (WHERE status = 'partial') AS partial,
    count(*) FILTER (WHERE status = 'failed') AS failed, sum(failures) AS failures,
    round(avg((status = 'completed')::integer) FILTER (WHERE status IN ('completed', 'partial', 'failed')), 6) AS share_completed,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY processing_seconds::double precision) AS median_processing_seconds,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY processing_seconds::double precision) AS p95_processing_seconds
FROM content_read_model
GROUP BY tenant, coalesce(content_type, '(unknown)'), coalesce(processing_type, '(none yet)')
