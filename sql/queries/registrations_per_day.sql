-- Registrations by tenant, day (UTC) and where they came from.
SELECT tenant, CAST("timestamp" AS DATE) AS day, registration_source, count(*) AS registrations
FROM user_registered
GROUP BY tenant, CAST("timestamp" AS DATE), registration_source
ORDER BY tenant, day, registration_source
