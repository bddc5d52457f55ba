-- `user_id` is whom an event is about; where its type names nobody, as tasks do, the user who acted. The stored columns stay as they
-- are. A payload that JSON cannot hold, as an integer beyond 64 bits, is empty here, so that one record stops no query; `data` has it
-- whole. The other views are of this one.
CREATE OR REPLACE VIEW {database}.analytics_events {on_cluster} AS
SELECT * REPLACE (coalesce(user_id, actor_id) AS user_id), tenant AS tenant_id,
    ifNull(accurateCastOrNull(data, 'JSON(max_dynamic_paths = 64)'), CAST('{}', 'JSON(max_dynamic_paths = 64)')) AS payload
FROM {database}.events_raw FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1, type_json_skip_duplicated_paths = 1;
