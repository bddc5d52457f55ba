-- History has these names too, so that one question is asked of both (sql/queries).
CREATE OR REPLACE VIEW {database}.events {on_cluster} AS SELECT * FROM {database}.analytics_events;

CREATE OR REPLACE VIEW {database}.user_registered {on_cluster} AS
SELECT * FROM {database}.analytics_events WHERE event_type = 'UserRegistered';

CREATE OR REPLACE VIEW {database}.user_profile_updated {on_cluster} AS
SELECT * FROM {database}.analytics_events WHERE event_type = 'UserProfileUpdated';

CREATE OR REPLACE VIEW {database}.user_deactivated {on_cluster} AS
SELECT * FROM {database}.analytics_events WHERE event_type = 'UserDeactivated';

CREATE OR REPLACE VIEW {database}.content_uploaded {on_cluster} AS
SELECT * FROM {database}.analytics_events WHERE event_type = 'ContentUploaded';

CREATE OR REPLACE VIEW {database}.content_processing_started {on_cluster} AS
SELECT * FROM {database}.analytics_events WHERE event_type = 'ContentProcessingStarted';

CREATE OR REPLACE VIEW {database}.content_processing_completed {on_cluster} AS
SELECT * FROM {database}.analytics_events WHERE event_type = 'ContentProcessingCompleted';

CREATE OR REPLACE VIEW {database}.learning_session_started {on_cluster} AS
SELECT * FROM {database}.analytics_events WHERE event_type = 'LearningSessionStarted';

CREATE OR REPLACE VIEW {database}.assessment_completed {on_cluster} AS
SELECT * FROM {database}.analytics_events WHERE event_type = 'AssessmentCompleted';

CREATE OR REPLACE VIEW {database}.task_assigned {on_cluster} AS
SELECT * FROM {database}.analytics_events WHERE event_type = 'TaskAssigned';

CREATE OR REPLACE VIEW {database}.task_completed {on_cluster} AS
SELECT * FROM {database}.analytics_events WHERE event_type = 'TaskCompleted';

CREATE OR REPLACE VIEW {database}.other_event {on_cluster} AS
SELECT * FROM {database}.analytics_events WHERE event_type = 'other_event';
