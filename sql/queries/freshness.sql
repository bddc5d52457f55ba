-- question: freshness
-- title: Newest events
-- about: When the newest event of each type happened, and when it was recorded.
-- parameters: tenant, from, to
-- column: event_type text
-- column: events integer
-- column: happened_at time
-- column: recorded_at time
SELECT event_type, count(*) AS events, max("timestamp") AS happened_at, max(recorded_at) AS recorded_at
FROM events
WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)
GROUP BY event_type
ORDER BY event_type
