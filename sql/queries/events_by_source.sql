-- question: events_by_source
-- title: Events by source and schema version
-- about: Which services write which events in which version of their schema, how many, and since when.
-- parameters: tenant, from, to
-- column: event_type text
-- column: producer text
-- column: schema_version text
-- column: events integer
-- column: first_at time
-- column: last_at time
SELECT event_type, producer, schema_version, count(*) AS events, min("timestamp") AS first_at, max("timestamp") AS last_at
FROM events
WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)
GROUP BY event_type, producer, schema_version
ORDER BY event_type, producer, schema_version
