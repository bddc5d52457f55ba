-- Sums per minute of the time at which things happened. After each insert the lane computes the minutes anew that it touched,
-- from the view, before its ledger moves: exact after late, repeated and unordered rows, and after a crash in between. Nothing is
-- ever taken from the events, so of two computations of a minute the one that counted more is the later one, and it stays.
CREATE TABLE IF NOT EXISTS {database}.events_per_minute {on_cluster}
(
    tenant LowCardinality(String),
    event_type LowCardinality(String),
    minute DateTime64(3, 'UTC'),
    events UInt64
)
ENGINE = {rollup_engine}(events)
ORDER BY (tenant, event_type, minute);

CREATE TABLE IF NOT EXISTS {database}.sessions_per_minute {on_cluster}
(
    tenant LowCardinality(String),
    minute DateTime64(3, 'UTC'),
    sessions UInt64,
    learners UInt64
)
ENGINE = {rollup_engine}(sessions)
ORDER BY (tenant, minute);

CREATE TABLE IF NOT EXISTS {database}.assessments_per_minute {on_cluster}
(
    tenant LowCardinality(String),
    minute DateTime64(3, 'UTC'),
    assessments UInt64,
    passed UInt64
)
ENGINE = {rollup_engine}(assessments)
ORDER BY (tenant, minute);

-- Quantiles of the execution time, interpolated between the two nearest, in the unit that is configured for it.
CREATE TABLE IF NOT EXISTS {database}.executions_per_minute {on_cluster}
(
    tenant LowCardinality(String),
    agent_id String,
    minute DateTime64(3, 'UTC'),
    tasks UInt64,
    p50 Float64,
    p90 Float64,
    p99 Float64
)
ENGINE = {rollup_engine}(tasks)
ORDER BY (tenant, agent_id, minute);
