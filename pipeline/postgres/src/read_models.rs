//! The read models as rows: pure projections from `weir_model::project`, written in one statement per table and batch.

use std::collections::BTreeMap;

use async_trait::async_trait;
use deadpool_postgres::Transaction;
use tokio_postgres::GenericClient;
use tokio_postgres::types::ToSql;
use weir_engine::{Located, RecordHead};
use weir_model::project::{
    AssessmentResult, AttemptRow, ContentRow, FoldedRow, Progress, RecordPlace, ResultKey, SessionRow, TaskRow, Units,
    UserRow, attempt_key, depends_on_order, fingerprint, progress_of, result_of,
};
use weir_model::{Event, Timestamp};

use crate::error::{DbError, During};
use crate::projection::{ApplyError, Projection};

mod events;
pub mod shown;
pub(crate) mod stored;
mod streams;
mod sums;

use events::{write_attempts, write_sessions};
use sums::{Counted, Learner, write_progress, write_results};

const ACTION: &str = "writing read models";

/// The layout of the tables that this build writes; read models of an older one are rebuilt before the lane goes on.
pub const LAYOUT: i32 = 2;

/// The lane `read-models`.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadModelsProjection {
    /// The units in which producers send durations.
    pub units: Units,
}

#[async_trait]
impl Projection for ReadModelsProjection {
    fn fingerprint(&self) -> Option<String> {
        Some(fingerprint::of_read_models(self.units))
    }

    fn depends_on_order(&self, event: &Event) -> bool {
        depends_on_order(event.event_type)
    }

    async fn apply(&self, transaction: &Transaction<'_>, events: &[&Located]) -> Result<(), ApplyError> {
        for part in Part::ALL {
            self.apply_part(part, transaction, events).await?;
        }
        Ok(())
    }
}

/// Tables that are written together. Those of different parts do not depend on each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Users.
    Users,
    /// Sessions.
    Sessions,
    /// Attempts, results of assessments, and learners' progress, which counts results.
    Assessments,
    /// Content.
    Contents,
    /// Tasks.
    Tasks,
}

impl Part {
    /// In the order in which a lane writes them.
    pub const ALL: [Self; 5] = [Self::Users, Self::Sessions, Self::Assessments, Self::Contents, Self::Tasks];
}

impl ReadModelsProjection {
    /// Applies events to the tables of one part.
    pub(crate) async fn apply_part(
        &self,
        part: Part,
        transaction: &Transaction<'_>,
        events: &[&Located],
    ) -> Result<(), ApplyError> {
        let units = self.units;
        match part {
            Part::Users => streams::apply::<UserRow>(transaction, events, units).await,
            Part::Contents => streams::apply::<ContentRow>(transaction, events, units).await,
            Part::Tasks => streams::apply::<TaskRow>(transaction, events, units).await,
            Part::Sessions => {
                // One row per key and statement; the last event of a key wins, as it would one by one.
                let rows = events.iter().filter_map(|l| SessionRow::of(&l.event));
                Ok(write_sessions(transaction, &by_key(rows, |r| (r.tenant.clone(), r.id.clone()))).await?)
            }
            Part::Assessments => Ok(apply_assessments(transaction, events, units).await?),
        }
    }
}

async fn apply_assessments(transaction: &Transaction<'_>, events: &[&Located], units: Units) -> Result<(), DbError> {
    let (mut attempts, mut results) = (Vec::new(), BTreeMap::<ResultKey, AssessmentResult>::new());
    for Located { record, event, .. } in events.iter().copied() {
        let key = attempt_key(event, place_of(record));
        if let Some((of, part)) = result_of(event, &key) {
            results.entry(of).or_default().merge(part);
        }
        attempts.extend(AttemptRow::of(event, key, units));
    }
    write_attempts(transaction, &by_key(attempts.into_iter(), |r| (r.tenant.clone(), r.key.clone()))).await?;
    let counted = write_results(transaction, &results).await?;
    let mut progress: BTreeMap<Learner, Progress> = BTreeMap::new();
    for (key, part) in events.iter().filter_map(|l| progress_of(&l.event, units)) {
        progress.entry(key).or_default().merge(part);
    }
    write_progress(transaction, &progress, &counted).await
}

pub(crate) fn place_of(record: &RecordHead) -> RecordPlace<'_> {
    let at = &record.partition;
    RecordPlace { source: &at.source, topic: &at.topic, partition: at.number.into(), offset: record.offset }
}

/// Writes rows that are whole, each into its table, where no row of its key is yet.
pub async fn write(transaction: &Transaction<'_>, rows: Vec<FoldedRow>) -> Result<(), DbError> {
    let (mut users, mut sessions, mut attempts) = (Vec::new(), Vec::new(), Vec::new());
    let (mut contents, mut tasks) = (Vec::new(), Vec::new());
    let (mut results, mut progress, mut counted) = (BTreeMap::new(), BTreeMap::new(), Counted::new());
    for row in rows {
        match row {
            FoldedRow::User(row) => users.push(*row),
            FoldedRow::Session(row) => sessions.extend(row.map(|row| *row)),
            FoldedRow::Attempt(row) => attempts.extend(row.map(|row| *row)),
            FoldedRow::Result(row) => results.extend(row),
            FoldedRow::Progress(tenant, user, sum) => {
                let sizes = (count(sum.assessments_taken.len()), count(sum.assessments_passed.len()));
                counted.insert((tenant.clone(), user.clone()), sizes);
                progress.insert((tenant, user), sum);
            }
            FoldedRow::Content(row) => contents.push(*row),
            FoldedRow::Task(row) => tasks.push(*row),
        }
    }
    streams::write(transaction, &users).await?;
    write_sessions(transaction, &sessions).await?;
    write_attempts(transaction, &attempts).await?;
    write_results(transaction, &results).await?;
    write_progress(transaction, &progress, &counted).await?;
    streams::write(transaction, &contents).await?;
    streams::write(transaction, &tasks).await
}

/// Whether the read models are of an older layout: they wait to be rebuilt, and are not to be shown.
pub async fn are_outdated(client: &impl GenericClient) -> Result<bool, DbError> {
    const ACTION: &str = "looking for the read models' layout";
    let row = client.query_one("SELECT layout < $1 FROM read_models_layout", &[&LAYOUT]).await.during(ACTION)?;
    row.try_get(0).during(ACTION)
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Sorted by key, so that two processes lock rows in the same order.
fn by_key<T>(rows: impl Iterator<Item = T>, key: impl Fn(&T) -> (String, String)) -> Vec<T> {
    rows.map(|row| (key(&row), row)).collect::<BTreeMap<_, _>>().into_values().collect()
}

fn jiff(at: Option<Timestamp>) -> Option<jiff::Timestamp> {
    at.map(Timestamp::to_jiff)
}

/// Millionths as a decimal text, which Postgres reads as NUMERIC without rounding.
fn decimal(micros: impl Into<i128>) -> String {
    let micros = micros.into();
    let (sign, abs) = (if micros < 0 { "-" } else { "" }, micros.unsigned_abs());
    format!("{sign}{}.{:06}", abs / 1_000_000, abs % 1_000_000)
}

/// A column of values, one for each row.
macro_rules! column {
    ($rows:expr, $row:ident => $value:expr) => {
        $rows.iter().map(|$row| $value).collect::<Vec<_>>()
    };
}
use column;

async fn execute(transaction: &Transaction<'_>, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<(), DbError> {
    let statement = transaction.prepare_cached(sql).await.during(ACTION)?;
    transaction.execute(&statement, values).await.during(ACTION)?;
    Ok(())
}
