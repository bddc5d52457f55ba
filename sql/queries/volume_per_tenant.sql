-- question: volume_per_tenant
-- title: Volume per tenant
-- about: Events and their payload's characters by tenant, and how many learners, sessions and assessments are among them.
-- parameters: tenant, from, to
-- column: tenant text
-- column: events integer
-- column: characters integer characters
-- column: registrations integer
-- column: sessions integer
-- column: assessments integer
SELECT tenant, count(*) AS events, sum(character_length(data)) AS characters,
    count(*) FILTER (WHERE event_type = 'UserRegistered') AS registrations,
    count(*) FILTER (WHERE event_type = 'LearningSessionStarted') AS sessions,
    count(*) FILTER (WHERE event_type = 'AssessmentCompleted') AS assessments
FROM events
WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)
GROUP BY tenant
ORDER BY tenant
