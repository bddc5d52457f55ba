"""Dashboards of those who teach, support and analyse."""

from panels import (
    ASSESSMENT, PATH, TENANT, bars, choice, daily, heat, metric, now, number, page, rows, sql_rows, typed,
)

T = "($tenant = '' OR tenant = $tenant)"
IN_TIME = "{0} >= $from AND {0} < $to AND " + T


def overview():
    return page("weir-overview", "Platform overview", "What happens on the platform: learners, sessions, assessments, content, tasks.", [choice(*TENANT)], [
        number("Learners", "Registered and not deactivated, now.", "short", f"SELECT count(*) AS learners FROM user_read_model WHERE status = 'active' AND {T}"),
        number("Sessions", "Begun in this time.", "short", f"SELECT count(*) AS sessions FROM learning_session_read_model WHERE {IN_TIME.format('started_at')}"),
        number("Attempts at assessments", "Completed in this time; one learner may attempt an assessment several times.", "short",
               f"SELECT count(*) AS attempts FROM assessment_read_model WHERE {IN_TIME.format('completed_at')}"),
        number("Passed", "Share of those attempts that passed.", "percentunit",
               f"SELECT avg(passed::integer)::float8 AS passed FROM assessment_read_model WHERE {IN_TIME.format('completed_at')}"),
        number("Uploads", "Content items uploaded in this time.", "short", f"SELECT count(*) AS uploads FROM content_read_model WHERE {IN_TIME.format('uploaded_at')}"),
        number("Tasks completed", "Of agents, in this time, whatever their outcome.", "short", f"SELECT count(*) AS tasks FROM task_read_model WHERE {IN_TIME.format('completed_at')}"),
        daily("active_learners_per_day", "learners", width=12),
        daily("registrations_per_day", "registrations", width=12, by="registration_source"),
        bars("funnel", "tenant", ["registered", "with_session", "with_assessment", "passed"], width=12),
        metric("Events, by type", "Events applied a second, as the lane metrics counts them: exactly once, whatever was killed.", "ops",
               ("sum by (event_type) (max by (event_type) (rate(events_applied_total[$__rate_interval])))", "{{event_type}}"), width=12, stacked=True),
        metric("Registrations and sessions", "A second, committed.", "ops",
               ("max(rate(users_registered_total[$__rate_interval]))", "registrations"),
               ("max(rate(learning_sessions_started_total[$__rate_interval]))", "sessions"), width=24),
        rows("tenants_compared", order="events DESC", width=24, height=6),
        rows("freshness", width=12),
        rows("events_by_source", order="events DESC", width=12),
    ])


def outcomes():
    scope = f"{IN_TIME.format('completed_at')} AND ($assessment = '' OR assessment_id = $assessment)"
    return page("weir-outcomes", "Learning outcomes", "What learners reach: scores, attempts, difficulty.", [choice(*TENANT), choice(*ASSESSMENT)], [
        number("Attempts", "Completed in this time.", "short", f"SELECT count(*) AS attempts FROM assessment_read_model WHERE {scope}", width=6),
        number("Learners", "Who completed at least one.", "short", f"SELECT count(DISTINCT (tenant, user_id)) AS learners FROM assessment_read_model WHERE {scope}", width=6),
        number("Passed", "Share of attempts that passed.", "percentunit", f"SELECT avg(passed::integer)::float8 AS passed FROM assessment_read_model WHERE {scope}", width=6),
        number("Mean score", "Of attempts, as a percent of what could be reached.", "percent", f"SELECT avg(score_percent)::float8 AS mean FROM assessment_read_model WHERE {scope}", width=6),
        bars("score_distribution", "band", ["attempts"], width=12),
        bars("attempts_until_passed", "attempts", ["learners"], width=12, limit=20),
        rows("attempts_by_assessment", order="learners DESC", width=12),
        rows("assessment_difficulty", order="difficulty", width=12),
        rows("results_by_learning_path", order="assessments DESC", width=24),
        rows("time_to_first_session", width=12, height=6),
        rows("session_length", order="sessions DESC", width=12, height=6),
    ])


def at_risk():
    risk = f"FROM workflows.learners_at_risk WHERE {T}"
    return page("weir-at-risk", "Learners at risk", "Who may give up, and why; a click on a learner opens that learner's page.",
                [choice(*TENANT), typed("days", "Days without activity", "14")], [
        number("Learners at risk", "As the workflow of that name found them when it last ran.", "short", f"SELECT count(*) AS learners {risk}", width=6),
        number("No session for 30 days", "Of those at risk.", "short", f"SELECT count(*) AS learners {risk} AND reason LIKE '%no session%'", width=6),
        number("Low scores", "Of those at risk: less than 40 % of what their attempts could have brought them.", "short", f"SELECT count(*) AS learners {risk} AND reason LIKE '%low scores%'", width=6),
        number("Falling scores", "Of those at risk: the last three attempts are 15 percents and more below those before.", "short",
               f"SELECT count(*) AS learners {risk} AND reason LIKE '%falling scores%'", width=6),
        sql_rows("Learners at risk, and why", "Computed by the workflow learners_at_risk; `weir workflows show learners_at_risk` has its SQL. The reason names every rule that holds.",
                 f"SELECT tenant, user_id, reason, last_session_at, assessments, recent_percent::float8, earlier_percent::float8 {risk} ORDER BY last_session_at NULLS FIRST LIMIT 500",
                 ["tenant text", "user_id text", "reason text", "last_session_at time", "assessments integer", "recent_percent number percent", "earlier_percent number percent"],
                 width=24, height=10),
        rows("learners_inactive", order="days_inactive DESC, user_id", width=12),
        rows("learners_at_risk", order="score_sum / max_score_sum", width=12, title="Low scores in this time"),
        daily("retention_by_cohort", "active", width=12, time="cohort", title="Retention: active learner weeks by cohort"),
        rows("retention_by_cohort", order="cohort DESC, week", width=12, limit=1000),
    ], since="now-1y")


def learner():
    mine = f"{T} AND user_id = $user"
    progress = f"FROM learner_progress_read_model WHERE {mine}"
    return page("weir-learner", "One learner", "What one learner did and reached. Tables of other dashboards lead here.", [choice(*TENANT), typed("user", "Learner", "")], [
        number("Status", "Active or deactivated.", "string", f"SELECT status FROM user_read_model WHERE {T} AND id = $user"),
        number("Sessions", "Ever.", "short", f"SELECT sum(sessions)::bigint AS sessions {progress}"),
        number("Attempts", "At assessments, ever.", "short", f"SELECT sum(attempts)::bigint AS attempts {progress}"),
        number("Assessments passed", "At least once, ever.", "short", f"SELECT sum(assessments_passed)::bigint AS passed {progress}"),
        number("Mean score", "Of all attempts.", "percent", f"SELECT avg(average_score_percent)::float8 AS mean {progress}"),
        number("Last activity", "Session or assessment.", "dateTimeFromNow", f"SELECT extract(epoch FROM max(last_activity))::float8 * 1000 AS last {progress}"),
        sql_rows("At risk, and why", "Empty if the workflow learners_at_risk did not find this learner at risk.",
                 f"SELECT reason, last_session_at, assessments, recent_percent::float8, earlier_percent::float8 FROM workflows.learners_at_risk WHERE {mine} LIMIT 20",
                 ["reason text", "last_session_at time", "assessments integer", "recent_percent number percent", "earlier_percent number percent"], width=24, height=4),
        daily("learner_time", "sessions", width=12, title="Sessions by day"),
        daily("learner_time", "seconds_spent", width=12, unit="s", title="Time in assessments by day"),
        rows("learner_progress", order="last_session_at DESC", width=12),
        rows("learner_scores", order="last_completed_at DESC", width=12),
        rows("learner_timeline", order="happened_at DESC", width=24, height=12, limit=1000),
    ], since="now-1y")


def path():
    scope = f"{IN_TIME.format('started_at')} AND learning_path_id = $path"
    return page("weir-path", "One learning path", "A learning path, its modules, and beside it another one.",
                [choice(*TENANT), choice(*PATH), choice("other", "Compared with", *PATH[2:])], [
        number("Sessions", "In this time.", "short", f"SELECT count(*) AS sessions FROM learning_session_read_model WHERE {scope}", width=8),
        number("Learners", "With a session in this time.", "short", f"SELECT count(DISTINCT (tenant, user_id)) AS learners FROM learning_session_read_model WHERE {scope}", width=8),
        number("Modules", "With a session in this time.", "short", f"SELECT count(DISTINCT module_id) AS modules FROM learning_session_read_model WHERE {scope}", width=8),
        rows("engagement_by_module", order="sessions DESC", width=12, height=10),
        bars("engagement_by_module", "module_id", ["sessions"], width=12, height=10, order="sessions DESC", limit=20, title="Most used modules"),
        rows("learning_paths_compared", width=24, height=6),
        sql_rows("Difficulty of modules", "Computed by the workflow module_difficulty from the assessments of sessions in each module.",
                 f"SELECT * FROM workflows.module_difficulty WHERE {T} AND module_id IN (SELECT module_id FROM learning_session_read_model WHERE {scope})\n"
                 "ORDER BY difficulty DESC LIMIT 200", ["tenant text"], width=24),
    ])


def content():
    return page("weir-content", "Content and processing", "What is uploaded, how its processing ends, and how long it takes.", [choice(*TENANT)], [
        number("Items", "Uploaded in this time.", "short", f"SELECT count(*) AS items FROM content_read_model WHERE {IN_TIME.format('uploaded_at')}", width=6),
        number("In processing", "Begun and not ended, now.", "short", f"SELECT count(*) AS items FROM content_read_model WHERE status = 'processing' AND {T}", width=6),
        number("Failed", "Items whose last processing failed, now.", "short", f"SELECT count(*) AS items FROM content_read_model WHERE status = 'failed' AND {T}", width=6),
        number("Bytes", "Of items uploaded in this time.", "bytes", f"SELECT coalesce(sum(file_size), 0)::float8 AS bytes FROM content_read_model WHERE {IN_TIME.format('uploaded_at')}", width=6),
        metric("Uploads", "A second, by content type, committed.", "ops",
               ("sum by (content_type) (max by (content_type) (rate(content_uploads_total[$__rate_interval])))", "{{content_type}}"), width=12, stacked=True),
        bars("uploads_by_type", "content_type", ["uploads"], width=12),
        rows("processing", width=12),
        rows("processing_by_size", width=12),
        sql_rows("Quality of processing", "Computed by the workflow content_quality.", f"SELECT * FROM workflows.content_quality WHERE {T} LIMIT 200", ["tenant text"], width=24, height=7),
        rows("content_items", order="last_at DESC", width=24, height=10),
    ])


def agents():
    seconds = "tasks_execution_time_seconds_bucket"
    quantile = lambda q: f"histogram_quantile({q}, sum by (le) (max by (le) (rate({seconds}[$__rate_interval]))))"
    return page("weir-agents", "Agents' tasks", "What agents do: how long, how well, in time or not, and what they use.", [choice(*TENANT)], [
        number("Open tasks", "Assigned and not completed, now.", "short", f"SELECT count(*) AS tasks FROM task_read_model WHERE status = 'assigned' AND {T}", width=6),
        number("Completed", "In this time, whatever their outcome.", "short", f"SELECT count(*) AS tasks FROM task_read_model WHERE {IN_TIME.format('completed_at')}", width=6),
        number("Failed", "Share of those completed in this time.", "percentunit",
               f"SELECT avg((status = 'failed')::integer)::float8 AS failed FROM task_read_model WHERE {IN_TIME.format('completed_at')}", width=6),
        number("Deadlines kept, share", "Of tasks with a deadline that were completed in this time.", "percentunit",
               f"SELECT avg(deadline_met::integer)::float8 AS kept FROM task_read_model WHERE {IN_TIME.format('completed_at')}", width=6),
        heat("Execution time", "Completed tasks by how long they took.", "s", f"sum by (le) (max by (le) (increase({seconds}[$__rate_interval])))"),
        metric("Execution time, percentiles", "Of completed tasks.", "s", (quantile(0.5), "p50"), (quantile(0.9), "p90"), (quantile(0.99), "p99"), width=12, height=8),
        metric("Tasks completed", "A second, by outcome, committed.", "ops",
               ("sum by (status) (max by (status) (rate(tasks_completed_total[$__rate_interval])))", "{{status}}"), width=12, stacked=True),
        rows("agent_failures", order="failed_percent DESC", width=12, height=7),
        rows("execution_time_by_agent", order="tasks DESC", width=12),
        rows("execution_time_by_task_type", order="tasks DESC", width=12),
        rows("agent_resources", order="cpu_seconds DESC", width=12),
        rows("deadlines_kept", order="missed DESC", width=12),
        rows("deadlines_missed", order="late_seconds DESC", width=24),
        sql_rows("Performance by type and priority", "Computed by the workflow agent_performance.", f"SELECT * FROM workflows.agent_performance WHERE {T} LIMIT 200", ["tenant text"], width=24, height=7),
    ])


ALL_PAGES = [overview, outcomes, at_risk, learner, path, content, agents]
