-- question: late_events
-- title: Late events
-- about: Events that were recorded more than so many minutes after they happened, by type, and by how much at most.
-- parameters: tenant, from, to
-- parameter: minutes integer 60 Minutes from which an event is late
-- column: event_type text
-- column: events integer
-- column: late integer
-- column: latest_seconds number seconds
SELECT event_type, count(*) AS events, sum(CASE WHEN behind > $minutes * 60000 THEN 1 ELSE 0 END) AS late,
    CAST(max(behind) AS DOUBLE) / 1000 AS latest_seconds
FROM (
    SELECT event_type, toUnixTimestamp64Milli(recorded_at) - toUnixTimestamp64Milli("timestamp") AS behind
    FROM events WHERE recorded_at IS NOT NULL AND "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)
) delays
GROUP BY event_type
ORDER BY event_type
