-- When the newest event of each type happened, and when it was recorded.
SELECT event_type, count(*) AS events, max("timestamp") AS happened_at, max(recorded_at) AS recorded_at
FROM events
GROUP BY event_type
ORDER BY event_type
