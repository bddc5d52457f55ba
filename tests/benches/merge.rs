//! The read models' rows, ready made, brought in by COPY into a temporary table and one merge for each table and batch.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;

use bytes::Bytes;
use futures::SinkExt;
use tokio_postgres::Client;
use weir_engine::Located;
use weir_model::Timestamp;
use weir_model::project::{AttemptRow, Progress, SessionRow, Units, UserRow, progress_of};
use weir_tests::weir::connect;

/// CSV for each table, in the order of [`TABLES`].
pub(crate) type Rows = [Bytes; 5];

const TABLES: [(&str, &str, &str); 4] = [
    (
        "user_read_model",
        "tenant, id, email, username, first_name, last_name, status, preferences, registration_source, created_at, \
         updated_at, deactivated_at, version",
        "ON CONFLICT (tenant, id) DO UPDATE SET email = excluded.email, username = excluded.username, \
         first_name = excluded.first_name, last_name = excluded.last_name, status = excluded.status, \
         preferences = excluded.preferences, registration_source = excluded.registration_source, \
         created_at = excluded.created_at, updated_at = excluded.updated_at, deactivated_at = excluded.deactivated_at, \
         version = excluded.version",
    ),
    (
        "learning_session_read_model",
        "tenant, id, user_id, learning_path_id, module_id, device_info, started_at, version",
        "ON CONFLICT (tenant, id) DO UPDATE SET user_id = excluded.user_id, version = excluded.version",
    ),
    (
        "assessment_read_model",
        "tenant, key, event_id, assessment_id, user_id, session_id, score, max_score, score_percent, passed, \
         time_spent_seconds, analytics, completed_at, version",
        "ON CONFLICT (tenant, key) DO NOTHING",
    ),
    ("learner_learning_paths", "tenant, user_id, learning_path_id", "ON CONFLICT DO NOTHING"),
];

const PROGRESS: &str = "tenant, user_id, sessions, attempts, attempts_passed, score_percent_sum, \
     time_spent_seconds, last_activity";

const MERGE_PROGRESS: &str = "INSERT INTO learner_progress_read_model AS p (tenant, user_id, sessions, attempts, \
     attempts_passed, score_percent_sum, time_spent_seconds, last_activity) \
     SELECT tenant, user_id, sessions, attempts, attempts_passed, score_percent_sum, time_spent_seconds, \
     last_activity FROM new_learner_progress_read_model \
     ON CONFLICT (tenant, user_id) DO UPDATE SET sessions = p.sessions + excluded.sessions, \
     attempts = p.attempts + excluded.attempts, attempts_passed = p.attempts_passed + excluded.attempts_passed, \
     score_percent_sum = p.score_percent_sum + excluded.score_percent_sum, \
     time_spent_seconds = p.time_spent_seconds + excluded.time_spent_seconds, \
     last_activity = greatest(p.last_activity, excluded.last_activity)";

fn csv(rows: impl Iterator<Item = Vec<Option<String>>>) -> Bytes {
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .into_iter()
            .map(|cell| cell.map_or(String::new(), |c| format!("\"{}\"", c.replace('"', "\"\""))))
            .collect();
        text.push_str(&cells.join(","));
        text.push('\n');
    }
    text.into()
}

fn micros(n: i128) -> Option<String> {
    Some(format!("{}.{:06}", n / 1_000_000, n % 1_000_000))
}

fn time(at: Option<Timestamp>) -> Option<String> {
    at.map(|at| at.to_string())
}

/// What the lane makes of each batch.
pub(crate) fn batches(events: &[Located], size: usize) -> Vec<Rows> {
    let mut users: HashMap<(String, String), UserRow> = HashMap::new();
    events.chunks(size).map(|batch| rows(batch, &mut users)).collect()
}

fn rows(batch: &[Located], users: &mut HashMap<(String, String), UserRow>) -> Rows {
    let units = Units::default();
    let mut touched: BTreeMap<(String, String), ()> = BTreeMap::new();
    let mut progress: BTreeMap<(String, String), Progress> = BTreeMap::new();
    for Located { event, .. } in batch {
        if UserRow::concerns(event) {
            let key = (event.tenant.to_string(), event.stream.aggregate_id().to_owned());
            users.entry(key.clone()).or_insert_with(|| UserRow::new(event)).apply(event).expect("within bounds");
            touched.insert(key, ());
        }
        if let Some((key, part)) = progress_of(event, units) {
            progress.entry(key).or_default().merge(part);
        }
    }
    let events = || batch.iter().map(|located| &located.event);
    let text = |value: &Option<serde_json::Value>| value.as_ref().map(ToString::to_string);
    [
        csv(touched.keys().map(|key| &users[key]).map(|r| {
            vec![
                Some(r.tenant.clone()),
                Some(r.id.clone()),
                r.email.clone(),
                r.username.clone(),
                r.first_name.clone(),
                r.last_name.clone(),
                Some(r.status.as_str().to_owned()),
                Some(serde_json::Value::Object(r.preferences.clone()).to_string()),
                r.registration_source.clone(),
                time(r.created_at),
                time(Some(r.updated_at)),
                time(r.deactivated_at),
                Some(r.version.to_string()),
            ]
        })),
        csv(events().filter_map(SessionRow::of).map(|r| {
            vec![
                Some(r.tenant),
                Some(r.id),
                Some(r.user_id),
                Some(r.learning_path_id),
                Some(r.module_id),
                text(&r.device_info),
                time(Some(r.started_at)),
                Some(r.version.to_string()),
            ]
        })),
        csv(events().filter_map(|event| AttemptRow::of(event, event.event_id.to_string(), units)).map(|r| {
            vec![
                Some(r.tenant),
                Some(r.key),
                Some(r.event_id),
                Some(r.assessment_id),
                Some(r.user_id),
                r.session_id,
                Some(r.score.to_string()),
                Some(r.max_score.to_string()),
                micros(r.score_percent_micros.into()),
                Some(r.passed.to_string()),
                micros(r.time_spent_micros.into()),
                text(&r.analytics),
                time(Some(r.completed_at)),
                Some(r.version.to_string()),
            ]
        })),
        paths_csv(&progress),
        progress_csv(&progress),
    ]
}

fn paths_csv(progress: &BTreeMap<(String, String), Progress>) -> Bytes {
    csv(progress.iter().flat_map(|((tenant, user), p)| {
        p.learning_paths.iter().map(|path| vec![Some(tenant.clone()), Some(user.clone()), Some(path.clone())])
    }))
}

fn progress_csv(progress: &BTreeMap<(String, String), Progress>) -> Bytes {
    csv(progress.iter().map(|((tenant, user), p)| {
        vec![
            Some(tenant.clone()),
            Some(user.clone()),
            Some(p.sessions.to_string()),
            Some(p.attempts.to_string()),
            Some(p.attempts_passed.to_string()),
            micros(p.score_percent_micros_sum),
            micros(p.time_spent_micros),
            time(p.last_activity),
        ]
    }))
}

/// Empties the read models.
pub(crate) async fn empty(url: &str) {
    let tables: Vec<&str> = TABLES.iter().map(|(table, ..)| *table).collect();
    let sql = format!("TRUNCATE {}, learner_progress_read_model; CHECKPOINT", tables.join(", "));
    for statement in sql.split("; ") {
        connect(url).await.batch_execute(statement).await.unwrap();
    }
}

/// One transaction for each batch.
pub(crate) async fn merge(mut client: Client, batches: &[Rows]) {
    for table in TABLES.iter().map(|(table, ..)| *table).chain(["learner_progress_read_model"]) {
        let sql = format!("CREATE TEMP TABLE new_{table} (LIKE {table}) ON COMMIT DELETE ROWS");
        client.batch_execute(&sql).await.unwrap();
    }
    client
        .batch_execute("ALTER TABLE new_learner_progress_read_model ALTER learning_paths DROP NOT NULL, ALTER assessments_taken DROP NOT NULL, \
         ALTER assessments_passed DROP NOT NULL, \
         DROP average_score_percent")
        .await
        .unwrap();
    for rows in batches {
        let transaction = client.transaction().await.unwrap();
        for ((table, columns, conflict), csv) in TABLES.iter().zip(rows) {
            copy(&transaction, table, columns, csv).await;
            let sql = format!("INSERT INTO {table} ({columns}) SELECT {columns} FROM new_{table} {conflict}");
            transaction.batch_execute(&sql).await.unwrap();
        }
        copy(&transaction, "learner_progress_read_model", PROGRESS, &rows[4]).await;
        transaction.batch_execute(MERGE_PROGRESS).await.unwrap();
        transaction.commit().await.unwrap();
    }
}

async fn copy(transaction: &tokio_postgres::Transaction<'_>, table: &str, columns: &str, csv: &Bytes) {
    let sql = format!("COPY new_{table} ({columns}) FROM STDIN (FORMAT csv)");
    let mut sink = pin!(transaction.copy_in::<_, Bytes>(&sql).await.unwrap());
    sink.send(csv.clone()).await.unwrap();
    sink.finish().await.unwrap();
}
