-- The table of events, narrower: a nested value stands once, in the canonical text `data`, where the first table had a column of its own beside
-- for it. `nested` has a bit for each such column, in their order, that says whether the row has one; for those that it has, in the same order,
-- `nested_places` has where in `data` they begin, from 1, and how many bytes they take. So a column shows what it always showed, to the byte, and
-- reading one parses nothing.
--
-- `epoch` is that of the owner which wrote the row, as the ledger counts them: of two rows with one sort key the later owner's stays, whichever
-- is inserted last. Everything else is as in the first table, which `weir clickhouse migrate` carries over (carry.rs).
CREATE TABLE IF NOT EXISTS {database}.{local_table} {on_cluster}
(
    event_type LowCardinality(String),
    is_other Bool,
    event_id String CODEC(ZSTD(1)),
    schema_version LowCardinality(String),
    `timestamp` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    recorded_at Nullable(DateTime64(3, 'UTC')) CODEC(ZSTD(1)),
    producer LowCardinality(String),
    tenant LowCardinality(String),
    aggregate_type LowCardinality(String),
    aggregate_id String,
    aggregate_version Nullable(Int64),
    `position` Nullable(Int64) CODEC(ZSTD(1)),
    causation_id Nullable(String),
    correlation_id Nullable(String),
    actor_id Nullable(String),
    source LowCardinality(String),
    topic LowCardinality(String),
    `partition` Int64,
    `offset` Int64 CODEC(Delta, ZSTD(1)),
    epoch Int64 DEFAULT 0,
    user_id Nullable(String),
    email Nullable(String),
    username Nullable(String),
    registration_source LowCardinality(Nullable(String)),
    reason Nullable(String),
    content_id Nullable(String),
    content_type LowCardinality(Nullable(String)),
    file_name Nullable(String),
    file_size Nullable(Int64),
    mime_type LowCardinality(Nullable(String)),
    file_url Nullable(String),
    processing_type LowCardinality(Nullable(String)),
    status LowCardinality(Nullable(String)),
    processing_duration Nullable(Float64),
    session_id Nullable(String),
    learning_path_id LowCardinality(Nullable(String)),
    module_id LowCardinality(Nullable(String)),
    assessment_id Nullable(String),
    score Nullable(Float64),
    max_score Nullable(Float64),
    passed Nullable(Bool),
    time_spent Nullable(Float64),
    task_id Nullable(String),
    agent_id Nullable(String),
    agent_type LowCardinality(Nullable(String)),
    task_type LowCardinality(Nullable(String)),
    priority LowCardinality(Nullable(String)),
    expected_duration Nullable(Float64),
    deadline Nullable(DateTime64(3, 'UTC')),
    execution_time Nullable(Float64),
    data_timestamp Nullable(DateTime64(3, 'UTC')),
    extra String CODEC(ZSTD(1)),
    data String CODEC(ZSTD(1)),
    nested UInt32 CODEC(ZSTD(1)),
    nested_places Array(UInt32) CODEC(ZSTD(1)),
    profile Nullable(String) ALIAS if(bitTest(nested, 0), substring(data, nested_places[2 * bitCount(bitAnd(nested, 0)) + 1], nested_places[2 * bitCount(bitAnd(nested, 0)) + 2]), NULL),
    changed_fields Nullable(String) ALIAS if(bitTest(nested, 1), substring(data, nested_places[2 * bitCount(bitAnd(nested, 1)) + 1], nested_places[2 * bitCount(bitAnd(nested, 1)) + 2]), NULL),
    previous_values Nullable(String) ALIAS if(bitTest(nested, 2), substring(data, nested_places[2 * bitCount(bitAnd(nested, 3)) + 1], nested_places[2 * bitCount(bitAnd(nested, 3)) + 2]), NULL),
    new_values Nullable(String) ALIAS if(bitTest(nested, 3), substring(data, nested_places[2 * bitCount(bitAnd(nested, 7)) + 1], nested_places[2 * bitCount(bitAnd(nested, 7)) + 2]), NULL),
    content_metadata Nullable(String) ALIAS if(bitTest(nested, 4), substring(data, nested_places[2 * bitCount(bitAnd(nested, 15)) + 1], nested_places[2 * bitCount(bitAnd(nested, 15)) + 2]), NULL),
    processing_options Nullable(String) ALIAS if(bitTest(nested, 5), substring(data, nested_places[2 * bitCount(bitAnd(nested, 31)) + 1], nested_places[2 * bitCount(bitAnd(nested, 31)) + 2]), NULL),
    results Nullable(String) ALIAS if(bitTest(nested, 6), substring(data, nested_places[2 * bitCount(bitAnd(nested, 63)) + 1], nested_places[2 * bitCount(bitAnd(nested, 63)) + 2]), NULL),
    device_info Nullable(String) ALIAS if(bitTest(nested, 7), substring(data, nested_places[2 * bitCount(bitAnd(nested, 127)) + 1], nested_places[2 * bitCount(bitAnd(nested, 127)) + 2]), NULL),
    answers Nullable(String) ALIAS if(bitTest(nested, 8), substring(data, nested_places[2 * bitCount(bitAnd(nested, 255)) + 1], nested_places[2 * bitCount(bitAnd(nested, 255)) + 2]), NULL),
    analytics Nullable(String) ALIAS if(bitTest(nested, 9), substring(data, nested_places[2 * bitCount(bitAnd(nested, 511)) + 1], nested_places[2 * bitCount(bitAnd(nested, 511)) + 2]), NULL),
    task_payload Nullable(String) ALIAS if(bitTest(nested, 10), substring(data, nested_places[2 * bitCount(bitAnd(nested, 1023)) + 1], nested_places[2 * bitCount(bitAnd(nested, 1023)) + 2]), NULL),
    result Nullable(String) ALIAS if(bitTest(nested, 11), substring(data, nested_places[2 * bitCount(bitAnd(nested, 2047)) + 1], nested_places[2 * bitCount(bitAnd(nested, 2047)) + 2]), NULL),
    resource_usage Nullable(String) ALIAS if(bitTest(nested, 12), substring(data, nested_places[2 * bitCount(bitAnd(nested, 4095)) + 1], nested_places[2 * bitCount(bitAnd(nested, 4095)) + 2]), NULL),
    quality_metrics Nullable(String) ALIAS if(bitTest(nested, 13), substring(data, nested_places[2 * bitCount(bitAnd(nested, 8191)) + 1], nested_places[2 * bitCount(bitAnd(nested, 8191)) + 2]), NULL)
)
ENGINE = {versioned_engine}(epoch)
PARTITION BY toYYYYMM(`timestamp`)
PRIMARY KEY (event_type, tenant, `timestamp`)
ORDER BY (event_type, tenant, `timestamp`, source, topic, `partition`, `offset`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728;

-- The columns as they are stored, each record once.
CREATE OR REPLACE VIEW {database}.events_raw {on_cluster} AS
SELECT * EXCEPT (epoch, nested, nested_places),
    profile, changed_fields, previous_values, new_values, content_metadata, processing_options, results, device_info, answers, analytics, task_payload, result, resource_usage, quality_metrics
FROM {database}.events_stored FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

-- What everybody reads; the other views are of this one. `user_id` is whom an event is about; where its type names nobody, as tasks do, the
-- user who acted. A payload that JSON cannot hold, as an integer beyond 64 bits, is empty here, so that one record stops no query; `data` has
-- it whole.
CREATE OR REPLACE VIEW {database}.analytics_events {on_cluster} AS
SELECT * REPLACE (coalesce(user_id, actor_id) AS user_id), tenant AS tenant_id,
    ifNull(accurateCastOrNull(data, 'JSON(max_dynamic_paths = 64)'), CAST('{}', 'JSON(max_dynamic_paths = 64)')) AS payload
FROM {database}.events_raw
SETTINGS type_json_skip_duplicated_paths = 1;
