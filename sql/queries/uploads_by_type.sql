-- question: uploads_by_type
-- title: Uploads by type
-- about: Uploads and their bytes by tenant and content type.
-- parameters: tenant, from, to
-- column: tenant text
-- column: content_type text
-- column: uploads integer
-- column: bytes integer bytes
SELECT tenant, content_type, count(*) AS uploads, sum(file_size) AS bytes
FROM content_uploaded
WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)
GROUP BY tenant, content_type
ORDER BY tenant, content_type
