-- question: learner_timeline
-- title: Timeline of a learner
-- about: Everything that happened to one learner, in order.
-- parameters: tenant, from, to
-- parameter: user text - The learner
-- column: tenant text
-- column: happened_at time
-- column: event_type text
-- column: learning_path_id text
-- column: module_id text
-- column: assessment_id text
-- column: content_id text
-- column: score number points
-- column: max_score number points
-- column: passed flag
-- column: reason text
SELECT tenant, "timestamp" AS happened_at, event_type, learning_path_id, module_id, assessment_id, content_id, score, max_score, passed, reason
FROM events
WHERE user_id = $user AND "timestamp" >= $from AND "timestamp" < $to AND ($tenant = '' OR tenant = $tenant)
ORDER BY tenant, "timestamp", event_id
