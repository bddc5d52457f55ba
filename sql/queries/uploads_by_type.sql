-- Uploads and their bytes by tenant and content type.
SELECT tenant, content_type, count(*) AS uploads, sum(file_size) AS bytes
FROM content_uploaded
GROUP BY tenant, content_type
ORDER BY tenant, content_type
