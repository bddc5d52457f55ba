-- question: time_to_first_session
-- title: Time to the first session
-- about: How long learners took from their registration to their first session after it; quantiles by nearest rank.
-- parameters: tenant, from, to
-- column: tenant text
-- column: learners integer
-- column: p50 number seconds
-- column: p90 number seconds
SELECT tenant, max(n) AS learners,
    CAST(max(CASE WHEN (place - 1) * 100 < n * 50 AND place * 100 >= n * 50 THEN waited END) AS DOUBLE) / 1000 AS p50,
    CAST(max(CASE WHEN (place - 1) * 100 < n * 90 AND place * 100 >= n * 90 THEN waited END) AS DOUBLE) / 1000 AS p90
FROM (
    SELECT tenant, waited, row_number() OVER (PARTITION BY tenant ORDER BY waited) AS place, count(*) OVER (PARTITION BY tenant) AS n
    FROM (
        SELECT r.tenant AS tenant, r.user_id AS user_id, min(toUnixTimestamp64Milli(s.started_at) - toUnixTimestamp64Milli(r.registered_at)) AS waited
        FROM (SELECT tenant, user_id, min("timestamp") AS registered_at FROM user_registered WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant) GROUP BY tenant, user_id) r
        JOIN (SELECT tenant, user_id, "timestamp" AS started_at FROM learning_session_started WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)) s
            ON s.tenant = r.tenant AND s.user_id = r.user_id
        WHERE s.started_at >= r.registered_at
        GROUP BY r.tenant, r.user_id
    ) firsts
) ranked
GROUP BY tenant
ORDER BY tenant
