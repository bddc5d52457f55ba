-- question: tenants_compared
-- title: Tenants compared
-- about: For the operator: learners, activity, results, content, tasks and events of each tenant.
-- parameters: tenant, from, to
-- column: tenant text
-- column: learners integer
-- column: left_learners integer
-- column: active_learners integer
-- column: sessions integer
-- column: assessments integer
-- column: passed integer
-- column: uploads integer
-- column: tasks integer
-- column: failed_tasks integer
-- column: events integer
-- column: last_at time
SELECT tenant, count(DISTINCT CASE WHEN event_type = 'UserRegistered' THEN user_id END) AS learners,
    count(DISTINCT CASE WHEN event_type = 'UserDeactivated' THEN user_id END) AS left_learners,
    count(DISTINCT CASE WHEN event_type IN ('LearningSessionStarted', 'AssessmentCompleted') THEN user_id END) AS active_learners,
    sum(CASE WHEN event_type = 'LearningSessionStarted' THEN 1 ELSE 0 END) AS sessions,
    sum(CASE WHEN event_type = 'AssessmentCompleted' THEN 1 ELSE 0 END) AS assessments,
    sum(CASE WHEN event_type = 'AssessmentCompleted' AND passed THEN 1 ELSE 0 END) AS passed,
    sum(CASE WHEN event_type = 'ContentUploaded' THEN 1 ELSE 0 END) AS uploads,
    sum(CASE WHEN event_type = 'TaskCompleted' THEN 1 ELSE 0 END) AS tasks,
    sum(CASE WHEN event_type = 'TaskCompleted' AND status = 'failed' THEN 1 ELSE 0 END) AS failed_tasks,
    count(*) AS events, max("timestamp") AS last_at
FROM events
WHERE "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)
GROUP BY tenant
ORDER BY tenant
