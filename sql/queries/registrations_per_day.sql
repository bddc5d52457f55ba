-- question: registrations_per_day
-- title: Registrations per day
-- about: Registrations by tenant, day (UTC) and where they came from.
-- parameters: tenant, from, to
-- column: tenant text
-- column: day date
-- column: registration_source text
-- column: registrations integer
SELECT tenant, CAST("timestamp" AS DATE) AS day, registration_source, count(*) AS registrations
FROM user_registered
WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)
GROUP BY tenant, CAST("timestamp" AS DATE), registration_source
ORDER BY tenant, day, registration_source
-- on: read-models
SELECT tenant, (created_at AT TIME ZONE 'UTC')::date AS day, registration_source, count(*) AS registrations
FROM user_read_model
WHERE created_at >= $from AND created_at < $to AND ($tenant = '' OR tenant = $tenant)
GROUP BY tenant, (created_at AT TIME ZONE 'UTC')::date, registration_source
ORDER BY tenant COLLATE "C", day, registration_source COLLATE "C"
