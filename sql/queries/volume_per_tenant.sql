-- Events and their payload's characters by tenant, and how many learners, sessions and assessments are among them.
SELECT tenant, count(*) AS events, sum(character_length(data)) AS characters,
    count(*) FILTER (WHERE event_type = 'UserRegistered') AS registrations,
    count(*) FILTER (WHERE event_type = 'LearningSessionStarted') AS sessions,
    count(*) FILTER (WHERE event_type = 'AssessmentCompleted') AS assessments
FROM events
GROUP BY tenant
ORDER BY tenant
