//! Every metric of a process, declared once: what it is, its labels, and what it says. What these say of a deployment is committed totals
//! elsewhere (`weir_postgres::metric_totals`); a process that starts again begins these at nothing. `dashboards/METRICS.md` is made of this list.

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from nothing with each process.
    Counter,
    /// As it is now.
    Gauge,
    /// Observations in buckets.
    Histogram,
}

/// A metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name, its unit at the end.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// The names of its labels: of each, the values are few and known beforehand.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, help }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram, labels, help }
}

/// Seconds from an event's recording to its commit in a lane's sink.
pub const FRESHNESS: &str = "weir_lane_freshness_seconds";

/// Requests over HTTP.
pub const HTTP_REQUESTS: &str = "weir_http_requests_total";

/// How long they took.
pub const HTTP_SECONDS: &str = "weir_http_request_seconds";

/// Statements of SQL over history.
pub const SQL_STATEMENTS: &str = "weir_sql_statements_total";

/// How long they took.
pub const SQL_SECONDS: &str = "weir_sql_statement_seconds";

/// Connections of the pool to Postgres.
pub const POOL: &str = "weir_postgres_pool_connections";

/// Which build this is.
pub const BUILD: &str = "weir_build_info";

/// All of them.
pub const ALL: &[Metric] = &[
    gauge(BUILD, &["version"], "1, with the version of this build."),
    counter(
        HTTP_REQUESTS,
        &["method", "route", "class"],
        "Requests answered, by route and by class of their status (2xx, 4xx, 5xx).",
    ),
    histogram(HTTP_SECONDS, &["route"], "Seconds from a request's head to its answer's, by route."),
    counter("weir_http_connections_refused_total", &[], "Connections closed at once, since no more are taken."),
    gauge("weir_sql_connections", &[], "Connections of clients of Postgres' protocol, logins under way included."),
    counter(
        "weir_sql_connections_refused_total",
        &["reason"],
        "Connections of such clients that were closed: no more are taken (full), or no login in time (slow).",
    ),
    counter(
        SQL_STATEMENTS,
        &["outcome"],
        "Statements over history by how they ended: ok, error, cancelled by the client or their time, or out of memory.",
    ),
    histogram(SQL_SECONDS, &[], "Seconds from a statement to its last row."),
    histogram("weir_append_batch_commands", &[], "Commands that one commit of the event store took together."),
    histogram(
        FRESHNESS,
        &["lane"],
        "Seconds from the moment that an event was recorded to the commit of its rows in the lane's sink.",
    ),
    histogram("weir_lane_commit_seconds", &["lane"], "Seconds that a commit of the lane took."),
    histogram("weir_lane_batch_records", &["lane"], "Records of one commit."),
    counter("weir_lane_records_total", &["lane"], "Records that the lane has committed, dead letters among them."),
    counter(
        "weir_lane_fenced_total",
        &["lane"],
        "Commits that were refused, since another owner has claimed or a rebuild has taken over.",
    ),
    counter(
        "weir_lane_detached_total",
        &["lane"],
        "Times that the lane was left behind by those that share its reading, and read for itself.",
    ),
    counter(
        "weir_lane_repeats_total",
        &["lane"],
        "Records of other services that the lane left out, since they came before.",
    ),
    gauge("weir_lane_lag_records", &["lane"], "Records that the lane has not committed yet."),
    gauge("weir_lane_next_offset", &["lane"], "The lane's next offsets, summed over the partitions of this process."),
    gauge("weir_lane_waiting", &["lane"], "1 while the lane waits for something; `weir status` says for what."),
    gauge(
        "weir_lane_skipped_records",
        &["lane"],
        "Records that the lane never read, since its ledger was set beyond them: lost to retention, or skipped by hand.",
    ),
    gauge("weir_dead_letters", &["lane"], "Records that the lane could not apply, as the database has them."),
    gauge(
        "weir_part_phase",
        &["part", "phase"],
        "1 for the phase that a lane, the publisher or the command side of this process is in.",
    ),
    counter(
        "weir_part_errors_total",
        &["part"],
        "Times that a lane, the publisher or the command side of this process could not go on, and began to wait for a store.",
    ),
    gauge(
        "weir_part_live_processes",
        &["part"],
        "Processes that do this part and were heard of, as the database has them.",
    ),
    gauge(
        "weir_part_silent_processes",
        &["part"],
        "Processes that did this part and were not heard of for a while, as the database has them.",
    ),
    gauge("weir_partition_offset", &["lane", "topic", "partition"], "The next offset that the lane will commit."),
    gauge("weir_partition_high_watermark", &["lane", "topic", "partition"], "Where the partition ends."),
    gauge("weir_partition_lag_records", &["lane", "topic", "partition"], "Records between the two."),
    gauge(
        "weir_partition_lag_seconds",
        &["lane", "topic", "partition"],
        "Seconds since the first of them was recorded; 0 when nothing waits.",
    ),
    gauge(
        "weir_topic_retention_seconds",
        &["topic"],
        "How long the topic keeps records, as `weir topics apply` sets it; absent where it keeps them for ever.",
    ),
    counter(
        "weir_records_read_total",
        &["for"],
        "Records read from the source: for all lanes together, or for one that was left behind.",
    ),
    counter("weir_kafka_rebalances_total", &["lane"], "Assignments of partitions to the lane's group."),
    counter("weir_publisher_events_total", &[], "Events published."),
    gauge("weir_publisher_position", &[], "Everything up to this position of the event store is in the topics."),
    gauge("weir_publisher_lag_events", &[], "Events behind it."),
    gauge("weir_publisher_lag_seconds", &[], "Seconds since the first of them was recorded; 0 when nothing waits."),
    histogram("weir_publisher_transaction_seconds", &[], "Seconds that a transaction of the publisher took."),
    gauge("weir_event_store_head", &[], "The last position of the event store, as the publisher sees it."),
    gauge("weir_clickhouse_rollups_waiting", &[], "Minutes of ClickHouse's rollups that are to be computed again."),
    gauge(POOL, &["state"], "Connections to Postgres: in use, idle, and the tasks that wait for one."),
    gauge("weir_totals_readable", &[], "1 if the database gave the committed totals of this scrape."),
    gauge("weir_tls_renewal_failing", &[], "1 while a renewed certificate cannot be used, and the one before is."),
    gauge("weir_tls_certificate_end_timestamp_seconds", &[], "Until when the certificate in use holds."),
    gauge("weir_data_dir_free_bytes", &[], "Room on the disk of the data directory that is left for weir."),
    gauge("weir_data_dir_size_bytes", &[], "The size of that disk."),
    gauge(
        "weir_job_schedule_interval_seconds",
        &["name"],
        "The longest pause between two moments of a job's schedule, where this process runs it; not of workflows, which have times of their own.",
    ),
    gauge("weir_job_last_outcome", &["name", "outcome"], "1 for the outcome of a job's last run."),
    gauge("weir_job_last_end_timestamp_seconds", &["name"], "When a job's last run ended."),
    gauge("weir_job_last_ok_timestamp_seconds", &["name"], "When a job's last run began that went well."),
    gauge("weir_job_last_duration_seconds", &["name"], "How long a job's last run took."),
];

/// Tells the recorder what each of them is.
pub fn describe() {
    for Metric { name, kind, help, .. } in ALL {
        match kind {
            Kind::Counter => metrics::describe_counter!(*name, *help),
            Kind::Gauge => metrics::describe_gauge!(*name, *help),
            Kind::Histogram => metrics::describe_histogram!(*name, *help),
        }
    }
}
