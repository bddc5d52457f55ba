-- The ledger moves when a minute is computed, so the minute must outlive the machine's power, as the events do.
ALTER TABLE {database}.events_per_minute {on_cluster} MODIFY SETTING fsync_after_insert = 1, fsync_part_directory = 1;

ALTER TABLE {database}.sessions_per_minute {on_cluster} MODIFY SETTING fsync_after_insert = 1, fsync_part_directory = 1;

ALTER TABLE {database}.assessments_per_minute {on_cluster} MODIFY SETTING fsync_after_insert = 1, fsync_part_directory = 1;

ALTER TABLE {database}.executions_per_minute {on_cluster} MODIFY SETTING fsync_after_insert = 1, fsync_part_directory = 1;
