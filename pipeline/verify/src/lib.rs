//! `weir verify`: what each sink holds against what the source says it should hold.
//!
//! The source is read once, below the highest cut. From it the pure projections make what each sink should hold, and from
//! each sink's own columns the same is rebuilt; counts and order-independent hashes are compared. Nothing compares a stored
//! hash. Memory is bounded: pages from the source, an external sort for what must be folded by key, streams from the sinks.
//!
//! The source of a lane's records is the event store, or topics, or one after the other where a lane was moved over; where
//! topics hold records no longer, the event store stands in for them (`lost.rs`).
//!
//! Cuts: Postgres sinks are read in one REPEATABLE READ snapshot together with their ledger rows. History is read at one
//! Delta version, whose own transaction says how far it goes. ClickHouse is read after the snapshot, and only below its ledger.

mod clickhouse;
mod expected;
mod fill;
mod fill_from;
mod fold;
mod history;
mod lane_rows;
mod lost;
mod presence;
pub mod reach;
mod reading;
mod rebuild;

pub use fill::{Fill, HistoryFilled, HistoryFilling, fill_history};
pub use fill_from::FillFrom;
pub use lane_rows::LaneRows;
pub use reach::Unreached;
pub use rebuild::{RebuildError, Rebuilding, rebuild, roll_back};
pub use weir_postgres::rebuild::Subject;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use weir_clickhouse::{ClickHouse, ClickHouseError};
use weir_engine::{BoxError, LaneKind, Partition};
use weir_history::verify::HistoryHashes;
use weir_history::{HistoryError, HistoryRoot};
use weir_kafka::{KafkaError, KafkaOptions, TopicLog};
use weir_model::canonical::SetHash;
use weir_model::event_type::TOPICS;
use weir_model::project::{COUNTERS, EXECUTION_TIME, ReadModel, Units};
use weir_model::{EventType, Timestamp};
use weir_postgres::metric_totals::MetricTotals;
use weir_postgres::verify::SinkSnapshot;
use weir_postgres::{Database, DbError, EventStoreSource, LedgerRow, versions};

use expected::{Expected, Walk};
use history::{ATTEMPTS_MAX, ahead_of_history, history_cuts};
use lost::{LetGo, Lost};

const READ_MODELS: &str = LaneKind::ReadModels.name();
const METRICS: &str = LaneKind::Metrics.name();
const HISTORY: &str = LaneKind::History.name();
const CLICKHOUSE: &str = LaneKind::ClickHouse.name();

/// The names of the lanes that keep every record, by its coordinates.
pub(crate) fn columnar() -> impl Iterator<Item = &'static str> {
    LaneKind::ALL.into_iter().filter(|kind| kind.keeps_every_record()).map(LaneKind::name)
}

/// The topics, in the lanes' column.
const KAFKA: &str = "kafka";

/// Why nothing could be compared.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Postgres.
    #[error(transparent)]
    Db(#[from] DbError),
    /// History.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// Kafka.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// ClickHouse.
    #[error(transparent)]
    ClickHouse(#[from] ClickHouseError),
    /// Topics let go of records that a lane had not read, while they were read.
    #[error("{0}")]
    LetGo(String),
    /// The sort's spill files.
    #[error("sorting what the read models should hold failed; its temporary files are in {}, which needs room for them", path.display())]
    Sort {
        /// Where they are.
        path: PathBuf,
        /// What went wrong.
        source: BoxError,
    },
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// Which lane.
    pub lane: &'static str,
    /// Event type, table or series.
    pub subject: String,
    /// What the source says: records, rows, or a counter's value.
    pub expected: u64,
    /// Its hash; empty for counters.
    pub expected_hash: String,
    /// What the sink holds.
    pub actual: u64,
    /// Its hash; empty for counters.
    pub actual_hash: String,
    /// Records of this subject that are the lane's dead letters: neither expected nor in the sink.
    pub dead_letters: u64,
    /// Records of this subject that the lane left out because they had come before.
    pub repeats: u64,
}

impl Comparison {
    /// Whether both sides agree.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.expected == self.actual && self.expected_hash == self.actual_hash
    }
}

/// The whole table.
#[derive(Debug, Default)]
pub struct Report {
    /// Line by line.
    pub comparisons: Vec<Comparison>,
    /// Differences that no line can show.
    pub differences: Vec<String>,
    /// What to know, though it is no difference.
    pub notes: Vec<String>,
    /// By lane: the next offsets below which it was compared, summed over its partitions.
    pub cuts: BTreeMap<&'static str, i64>,
    /// Lanes, and the publisher, that are behind, are stopped or never ran: what they have not applied was not compared.
    pub unreached: Vec<Unreached>,
}

impl Report {
    /// Whether every number agrees, and nothing is missing from what was compared.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        !self.is_different() && self.unreached.is_empty()
    }

    /// Whether a number that was compared differs.
    #[must_use]
    pub fn is_different(&self) -> bool {
        !self.differences.is_empty() || !self.comparisons.iter().all(Comparison::is_equal)
    }
}

/// How far a lane is in one partition (its next offset), and the offsets of records that are not in its sink.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cut {
    pub(crate) below: i64,
    pub(crate) dead: HashSet<i64>,
    /// Of those, the ones that someone asked to try again: they may be in the sink already, for a moment.
    pub(crate) redriven: HashSet<i64>,
    /// Event ids of the records left out as repeats, by offset.
    pub(crate) repeats: HashMap<i64, String>,
}

impl Cut {
    fn of(row: &LedgerRow, dead: HashMap<i64, bool>, repeats: HashMap<i64, String>) -> Self {
        Self {
            below: row.next_offset.unwrap_or(0),
            redriven: dead.iter().filter(|(_, asked)| **asked).map(|(offset, _)| *offset).collect(),
            dead: dead.into_keys().collect(),
            repeats,
        }
    }
}

/// Where everything is that is compared.
#[derive(Clone, Copy)]
pub struct Stores<'a> {
    /// Event store, ledger, read models, metrics.
    pub database: &'a Database,
    /// The Delta table.
    pub history: &'a HistoryRoot,
    /// The topics, where lanes read them.
    pub kafka: Option<&'a KafkaOptions>,
    /// ClickHouse, where that lane runs.
    pub clickhouse: Option<&'a ClickHouse>,
}

/// Where records come from.
pub(crate) struct Sources {
    pub(crate) event_store: Partition,
    pub(crate) topics: Option<TopicLog>,
    /// Everything up to this position is in the topics, as far as it was not read from the event store itself.
    pub(crate) published: i64,
    /// From then on ClickHouse keeps what was recorded, if its TTL lets go of anything.
    pub(crate) kept: Option<Timestamp>,
}

/// Records that a lane does not hold, and why.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Absent {
    pub(crate) dead: u64,
    pub(crate) repeats: u64,
}

/// How far each lane goes in each partition.
pub(crate) type Cuts = HashMap<(&'static str, Partition), Cut>;

/// What is compared, and how long lanes are waited for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The units in which producers send durations.
    pub units: Units,
    /// The lanes that should run.
    pub lanes: &'a [&'static str],
    /// How long at most to wait until running lanes have applied what their sources hold now.
    pub wait: Duration,
    /// Takes the sort's temporary files.
    pub spill: &'a Path,
}

/// Compares every sink of the enabled lanes with its sources, each at its own cut. Lanes may run meanwhile.
pub async fn verify(stores: Stores<'_>, asked: Asked<'_>) -> Result<Report, VerifyError> {
    // Without its URL there is no lane clickhouse to wait for; whether it has been is told by the comparison.
    let is_waited_for = |lane: &&str| *lane != CLICKHOUSE || stores.clickhouse.is_some();
    let running: Vec<&str> = asked.lanes.iter().copied().filter(is_waited_for).collect();
    let unreached = Box::pin(reach::wait(stores, &running, asked.wait)).await?;
    let mut attempts = 0;
    loop {
        attempts += 1;
        let (mut report, let_go) = Box::pin(compare(stores, asked)).await?;
        if let_go.is_empty() || attempts == ATTEMPTS_MAX {
            report.unreached = unreached;
            report.notes.extend(let_go.iter().map(|gone| format!("{}; each time that it was read", gone.words())));
            return Ok(report);
        }
    }
}

/// One comparison, and what topics let go of meanwhile: it may differ because of that.
async fn compare(stores: Stores<'_>, asked: Asked<'_>) -> Result<(Report, Vec<LetGo>), VerifyError> {
    let Stores { database, history, clickhouse, .. } = stores;
    let Asked { units, lanes, spill, .. } = asked;
    let mut report = Report::default();
    let sinks = SinkSnapshot::open(database).await?;
    let mut rows = sinks.ledger().await?;
    rows.retain(|row| lanes.contains(&row.lane.as_str()));
    let off: Vec<&str> = LaneKind::NAMES.into_iter().filter(|lane| !lanes.contains(lane)).collect();
    if !off.is_empty() {
        report.notes.push(format!("not compared, since it is not enabled: {}", off.join(", ")));
    }
    for lane in lanes.iter().filter(|lane| lane.parse::<LaneKind>().is_err()) {
        let of_lane = rows.iter().filter(|row| row.lane == *lane);
        *report.cuts.entry(lane).or_default() += of_lane.filter_map(|row| row.next_offset).sum::<i64>();
        report
            .notes
            .push(format!("what {lane} holds is its program's own; how far it is was compared with the source"));
    }
    let mut cuts = cuts_in_postgres(&sinks, &rows, lanes).await?;
    let is_on = |lane: &str| lanes.contains(&lane);
    if is_on(READ_MODELS) && sinks.read_models_are_outdated().await? {
        report.differences.push(format!(
            "{READ_MODELS}: the tables are of an older layout and wait to be rebuilt: `weir up` and `weir run {READ_MODELS}` begin with \
             that, and `weir jobs run rebuild-read-models` does it alone"
        ));
    }
    for kind in LaneKind::ALL.into_iter().filter(|kind| is_on(kind.name())) {
        let fingerprint = versions::fingerprint(kind, units);
        let client = database.get().await?;
        report.differences.extend(versions::difference(&**client, kind.name(), &fingerprint).await?);
    }
    let partitions = rows.iter().filter(|row| row.lane == HISTORY).map(|row| row.partition.clone()).collect();
    let (table, history_cuts) = history_cuts(database, history, partitions).await?;
    report.differences.extend(ahead_of_history(&rows, &history_cuts));
    cuts.extend(history_cuts.into_iter().map(|(partition, cut)| ((HISTORY, partition), cut)));
    for ((lane, _), cut) in &cuts {
        *report.cuts.entry(lane).or_default() += cut.below;
    }
    let sources = Sources::open(stores, clickhouse.and_then(ClickHouse::kept_from)).await?;
    let mut lost = Lost::find(&cuts, &sources.event_store, sources.topics.as_ref(), &mut report.differences);
    if !lost.is_empty() {
        lost.find_dead(&**database.get().await?, &cuts).await?;
    }
    let (starts, table) = (&Cuts::new(), table.as_ref());
    let walk = Walk { database, sources: &sources, cuts: &cuts, starts, lost: &lost, table, units };
    let (expected, actual) = Box::pin(Expected::read(walk, spill)).await?;
    report.notes.extend(notes(&expected));
    report.differences.extend(expected.differences.iter().cloned());
    compare_topics(&mut report, &expected);
    if is_on(READ_MODELS) {
        compare_read_models(&mut report, &expected, &sinks.read_models().await?);
    }
    if is_on(METRICS) {
        compare_metrics(&mut report, &expected, &sinks.metrics().await?);
    }
    if is_on(HISTORY) {
        compare_columnar(&mut report, HISTORY, &expected, actual);
    }
    if is_on(CLICKHOUSE) {
        clickhouse::compare(&mut report, (database, clickhouse), &expected, &cuts, &lost, &sources).await?;
    }
    Ok((report, expected.let_go))
}

/// What is not compared as everything else is.
fn notes(expected: &Expected) -> Vec<String> {
    let mut notes = Vec::new();
    if expected.history_alone > 0 {
        notes.push(format!(
            "{} records of other services are in history alone, since the topics hold them no longer: they are taken as they are",
            expected.history_alone
        ));
    }
    if expected.expired > 0 {
        notes.push(format!(
            "{} records are not compared in clickhouse, since clickhouse.ttl_days lets go of them",
            expected.expired
        ));
    }
    notes
}

/// How far each enabled lane goes whose dead letters and repeats the snapshot tells.
async fn cuts_in_postgres(sinks: &SinkSnapshot, rows: &[LedgerRow], lanes: &[&str]) -> Result<Cuts, VerifyError> {
    let mut cuts = Cuts::new();
    let here = LaneKind::ALL.into_iter().filter(|kind| kind.counts_in_postgres()).map(LaneKind::name);
    for lane in here.filter(|lane| lanes.contains(lane)) {
        let (mut dead, mut repeats) = (sinks.dead_offsets(lane).await?, sinks.left_out(lane).await?);
        for row in rows.iter().filter(|row| row.lane == lane) {
            let dead = dead.remove(&row.partition).unwrap_or_default();
            let cut = Cut::of(row, dead, repeats.remove(&row.partition).unwrap_or_default());
            cuts.insert((lane, row.partition.clone()), cut);
        }
    }
    Ok(cuts)
}

impl Sources {
    async fn open(stores: Stores<'_>, kept: Option<Timestamp>) -> Result<Self, VerifyError> {
        let event_store = EventStoreSource::partition(stores.database).await?;
        let Some(kafka) = stores.kafka else { return Ok(Self { event_store, topics: None, published: 0, kept }) };
        // First, so that the topics hold all of it.
        let published = reach::published(stores.database, kafka, &event_store).await?;
        Ok(Self { event_store, topics: Some(TopicLog::open(kafka, &TOPICS).await?), published, kept })
    }
}

fn compare_hashes(
    report: &mut Report,
    lane: &'static str,
    subject: &str,
    expected: SetHash,
    actual: SetHash,
    absent: Absent,
) {
    report.comparisons.push(Comparison {
        lane,
        subject: subject.to_owned(),
        expected: expected.count(),
        expected_hash: expected.hex(),
        actual: actual.count(),
        actual_hash: actual.hex(),
        dead_letters: absent.dead,
        repeats: absent.repeats,
    });
}

/// What was published against the event store (P3), up to the publisher's progress.
fn compare_topics(report: &mut Report, expected: &Expected) {
    let subjects: BTreeSet<&String> = expected.published.keys().chain(expected.in_topics.keys()).collect();
    for subject in subjects {
        let of = |hashes: &BTreeMap<String, SetHash>| hashes.get(subject).copied().unwrap_or_default();
        let (published, found) = (of(&expected.published), of(&expected.in_topics));
        compare_hashes(report, KAFKA, subject, published, found, Absent::default());
    }
}

fn compare_read_models(report: &mut Report, expected: &Expected, actual: &BTreeMap<&'static str, SetHash>) {
    for table in ReadModel::ALL.map(ReadModel::table) {
        let expected_hash = expected.read_models.get(table).copied().unwrap_or_default();
        let absent = expected.absent(READ_MODELS, table);
        compare_hashes(
            report,
            READ_MODELS,
            table,
            expected_hash,
            actual.get(table).copied().unwrap_or_default(),
            absent,
        );
    }
}

fn compare_metrics(report: &mut Report, expected: &Expected, actual: &MetricTotals) {
    let mut keys: Vec<(String, String)> = COUNTERS
        .iter()
        .flat_map(|c| {
            c.label.map_or(&[""][..], |(_, values)| values).iter().map(|v| (c.name.to_owned(), (*v).to_owned()))
        })
        .collect();
    keys.extend(actual.counters.keys().filter(|key| !keys.contains(key)).cloned().collect::<Vec<_>>());
    for (name, label) in keys {
        let value = |totals: &MetricTotals| u64::try_from(totals.counter(&name, &label)).unwrap_or(u64::MAX);
        let counts_events = name == "events_applied_total";
        let absent = if counts_events { expected.absent(METRICS, &label) } else { Absent::default() };
        report.comparisons.push(Comparison {
            lane: METRICS,
            subject: if label.is_empty() { name.clone() } else { format!("{name}{{{label}}}") },
            expected: value(&expected.metrics),
            expected_hash: String::new(),
            actual: value(actual),
            actual_hash: String::new(),
            dead_letters: absent.dead,
            repeats: absent.repeats,
        });
    }
    let buckets = |totals: &MetricTotals| {
        let mut hash = SetHash::default();
        for ((name, bucket), (observations, sum)) in &totals.buckets {
            hash.add(&[format!("{name} {bucket} {observations} {sum}").as_bytes()]);
        }
        hash
    };
    compare_hashes(
        report,
        METRICS,
        &format!("{} buckets", EXECUTION_TIME.name),
        buckets(&expected.metrics),
        buckets(actual),
        Absent::default(),
    );
}

/// Of a lane that keeps every record.
fn compare_columnar(report: &mut Report, lane: &'static str, expected: &Expected, actual: HistoryHashes) {
    let of_lane = expected.columnar(lane);
    let mut subjects: Vec<String> = EventType::ALL.map(|t| t.as_str().to_owned()).to_vec();
    let found: BTreeSet<&String> = actual.by_type.keys().chain(of_lane.keys()).collect();
    subjects.extend(found.into_iter().filter(|name| !subjects.contains(name)).cloned().collect::<Vec<_>>());
    for subject in subjects {
        let absent = expected.absent(lane, &subject);
        let expected = of_lane.get(&subject).copied().unwrap_or_default();
        compare_hashes(
            report,
            lane,
            &subject,
            expected,
            actual.by_type.get(&subject).copied().unwrap_or_default(),
            absent,
        );
    }
    report.differences.extend(actual.broken.into_iter().map(|words| format!("{lane}: {words}")));
}
