-- History has these names too, so that one question is asked of both (sql/queries).
CREATE OR REPLACE VIEW {database}.events {on_cluster} AS
SELECT * REPLACE (if(is_other, 'other_event', event_type) AS event_type) FROM {database}.analytics_events;

CREATE OR REPLACE VIEW {database}.user_registered {on_cluster} AS
SELECT * FROM {database}.analytics_events WHERE event_type = 'UserRegistered' AND NOT is_other;

CREATE OR REPLACE VIEW {database}.user_profile_updated {on_cluster} AS
SELECT * FROM {database}.analytics_events WHERE event_type = 'UserProfileUpdated' AND NOT is_other;

CREATE OR REPLACE VIEW {database}.user_deactivated {on_cluster} AS
SELECT * FROM {database}.analytics_events WHERE event_type = 'UserDeactivated' AND NOT is_other;

CREATE OR REPLACE VIEW {database}.content_uploaded {on_cluster} AS
SELECT * FROM {database}.analytics_events WHERE event_type = 'ContentUploaded' AND NOT is_other;

CREATE OR REPLACE VIEW {database}.content_processing_started {on_cluster} AS
SELECT * FROM {database}.analytics_events WHERE event_type = 'ContentProcessingStarted' AND NOT is_other;

CREATE OR REPLACE VIEW {database}.content_processing_completed {on_cluster} AS
SELECT * FROM {database}.analytics_events WHERE event_type = 'ContentProcessingCompleted' AND NOT is_other;

CREATE OR REPLACE VIEW {database}.learning_session_started {on_cluster} AS
SELECT * FROM {database}.analytics_events WHERE event_type = 'LearningSessionStarted' AND NOT is_other;

CREATE OR REPLACE VIEW {database}.assessment_completed {on_cluster} AS
SELECT * FROM {database}.analytics_events WHERE event_type = 'AssessmentCompleted' AND NOT is_other;

CREATE OR REPLACE VIEW {database}.task_assigned {on_cluster} AS
SELECT * FROM {database}.analytics_events WHERE event_type = 'TaskAssigned' AND NOT is_other;

CREATE OR REPLACE VIEW {database}.task_completed {on_cluster} AS
SELECT * FROM {database}.analytics_events WHERE event_type = 'TaskCompleted' AND NOT is_other;

CREATE OR REPLACE VIEW {database}.other_event {on_cluster} AS
SELECT * REPLACE ('other_event' AS event_type) FROM {database}.analytics_events WHERE is_other;
