"""Dashboards of those on call."""

from panels import LANE, choice, gauge, metric, now, page, rows, states

OF_LANE = '{lane=~"$lane"}'

def p(quantile, name):
    return f"histogram_quantile({quantile}, sum by (lane, le) (rate(weir_lane_{name}_bucket{OF_LANE}[$__rate_interval])))"


# Bounds as the alerts have them: a test holds each against prometheus/alerts.yml.
LAG_RECORDS, RETENTION_USED, PUBLISHER_SECONDS, VERIFY_SECONDS, FENCED, CERTIFICATE_SECONDS, DISK_FREE = 10_000, 0.8, 60, 129_600, 5, 14 * 86_400, 0.1


def pipeline():
    return page("weir-pipeline", "Pipeline health", "Lanes, publisher, jobs: how far, how fresh, what waits. Its panels look at what alerts look at.", [choice(*LANE)], [
        now("Furthest behind", "Records that the slowest lane has not committed. WeirLagGrowing.", "short", ("max(max by (lane) (weir_lane_lag_records))", "lag"), thresholds=[LAG_RECORDS]),
        now("Waiting parts", "Lanes, publisher and command sides that wait for a store. WeirStoreAway.", "short", ('sum(max by (part) (weir_part_phase{phase="waiting"}))', "waiting"), thresholds=[1]),
        now("Dead letters", "Records that lanes could not apply, kept whole. WeirDeadLettersGrowing.", "short", ("sum(max by (lane) (weir_dead_letters))", "dead letters"), thresholds=[1]),
        now("Verify found a difference", "1 if the last verify did. WeirVerifyMismatch.", "short", ('max(weir_job_last_outcome{name="verify",outcome="different"})', "different"), thresholds=[1]),
        now("Since the last verify that was well", "WeirVerifyOverdue.", "s", ('time() - max(weir_job_last_ok_timestamp_seconds{name="verify"})', "ago"), thresholds=[VERIFY_SECONDS]),
        now("Skipped records", "That lanes never read, since their ledger was set past them. WeirRecordsLost.", "short", ("sum(max by (lane) (weir_lane_skipped_records)) or vector(0)", "skipped"), thresholds=[1]),
        metric("Lag, records", "Not committed yet, by lane. WeirLagGrowing.", "short", ("max by (lane) (weir_lane_lag_records" + OF_LANE + ")", "{{lane}}"), thresholds=[LAG_RECORDS], width=12),
        metric("Lag, seconds", "Since the first waiting record was recorded, by lane.", "s", ("max by (lane) (weir_partition_lag_seconds" + OF_LANE + ")", "{{lane}}"), width=12),
        metric("Freshness, p99", "From an event's recording to its commit in the sink. Objectives: 5 s, history 30 s.", "s", (p(0.99, "freshness_seconds"), "{{lane}}"), thresholds=[5, 30], width=12),
        metric("Freshness, p50", "From an event's recording to its commit in the sink.", "s", (p(0.5, "freshness_seconds"), "{{lane}}"), width=12),
        metric("Records committed", "A second, by lane.", "ops", ("sum by (lane) (rate(weir_lane_records_total" + OF_LANE + "[$__rate_interval]))", "{{lane}}")),
        metric("Commits, p99", "How long a commit takes, by lane.", "s", (p(0.99, "commit_seconds"), "{{lane}}")),
        metric("Records of a commit, p50", "By lane.", "short", (p(0.5, "batch_records"), "{{lane}}")),
        states("Phases", "What each part of each process is doing.", "max by (part, phase) (weir_part_phase) == 1", "{{part}}: {{phase}}", width=12),
        metric("Began to wait", "Times that a part could not go on, in 15 minutes.", "short", ("sum by (part) (increase(weir_part_errors_total[15m]))", "{{part}}"), width=12),
        metric("Waiting lanes", "1 while a lane waits. WeirLaneStalled.", "short", ("max by (lane) (weir_lane_waiting" + OF_LANE + ")", "{{lane}}"), thresholds=[1]),
        metric("Next offsets", "Summed over partitions; a line that does not rise is a lane that does not move.", "short", ("max by (lane) (weir_lane_next_offset" + OF_LANE + ")", "{{lane}}")),
        metric("Dead letters by lane", "Records kept whole that the lane could not apply.", "short", ("max by (lane) (weir_dead_letters" + OF_LANE + ")", "{{lane}}")),
        metric("Fenced", "Commits refused since another owner had claimed, in 15 minutes. WeirLaneFencedOften.", "short", ("sum by (lane) (increase(weir_lane_fenced_total" + OF_LANE + "[15m]))", "{{lane}}"), thresholds=[FENCED]),
        metric("Repeats left out", "Of other services, a second.", "ops", ("max by (lane) (rate(weir_lane_repeats_total" + OF_LANE + "[$__rate_interval]))", "{{lane}}")),
        metric("Left behind", "Times that a lane read for itself, in 15 minutes: it was slower than those that share its reading.", "short", ("sum by (lane) (increase(weir_lane_detached_total" + OF_LANE + "[15m]))", "{{lane}}")),
        metric("Records read", "A second: for all lanes together, or for one that was left behind.", "ops", ("sum by (for) (rate(weir_records_read_total[$__rate_interval]))", "{{for}}")),
        metric("Retention used", "Age of the oldest unread record, as a share of what its topic keeps. Empty without brokers. WeirRetentionMargin.", "percentunit",
               ("max by (lane, topic) (weir_partition_lag_seconds) / on (topic) group_left () max by (topic) (weir_topic_retention_seconds)", "{{lane}} {{topic}}"), thresholds=[RETENTION_USED]),
        metric("Rebalances", "Assignments of partitions, in 15 minutes. Empty without brokers.", "short", ("sum by (lane) (increase(weir_kafka_rebalances_total" + OF_LANE + "[15m]))", "{{lane}}")),
        metric("Publisher, lag", "Since the first unpublished event was recorded. Empty without brokers. WeirPublisherStands.", "s", ("max(weir_publisher_lag_seconds)", "seconds"), thresholds=[PUBLISHER_SECONDS]),
        metric("Publisher, events", "Published a second, and how many wait. Empty without brokers.", "short", ("sum(rate(weir_publisher_events_total[$__rate_interval]))", "a second"), ("max(weir_publisher_lag_events)", "waiting")),
        metric("Publisher, transactions", "How long they take, p99. Empty without brokers.", "s",
               ("histogram_quantile(0.99, sum by (le) (rate(weir_publisher_transaction_seconds_bucket[$__rate_interval])))", "p99")),
        metric("Event store and topics", "The last position, and up to where it is published. Empty without brokers.", "short", ("max(weir_event_store_head)", "head"), ("max(weir_publisher_position)", "published")),
        metric("Partitions", "Where they end, and where lanes are, summed by topic.", "short", ("sum by (topic) (max by (topic, partition) (weir_partition_high_watermark" + OF_LANE + "))", "{{topic}} ends"),
               ("sum by (lane, topic) (max by (lane, topic, partition) (weir_partition_offset" + OF_LANE + "))", "{{lane}} {{topic}}")),
        metric("Lag by partition", "Records, the ten worst.", "short", ("topk(10, max by (lane, topic, partition) (weir_partition_lag_records" + OF_LANE + "))", "{{lane}} {{topic}}/{{partition}}")),
        metric("Rollups that wait", "Minutes of ClickHouse's rollups that are to be computed again.", "short", ("max(weir_clickhouse_rollups_waiting)", "minutes")),
        gauge("Jobs, last run", "How long each job's last run took.", "s", "max by (name) (weir_job_last_duration_seconds)", "{{name}}"),
        gauge("Jobs, ended ago", "Since each job's last run ended. WeirJobOverdue.", "s", "time() - max by (name) (weir_job_last_end_timestamp_seconds > 0)", "{{name}}"),
        gauge("Jobs, interval", "The longest pause in each job's schedule.", "s", "max by (name) (weir_job_schedule_interval_seconds)", "{{name}}"),
        states("Jobs, outcome", "Of each job's last run. WeirJobFailed.", "max by (name, outcome) (weir_job_last_outcome) == 1", "{{name}}: {{outcome}}", width=12),
        metric("Processes", "That do a part: heard of, and silent. WeirProcessSilent, WeirPartWithoutProcess.", "short", ("max by (part) (weir_part_live_processes)", "{{part}} live"),
               ("max by (part) (weir_part_silent_processes)", "{{part}} silent"), width=12),
        rows("late_events", width=12, height=7),
    ], since="now-3h", refresh="30s")


def stores():
    route = 'route=~"/v1/.*"'
    quantile = lambda q: f"histogram_quantile({q}, sum by (le) (rate(weir_http_request_seconds_bucket{{{route}}}[$__rate_interval])))"
    return page("weir-stores", "Stores and service", "The HTTP side and what weir stands on: Postgres, disk, certificate, processes; objectives and their budgets.", [], [
        now("Answers Prometheus", "Instances of weir that do. WeirAbsent.", "short", ('sum(up{job="weir"})', "instances")),
        now("Postgres is readable", "0 if the last scrape could not read the committed totals. WeirStoreAway.", "short", ("max(weir_totals_readable)", "readable")),
        now("Disk free", "Of the data directory, the fullest. WeirDiskFilling.", "percentunit", ("min(weir_data_dir_free_bytes / weir_data_dir_size_bytes)", "free")),
        now("Certificate holds for", "Of the HTTP side; empty without TLS. WeirCertificateEnding.", "s", ("min(weir_tls_certificate_end_timestamp_seconds - time())", "left")),
        now("Renewal fails", "1 while a renewed certificate cannot be used; empty without TLS. WeirCertificateEnding.", "short", ("max(weir_tls_renewal_failing)", "fails"), thresholds=[1]),
        now("Builds", "Versions that run: more than one while a new one is rolled out.", "short", ("count by (version) (weir_build_info)", "{{version}}")),
        gauge("Error budgets left", "Of each objective, over 30 days: below 0 it is missed.", "percentunit", "slo:period_error_budget_remaining:ratio", "{{sloth_slo}}", width=12),
        metric("Budgets burn", "How many times too fast, over an hour. Pages at 14.4.", "none", ("max by (sloth_slo) (slo:sli_error:ratio_rate1h / on (sloth_id) group_left () slo:error_budget:ratio)", "{{sloth_slo}}"), thresholds=[14.4], width=12),
        metric("Requests", "A second, by route.", "reqps", ("sum by (route) (rate(weir_http_requests_total[$__rate_interval]))", "{{route}}"), stacked=True),
        metric("Errors", "A second, by route: failed (5xx) and refused (4xx). Empty if there are none. WeirCommandsAvailable.", "reqps", ('sum by (route) (rate(weir_http_requests_total{class="5xx"}[$__rate_interval]))', "{{route}} 5xx"),
               ('sum by (route) (rate(weir_http_requests_total{class="4xx"}[$__rate_interval]))', "{{route}} 4xx")),
        metric("Duration", "Of requests under /v1. WeirCommandsFast.", "s", (quantile(0.5), "p50"), (quantile(0.99), "p99"), thresholds=[0.25]),
        metric("Refused connections", "A second, since no more are taken.", "cps", ("sum(rate(weir_http_connections_refused_total[$__rate_interval]))", "refused")),
        metric("Commands of a commit", "That one commit of the event store took together.", "short",
               ("histogram_quantile(0.5, sum by (le) (rate(weir_append_batch_commands_bucket[$__rate_interval])))", "p50"),
               ("histogram_quantile(0.99, sum by (le) (rate(weir_append_batch_commands_bucket[$__rate_interval])))", "p99")),
        metric("SQL, statements", "Over history by clients of Postgres' protocol, a second, by how they ended. Empty without sql.listen.", "ops", ("sum by (outcome) (rate(weir_sql_statements_total[$__rate_interval]))", "{{outcome}}"), stacked=True),
        metric("SQL, duration", "Of such statements, to their last row. Empty without sql.listen.", "s",
               ("histogram_quantile(0.5, sum by (le) (rate(weir_sql_statement_seconds_bucket[$__rate_interval])))", "p50"),
               ("histogram_quantile(0.99, sum by (le) (rate(weir_sql_statement_seconds_bucket[$__rate_interval])))", "p99")),
        metric("SQL, connections", "Open, and closed a minute: no more are taken (full), or no login in time (slow). Empty without sql.listen.", "short", ("sum(weir_sql_connections)", "open"),
               ("sum by (reason) (rate(weir_sql_connections_refused_total[$__rate_interval])) * 60", "{{reason}}")),
        metric("Connections to Postgres", "Of the pool, by state, and tasks that wait for one.", "short", ("sum by (state) (weir_postgres_pool_connections)", "{{state}}"), stacked=True),
        metric("Disk", "Of the data directory.", "bytes", ("min by (instance) (weir_data_dir_free_bytes)", "{{instance}} free")),
        metric("Processor", "Cores that each process uses.", "short", ("rate(process_cpu_seconds_total[$__rate_interval])", "{{instance}}")),
        metric("Memory", "Resident, of each process.", "bytes", ("process_resident_memory_bytes", "{{instance}}")),
        metric("Files", "Open, of each process.", "short", ("process_open_fds", "{{instance}}")),
        metric("Threads", "Of each process.", "short", ("process_threads", "{{instance}}")),
    ], since="now-3h", refresh="30s")


ALL_PAGES = [pipeline, stores]
