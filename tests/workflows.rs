//! Are the tables that workflows compute what their SQL says, after late events, beside broken files, and whatever dies?

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;
use weir_tests::{ClickHouse, Facts, Fixture, Postgres, Weir, root, seed};

fn fixture(test: &str, rows: usize) -> (Fixture, Facts) {
    let fixture = Fixture::new(rows, seed(test));
    let facts = Facts::of_input(fixture.path());
    (fixture, facts)
}

fn ours() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join("sql/workflows")).unwrap() {
        let path = entry.unwrap().path();
        found.push((path.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap()));
    }
    found.sort();
    found
}

/// Each table is what its SQL gives now, row by row.
async fn agree(weir: &Weir) {
    let client = weir.owner().await;
    for (name, sql) in ours() {
        let both = format!(
            "SELECT count(*) FROM ((SELECT * FROM workflows.{name} EXCEPT ALL SELECT * FROM (\n{sql}\n) a) UNION ALL \
             (SELECT * FROM (\n{sql}\n) b EXCEPT ALL SELECT * FROM workflows.{name})) d"
        );
        assert_eq!(client.query_one(&both, &[]).await.unwrap().get::<_, i64>(0), 0, "{name}");
    }
}

async fn one(weir: &Weir, sql: &str) -> i64 {
    weir.owner().await.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn tables_are_what_their_sql_says_and_late_events_revise_them() {
    let (fixture, facts) = fixture("workflows", 5000);
    let postgres = Postgres::start();
    let weir = Weir::new().on(&postgres.url());
    weir.ok(&["import", "oulad", fixture.arg()]);
    weir.ok(&["up", "--until-caught-up"]);
    let checked = weir.ok(&["workflows", "check"]);
    assert!(
        checked.contains("learners_at_risk: reads assessment_read_model, learning_session_read_model, user_read_model"),
        "{checked}"
    );
    let said = weir.ok(&["workflows", "run"]);
    assert!(said.starts_with("ok: computed agent_performance, cohort_retention, "), "{said}");
    agree(&weir).await;
    let sessions = one(&weir, "SELECT sum(sessions)::bigint FROM workflows.learning_activity").await;
    let attempts = one(&weir, "SELECT sum(attempts)::bigint FROM workflows.learner_engagement").await;
    assert_eq!((sessions, attempts), (facts.events["LearningSessionStarted"], facts.events["AssessmentCompleted"]));
    // The question of the same name asks for low scores alone.
    let sql = "SELECT user_id FROM workflows.learners_at_risk WHERE reason LIKE '%low scores%'";
    let rows = weir.owner().await.query(sql, &[]).await.unwrap();
    let at_risk: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
    let asked = weir.json(&["ask", "learners_at_risk"]);
    let asked: BTreeSet<String> =
        asked.as_array().unwrap().iter().map(|row| row["user_id"].as_str().unwrap().to_owned()).collect();
    assert!(!asked.is_empty());
    assert_eq!(at_risk, asked);
    // Nothing came: nothing of a window is computed again. Then events of times long past do.
    weir.ok(&["workflows", "run", "learning_activity"]);
    assert_eq!(one(&weir, "SELECT rows FROM workflow_state WHERE name = 'learning_activity'").await, 0);
    let (late, _) = self::fixture("workflows_late", 300);
    weir.ok(&["import", "oulad", late.arg()]);
    weir.ok(&["up", "--until-caught-up"]);
    weir.ok(&["workflows", "run"]);
    agree(&weir).await;
    let all = one(&weir, "SELECT count(*) FROM workflows.learning_activity").await;
    let windows = one(&weir, "SELECT windows FROM workflow_state WHERE name = 'learning_activity'").await;
    assert!(windows > 0 && windows < all, "{windows} of {all}");
    for failpoint in
        ["workflow.before_commit", "workflow.before_commit", "workflow.after_commit", "workflow.after_commit"]
    {
        weir.dies_at(failpoint, &["workflows", "run", "learner_engagement", "module_difficulty"]);
        agree(&weir).await;
    }
    by_schedule(&weir).await;
}

/// What is due is computed by whoever runs the schedule, once.
async fn by_schedule(weir: &Weir) {
    let owner = weir.owner().await;
    owner
        .batch_execute("DELETE FROM job_runs; UPDATE workflow_state SET computed_at = now() - interval '2 days'")
        .await
        .unwrap();
    let missed = "INSERT INTO jobs (job, scheduled_to) VALUES ('workflows', now() - interval '2 minutes') \
         ON CONFLICT (job) DO UPDATE SET scheduled_to = excluded.scheduled_to";
    owner.execute(missed, &[]).await.unwrap();
    let mut processes: Vec<_> = (0..2).map(|_| weir.start(&["schedule"])).collect();
    weir.until("SELECT count(*) = 1 FROM job_runs WHERE job = 'workflows' AND outcome = 'ok'").await;
    for process in &mut processes {
        process.kill().unwrap();
        process.wait().unwrap();
    }
    // Those that wait for events had none.
    let detail: String =
        owner.query_one("SELECT detail FROM job_runs WHERE job = 'workflows'", &[]).await.unwrap().get(0);
    assert_eq!(
        detail,
        "computed agent_performance, cohort_retention, content_quality, learners_at_risk, module_difficulty"
    );
    agree(weir).await;
}

fn head(name: &str) -> String {
    format!("-- workflow: {name}\n-- trigger: every 5 minutes\n-- keys: tenant\n")
}

#[tokio::test]
async fn a_file_of_ones_own_runs_and_a_broken_one_is_said_while_others_run() {
    let (fixture, facts) = fixture("workflows_own", 500);
    let postgres = Postgres::start();
    let weir = Weir::new().on(&postgres.url());
    weir.ok(&["import", "oulad", fixture.arg()]);
    weir.ok(&["up", "--until-caught-up"]);
    let directory = weir.path().join("workflows");
    fs::create_dir(&directory).unwrap();
    let good = head("learners") + "SELECT tenant, count(*) AS learners FROM user_read_model GROUP BY tenant;\n";
    fs::write(directory.join("learners.sql"), &good).unwrap();
    fs::write(
        directory.join("wrong.sql"),
        head("wrong") + "SELECT tenant,\n  count(*) AS learners, nothing\nFROM user_read_model GROUP BY tenant\n",
    )
    .unwrap();
    fs::write(directory.join("headless.sql"), "SELECT 1\n").unwrap();
    fs::write(directory.join("second.sql"), &good).unwrap();
    let checked = weir.run(&["workflows", "check"]);
    let words = String::from_utf8_lossy(&checked.stderr).into_owned();
    for expected in [
        "wrong.sql line 5, column 25: column \"nothing\" does not exist",
        "headless.sql line 1: its head has no `-- workflow: NAME`",
        "second.sql: there is a workflow learners already",
    ] {
        assert!(checked.status.code() == Some(1) && words.contains(expected), "{words}");
    }
    let listed = weir.json(&["workflows", "list"]);
    assert_eq!(listed.as_array().unwrap().iter().filter(|row| row["trouble"].is_string()).count(), 2, "{listed}");
    let run = weir.run(&["jobs", "run", "workflows"]);
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(
        run.status.code() == Some(1)
            && said.contains("learners")
            && said.contains("; not: ")
            && said.contains("line 5, column 25"),
        "{said}"
    );
    let learners = facts.events["UserRegistered"];
    assert_eq!(one(&weir, "SELECT learners FROM workflows.learners").await, learners);
    // What it is about may change: then its table is another one.
    fs::write(directory.join("learners.sql"), good.replace("AS learners", "AS people")).unwrap();
    weir.ok(&["workflows", "run", "learners"]);
    assert_eq!(one(&weir, "SELECT people FROM workflows.learners").await, learners);
    let shown = weir.json(&["workflows", "show", "learners"]);
    let value = |what: &str| {
        shown.as_array().unwrap().iter().find(|row| row["what"] == what).map_or(Value::Null, |row| row["value"].clone())
    };
    assert_eq!((value("reads"), value("trigger")), ("user_read_model".into(), "every 5 minutes".into()));
    nothing_else_is_changed(&weir, learners).await;
}

/// Nothing of what is not its own is changed, whatever a file tries.
async fn nothing_else_is_changed(weir: &Weir, learners: i64) {
    let tries = weir.path().join("workflows/tries.sql");
    for (name, sql, words) in [
        ("deletes", "DELETE FROM user_read_model RETURNING tenant", "syntax error"),
        (
            "deletes_within",
            "WITH gone AS (DELETE FROM user_read_model RETURNING tenant) SELECT tenant FROM gone",
            "must be at the top level",
        ),
        (
            "breaks_out",
            "SELECT 'x' AS tenant) q; DELETE FROM user_read_model; SELECT * FROM (SELECT 'x' AS tenant",
            "multiple commands",
        ),
        ("reads_secrets", "SELECT tenant FROM api_tokens", "permission denied for table api_tokens"),
        ("repeats_itself", "SELECT 'x' AS tenant UNION ALL SELECT 'x'", "duplicate key"),
    ] {
        fs::write(&tries, head(name) + sql + "\n").unwrap();
        let tried = weir.run(&["workflows", "run", name]);
        let said = String::from_utf8_lossy(&tried.stdout).into_owned();
        assert!(tried.status.code() == Some(1) && said.contains(words), "{name}: {said}");
    }
    assert_eq!(one(weir, "SELECT count(*) FROM user_read_model").await, learners);
    let unknown = weir.run(&["workflows", "run", "no_such"]);
    assert!(
        String::from_utf8_lossy(&unknown.stdout).contains("there is no workflow no_such: there are agent_performance")
    );
}

/// Its rows as both stores have them, in one order.
async fn both(weir: &Weir, server: &ClickHouse) -> (Vec<String>, Vec<String>) {
    let postgres = "SELECT concat_ws(',', tenant, to_char(week AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'), attempts, mean::float8, share::float8, (best > 50)::text, coalesce(sitting, '-')) \
         FROM workflows.copied ORDER BY 1";
    let of_postgres = weir.owner().await.query(postgres, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    let clickhouse = "SELECT concat(tenant, ',', formatDateTime(week, '%Y-%m-%d %H:%i:%S'), ',', toString(attempts), ',', \
         toString(mean), ',', toString(share), ',', if(best > 50, 'true', 'false'), ',', ifNull(sitting, '-')) AS r \
         FROM weir.workflow_copied ORDER BY r";
    let of_clickhouse = server.sql(clickhouse).await.lines().map(str::to_owned).collect();
    (of_postgres, of_clickhouse)
}

#[tokio::test]
async fn a_table_is_copied_to_clickhouse_whatever_dies() {
    let (fixture, _) = fixture("workflows_copied", 2000);
    let (postgres, server) = (Postgres::start(), ClickHouse::start());
    let weir = Weir::new().on(&postgres.url()).with_all(server.settings());
    weir.ok(&["import", "oulad", fixture.arg()]);
    weir.ok(&["up", "--until-caught-up"]);
    let directory = weir.path().join("workflows");
    fs::create_dir(&directory).unwrap();
    let sql = "-- workflow: copied\n-- trigger: every 5 minutes\n-- keys: tenant, week\n-- target: clickhouse\n\
         SELECT tenant, date_trunc('week', completed_at, 'UTC') AS week, count(*) AS attempts, avg(score_percent) AS mean, \
         max(score_percent)::numeric(12, 6) AS share, max(score) AS best, min(session_id) AS sitting FROM assessment_read_model GROUP BY 1, 2\n";
    fs::write(directory.join("copied.sql"), sql).unwrap();
    // Dead before and after the exchange: the next run of the schedule makes up for it.
    for failpoint in ["workflow.before_exchange", "workflow.before_exchange", "workflow.after_exchange"] {
        weir.dies_at(failpoint, &["workflows", "run", "copied"]);
    }
    assert!(weir.ok(&["jobs", "run", "workflows"]).starts_with("ok: computed"));
    let (of_postgres, of_clickhouse) = both(&weir, &server).await;
    assert!(of_postgres.len() > 20, "{of_postgres:?}");
    assert_eq!(of_postgres, of_clickhouse);
    // The server was away: the run says so, and the copy is made when it is back.
    let (late, _) = self::fixture("workflows_copied_late", 300);
    weir.ok(&["import", "oulad", late.arg()]);
    weir.ok(&["up", "--until-caught-up"]);
    let away = weir
        .command(&["workflows", "run", "copied"])
        .args(["--set", "clickhouse.url=http://127.0.0.1:1"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&away.stdout).into_owned();
    assert!(away.status.code() == Some(1) && said.contains("not: copied: "), "{said}");
    assert_ne!(both(&weir, &server).await.0, of_postgres);
    assert!(weir.ok(&["jobs", "run", "workflows"]).contains("copied"));
    let (of_postgres, of_clickhouse) = both(&weir, &server).await;
    assert_eq!(of_postgres, of_clickhouse);
    // Without a server it is no target.
    let none = weir.command(&["workflows", "run", "copied"]).args(["--set", "clickhouse.url="]).output().unwrap();
    let said = String::from_utf8_lossy(&none.stdout).into_owned();
    assert!(said.contains("copied: its target is ClickHouse, and clickhouse.url is empty"), "{said}");
    let listed = weir.ok(&["workflows", "list"]);
    assert!(listed.contains("workflows.copied, and workflow_copied in ClickHouse"), "{listed}");
}
