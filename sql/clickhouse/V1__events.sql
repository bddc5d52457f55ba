-- Every record of every lane's source, by its coordinates. A retry, a crash or an owner that wakes up too late inserts a row again
-- under the same sort key, and FINAL shows one of them. Each column of the sort key is a function of the record alone, whatever the
-- build that reads it knows: `event_type` is what the record says, and `is_other` whether this lane knew it when it wrote the row.
--
-- The sort key begins with what the questions in sql/queries ask by: the event type, the tenant, the time. The coordinates end it.
-- The month is a function of the sort key too, so rows of one key are in one partition, and FINAL merges each partition by itself.
-- Synced on insert: the ledger says that what was acknowledged is there. A part of a single insert is one file rather than one for
-- each column, which costs a quarter of the CPU; merges make wide parts of it, which questions read column by column.
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
    user_id Nullable(String),
    email Nullable(String),
    username Nullable(String),
    profile Nullable(String) CODEC(ZSTD(1)),
    registration_source LowCardinality(Nullable(String)),
    changed_fields Nullable(String) CODEC(ZSTD(1)),
    previous_values Nullable(String) CODEC(ZSTD(1)),
    new_values Nullable(String) CODEC(ZSTD(1)),
    reason Nullable(String),
    content_id Nullable(String),
    content_type LowCardinality(Nullable(String)),
    file_name Nullable(String),
    file_size Nullable(Int64),
    mime_type LowCardinality(Nullable(String)),
    file_url Nullable(String),
    content_metadata Nullable(String) CODEC(ZSTD(1)),
    processing_options Nullable(String) CODEC(ZSTD(1)),
    processing_type LowCardinality(Nullable(String)),
    status LowCardinality(Nullable(String)),
    results Nullable(String) CODEC(ZSTD(1)),
    processing_duration Nullable(Float64),
    session_id Nullable(String),
    learning_path_id LowCardinality(Nullable(String)),
    module_id LowCardinality(Nullable(String)),
    device_info Nullable(String) CODEC(ZSTD(1)),
    assessment_id Nullable(String),
    score Nullable(Float64),
    max_score Nullable(Float64),
    passed Nullable(Bool),
    time_spent Nullable(Float64),
    answers Nullable(String) CODEC(ZSTD(1)),
    analytics Nullable(String) CODEC(ZSTD(1)),
    task_id Nullable(String),
    agent_id Nullable(String),
    agent_type LowCardinality(Nullable(String)),
    task_type LowCardinality(Nullable(String)),
    priority LowCardinality(Nullable(String)),
    task_payload Nullable(String) CODEC(ZSTD(1)),
    expected_duration Nullable(Float64),
    deadline Nullable(DateTime64(3, 'UTC')),
    result Nullable(String) CODEC(ZSTD(1)),
    execution_time Nullable(Float64),
    resource_usage Nullable(String) CODEC(ZSTD(1)),
    quality_metrics Nullable(String) CODEC(ZSTD(1)),
    data_timestamp Nullable(DateTime64(3, 'UTC')),
    extra String CODEC(ZSTD(1)),
    data String CODEC(ZSTD(1))
)
ENGINE = {engine}
PARTITION BY toYYYYMM(`timestamp`)
PRIMARY KEY (event_type, tenant, `timestamp`)
ORDER BY (event_type, tenant, `timestamp`, source, topic, `partition`, `offset`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728;

-- What everybody reads: each record once. The names of the specification are here beside the columns' own; the payload as JSON,
-- whose paths can be asked for by name, is computed when it is asked for, since JSON drops nulls and `data` does not.
CREATE OR REPLACE VIEW {database}.analytics_events {on_cluster} AS
SELECT *, tenant AS tenant_id, CAST(data, 'JSON(max_dynamic_paths = 64)') AS payload
FROM {database}.events_raw FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1, type_json_skip_duplicated_paths = 1;
