//! What every sink should hold, from one pass over each source.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use roaring::RoaringTreemap;
use tokio::sync::mpsc;
use weir_engine::{BoxError, LaneKind, Located, Record, Row, failpoint};
use weir_history::rows::Coordinates;
use weir_history::verify::{Head, HistoryHashes, add_record};
use weir_history::{HistoryTable, Kept};
use weir_model::canonical::SetHash;
use weir_model::project::{Units, rows_of};
use weir_model::wire::{self, Decoded};
use weir_model::{Event, OTHER_EVENT, OtherEvent, Timestamp};
use weir_postgres::Database;
use weir_postgres::metric_totals::MetricTotals;

use crate::fill_from::{FillFrom, Taker};
use crate::fold::{Folded, HELD_MAX, HELD_QUEUE_MAX, HeldEvent, fold_sorted, partition_of};
use crate::lost::{LetGo, Lost, Places, let_go};
use crate::presence::Presence;
use crate::reading::{Hashing, Pages};
use crate::{Absent, CLICKHOUSE, Cut, Cuts, HISTORY, METRICS, READ_MODELS, Sources, VerifyError, columnar};

/// Ranks that order one key's records when they come from several places: first the event store (lanes read it themselves, or it
/// stands in for what topics hold no longer), then records that history alone still has, then the topics.
const EVENT_STORE_RANK: u8 = 0;
const HISTORY_RANK: u8 = 1;
const TOPICS_RANK: u8 = 2;

/// A record's coordinates, and its rank among the places that its key's records come from.
struct At<'a> {
    coordinates: Coordinates,
    rank: u8,
    /// Key and headers of a record in a topic.
    head: Option<Head<'a>>,
}

/// What every sink should hold below its cut.
#[derive(Default)]
pub(crate) struct Expected {
    /// Counts and hashes by lane and event type, for lanes that keep every record.
    columnar: BTreeMap<&'static str, BTreeMap<String, SetHash>>,
    pub(crate) metrics: MetricTotals,
    pub(crate) read_models: BTreeMap<&'static str, SetHash>,
    /// Of which records history keeps key and headers.
    heads: Kept,
    /// In ClickHouse, records that were recorded before this time are [`Presence::Expired`]; `None` where it has no TTL.
    kept: Option<Timestamp>,
    pub(crate) expired: u64,
    /// Minutes since 1970 of the expired events' own times.
    pub(crate) expired_minutes: BTreeSet<i64>,
    /// Numbers of records that a lane does not hold, by lane and subject (event type or table).
    absent: HashMap<(&'static str, String), Absent>,
    /// What the event store says was published, by event type.
    pub(crate) published: BTreeMap<String, SetHash>,
    /// See [`publishing`].
    publishing: Range<i64>,
    /// What the topics hold of those positions, by event type.
    pub(crate) in_topics: BTreeMap<String, SetHash>,
    retained: RoaringTreemap,
    /// What topics let go of while they were read.
    pub(crate) let_go: Vec<LetGo>,
    /// Records that are in history and nowhere else.
    pub(crate) history_alone: u64,
    pub(crate) differences: Vec<String>,
    /// Records that are no event to this build, and no dead letters either: differences too.
    pub(crate) undecodable: Vec<String>,
    /// Takes what a lane should hold, where that is to be written and not compared.
    taker: Option<Taker>,
    /// By lane and event id, for events that the lane left out as repeats: whether another record of the event was found.
    repeated: HashMap<(&'static str, String), bool>,
    /// On their way to the sorter: one at a time would wake it for each.
    held: Vec<HeldEvent>,
}

/// What is read, and from where to where.
pub(crate) struct Walk<'a> {
    pub(crate) database: &'a Database,
    pub(crate) sources: &'a Sources,
    /// Everything below belongs to the lanes.
    pub(crate) cuts: &'a Cuts,
    /// Where reading begins; a partition that is not among them: at its beginning.
    pub(crate) starts: &'a Cuts,
    /// What topics hold no longer.
    pub(crate) lost: &'a Lost,
    /// History, where it is to be read.
    pub(crate) table: Option<&'a HistoryTable>,
    pub(crate) units: Units,
}

impl Expected {
    /// Reads all sources, and history on the way; the sort's temporary files go to `spill`.
    pub(crate) async fn read(walk: Walk<'_>, spill: &Path) -> Result<(Self, HistoryHashes), VerifyError> {
        let units = walk.units;
        let (sender, held) = mpsc::channel(HELD_QUEUE_MAX);
        let path = spill.to_owned();
        let folding = tokio::task::spawn_blocking(move || {
            let (mut hashes, mut refused) = (BTreeMap::<&str, SetHash>::new(), Vec::new());
            fold_sorted(held, units, path, |folded| {
                match folded {
                    Folded::Row(model, row) => {
                        hashes.entry(model.table()).or_default().add(&[row.canonical().as_bytes()]);
                    }
                    Folded::Refused(words) => refused.push(format!("{READ_MODELS}: {words}, and is no dead letter")),
                }
                true
            })?;
            Ok::<_, std::io::Error>((hashes, refused))
        });
        let (mut expected, hashes) = Box::pin(Self::walk(walk, sender)).await?;
        let failed = |source: BoxError| VerifyError::Sort { path: spill.to_owned(), source };
        let folded = folding.await.map_err(|e| failed(e.into()))?;
        let (folded, refused) = folded.map_err(|e| failed(e.into()))?;
        expected.read_models = folded;
        expected.differences.extend(refused);
        Ok((expected, hashes))
    }

    /// Reads event store and topics, and hands on what a lane should hold of them.
    pub(crate) async fn walk_for(walk: Walk<'_>, taker: Taker) -> Result<Self, VerifyError> {
        let Walk { sources, cuts, lost, .. } = walk;
        let (from, lane) = (taker.from, taker.lane);
        let mut expected = Self { taker: Some(taker), ..Self::default() };
        expected.publishing = publishing(sources, cuts);
        let (unused, _) = mpsc::channel(1);
        // What topics still hold, the event store does not stand in for.
        if from != FillFrom::EventStore || !lost.is_empty() {
            expected.read_topics(&walk, &unused).await?;
        }
        // The lane comes to a record that it has fetched, as the event that would stand in for it would.
        for gone in &expected.let_go {
            gone.is_read(lane, cuts).map_err(VerifyError::LetGo)?;
        }
        if from != FillFrom::Topics && !expected.is_given_up() {
            expected.read_event_store(&walk, &unused).await?;
        }
        // Its end, for the receiver: the result may be held on to.
        expected.taker = None;
        Ok(expected)
    }

    /// Reads all sources, and hands on what the lane read-models holds of them.
    pub(crate) async fn walk(
        walk: Walk<'_>,
        sender: mpsc::Sender<Vec<HeldEvent>>,
    ) -> Result<(Self, HistoryHashes), VerifyError> {
        let Walk { sources, cuts, lost, table, units, .. } = walk;
        let places = Places { lost: lost.clone(), event_store: sources.event_store.clone() };
        let history = table.map(|table| Hashing::of(table, places));
        let heads = walk.table.map(HistoryTable::kept).transpose()?.unwrap_or_default();
        let mut expected = Self { kept: sources.kept, heads, ..Self::default() };
        for ((lane, _), cut) in cuts {
            let below = cut.repeats.iter().filter(|(offset, _)| **offset < cut.below);
            expected.repeated.extend(below.map(|(_, id)| ((*lane, id.clone()), false)));
        }
        expected.publishing = publishing(sources, cuts);
        expected.read_topics(&walk, &sender).await?;
        expected.read_event_store(&walk, &sender).await?;
        let mut hashes = HistoryHashes::default();
        if let Some(mut history) = history {
            while let Some((at, event)) = history.left_out.recv().await {
                expected.take_from_history(at, event, cuts, units, &sender).await?;
            }
            hashes = history.end().await?;
        }
        // The receiver ends early only on an error of its own, which is reported when it is joined.
        drop(sender.send(std::mem::take(&mut expected.held)).await);
        let undecodable = std::mem::take(&mut expected.undecodable);
        expected.differences.extend(undecodable);
        expected.check_repeats();
        Ok((expected, hashes))
    }

    /// To their ends, for the comparison with the event store; lanes may not be there yet.
    async fn read_topics(&mut self, walk: &Walk<'_>, sorter: &mpsc::Sender<Vec<HeldEvent>>) -> Result<(), VerifyError> {
        let Walk { sources, cuts, starts, units, .. } = *walk;
        let Some(topics) = &sources.topics else { return Ok(()) };
        failpoint::hit("reading.before_topics");
        let ends = topics.ranges().iter().map(|(partition, (_, high))| (partition.clone(), *high)).collect();
        let starts: BTreeMap<_, _> =
            starts.iter().map(|((_, partition), cut)| (partition.clone(), cut.below)).collect();
        let mut chunks = topics.read(&starts, &ends);
        while let Some(chunk) = chunks.recv().await.filter(|_| !self.is_given_up()) {
            for record in chunk? {
                let standing = |lane| Presence::by_cut(cuts.get(&(lane, record.partition.clone())), record.offset);
                self.take(&record, TOPICS_RANK, standing, units, sorter).await?;
            }
        }
        self.let_go = let_go(topics, &starts).await?;
        Ok(())
    }

    async fn read_event_store(
        &mut self,
        walk: &Walk<'_>,
        sorter: &mpsc::Sender<Vec<HeldEvent>>,
    ) -> Result<(), VerifyError> {
        let Walk { database, sources, cuts, starts, lost, units, .. } = *walk;
        let partition = &sources.event_store;
        let of_lane: HashMap<&str, &Cut> = LaneKind::NAMES
            .into_iter()
            .filter_map(|lane| Some((lane, cuts.get(&(lane, partition.clone()))?)))
            .collect();
        let of_partition = starts.iter().filter(|((_, start), _)| start == partition);
        let from = of_partition.map(|(_, cut)| cut.below).min().unwrap_or(0);
        let mut pages = Pages::of(database, partition, from..self.publishing.end);
        while let Some(page) = pages.next().await.filter(|_| !self.is_given_up()) {
            for record in page? {
                let position = record.offset;
                if position < self.publishing.start {
                    let standing = |lane: &'static str| Presence::by_cut(of_lane.get(lane).copied(), position);
                    self.take(&record, EVENT_STORE_RANK, standing, units, sorter).await?;
                } else if !self.publishing.contains(&position) {
                    return Ok(());
                } else if lost.is_empty() || self.is_retained(position) {
                    count(&mut self.published, &record);
                } else {
                    let standing = |lane: &'static str| match lost.lanes.contains(lane) {
                        true if lost.dead.contains(&(lane, position)) => Presence::Dead,
                        true => Presence::Holds,
                        false => Presence::Beyond,
                    };
                    self.take(&record, EVENT_STORE_RANK, standing, units, sorter).await?;
                }
            }
        }
        Ok(())
    }

    /// Whether the taker ended, on an error of its own.
    fn is_given_up(&self) -> bool {
        self.taker.as_ref().is_some_and(|taker| taker.rows.is_closed())
    }

    fn is_retained(&self, position: i64) -> bool {
        u64::try_from(position).is_ok_and(|position| self.retained.contains(position))
    }

    /// Of records that topics hold no longer, ours are compared with the event store; those of other services are taken as what the other
    /// lanes should hold.
    async fn take_from_history(
        &mut self,
        coordinates: Coordinates,
        event: Decoded,
        cuts: &Cuts,
        units: Units,
        sorter: &mpsc::Sender<Vec<HeldEvent>>,
    ) -> Result<(), VerifyError> {
        self.history_alone += 1;
        let id = match &event {
            Decoded::Event(event) => event.event_id.as_str(),
            Decoded::Other(event) => event.event_id.as_str(),
        };
        self.note_first(HISTORY, id);
        let (partition, offset) = (partition_of(&coordinates), coordinates.offset);
        let standing = |lane: &'static str| match lane {
            HISTORY => Presence::Beyond,
            _ => Presence::by_cut(cuts.get(&(lane, partition.clone())), offset),
        };
        let event = match event {
            Decoded::Event(event) => event,
            Decoded::Other(event) => {
                let at = At { coordinates, rank: HISTORY_RANK, head: None };
                self.take_other(&event, &at, standing);
                return Ok(());
            }
        };
        let payload = wire::canonical_document(&event).into_bytes();
        let at = At { coordinates, rank: HISTORY_RANK, head: None };
        self.take_event(event, payload.into(), at, standing, units, sorter).await
    }

    /// Records of a subject that a lane does not hold.
    pub(crate) fn absent(&self, lane: &'static str, subject: &str) -> Absent {
        self.absent.get(&(lane, subject.to_owned())).copied().unwrap_or_default()
    }

    fn note_absent(&mut self, lane: &'static str, subject: &str, standing: Presence) {
        let absent = self.absent.entry((lane, subject.to_owned())).or_default();
        match standing {
            Presence::Dead => absent.dead += 1,
            Presence::Repeat => absent.repeats += 1,
            Presence::Holds | Presence::Expired | Presence::Beyond => {}
        }
    }

    /// What was left out as a repeat must have been there before.
    fn check_repeats(&mut self) {
        let alone = self.repeated.iter().filter(|(_, found)| !**found);
        let mut words: Vec<String> = alone
            .map(|((lane, id), _)| {
                format!("{lane}: event {id} was left out as a repeat, but no record before it is there")
            })
            .collect();
        words.sort();
        self.differences.extend(words);
    }

    async fn take(
        &mut self,
        record: &Record,
        rank: u8,
        standing: impl Fn(&'static str) -> Presence,
        units: Units,
        sorter: &mpsc::Sender<Vec<HeldEvent>>,
    ) -> Result<(), VerifyError> {
        let at = At {
            coordinates: Coordinates {
                source: record.partition.source.to_string(),
                topic: record.partition.topic.to_string(),
                partition: record.partition.number.into(),
                offset: record.offset,
            },
            rank,
            head: Some((record.key_bytes(), record.headers.written())),
        };
        match record.decode() {
            Ok(Decoded::Event(event)) => {
                let position = event.position.map(|position| position.0);
                if rank == TOPICS_RANK && position.is_some_and(|position| position < self.publishing.start) {
                    self.note_published_again(record);
                }
                if rank == TOPICS_RANK && position.is_some_and(|position| self.publishing.contains(&position)) {
                    count(&mut self.in_topics, record);
                    self.retained.extend(position.and_then(|position| u64::try_from(position).ok()));
                }
                if let Some(taker) = &self.taker {
                    if taker.takes(rank == EVENT_STORE_RANK, standing) {
                        // The receiver ends early only on an error of its own.
                        drop(taker.rows.send(Row::Event(Located::new(record.clone(), event))).await);
                    }
                    return Ok(());
                }
                self.take_event(event, record.payload.clone(), at, standing, units, sorter).await
            }
            Ok(Decoded::Other(event)) => {
                match &self.taker {
                    None => self.take_other(&event, &at, standing),
                    Some(taker) if taker.takes(rank == EVENT_STORE_RANK, standing) => {
                        drop(taker.rows.send(Row::Other(Located::new(record.clone(), event))).await);
                    }
                    Some(_) => {}
                }
                Ok(())
            }
            Err(error) => {
                for lane in LaneKind::NAMES {
                    match standing(lane) {
                        Presence::Holds => self.undecodable.push(format!(
                            "{lane}: offset {} of {} is no event ({error}), and no dead letter",
                            record.offset, record.partition
                        )),
                        absent @ (Presence::Dead | Presence::Repeat | Presence::Expired | Presence::Beyond) => {
                            self.note_absent(lane, &claimed_type(record), absent);
                        }
                    }
                }
                Ok(())
            }
        }
    }

    /// Only lanes that keep everything have a place for it.
    fn take_other(&mut self, event: &OtherEvent, at: &At<'_>, standing: impl Fn(&'static str) -> Presence) {
        let is_expired = is_expired(self.kept, event.recorded_at);
        // Verdicts on repeats are every lane's.
        for lane in LaneKind::NAMES.into_iter().filter(|lane| standing(lane) != Presence::Repeat) {
            self.note_first(lane, event.event_id.as_str());
        }
        for lane in columnar() {
            let standing = standing(lane).within_ttl(lane, is_expired);
            match standing {
                Presence::Holds => self.hold(lane, OTHER_EVENT, at, &event.document),
                Presence::Expired => self.note_expired(event.timestamp),
                absent @ (Presence::Dead | Presence::Repeat | Presence::Beyond) => {
                    self.note_absent(lane, OTHER_EVENT, absent);
                }
            }
        }
    }

    fn note_expired(&mut self, timestamp: Timestamp) {
        self.expired += 1;
        self.expired_minutes.insert(timestamp.as_millis().div_euclid(60_000));
    }

    fn hold(&mut self, lane: &'static str, subject: &str, at: &At<'_>, document: &str) {
        let hash = self.columnar.entry(lane).or_default().entry(subject.to_owned()).or_default();
        let Coordinates { source, topic, partition, offset } = &at.coordinates;
        let head = at.head.filter(|_| lane == HISTORY && self.heads.has(source, topic, *partition, *offset));
        add_record(hash, &at.coordinates, document, head.as_ref());
    }

    /// What a lane that keeps every record should hold, by event type.
    pub(crate) fn columnar(&self, lane: &str) -> BTreeMap<String, SetHash> {
        self.columnar.get(lane).cloned().unwrap_or_default()
    }

    async fn take_event(
        &mut self,
        event: Event,
        payload: Bytes,
        at: At<'_>,
        standing: impl Fn(&'static str) -> Presence,
        units: Units,
        sorter: &mpsc::Sender<Vec<HeldEvent>>,
    ) -> Result<(), VerifyError> {
        let subject = event.event_type.as_str();
        let is_expired = is_expired(self.kept, event.recorded_at);
        let standing = |lane| standing(lane).within_ttl(lane, is_expired);
        for lane in LaneKind::NAMES {
            let standing = standing(lane);
            // The first copy may be a dead letter, or in a partition that the lane is not that far in.
            if standing != Presence::Repeat {
                self.note_first(lane, event.event_id.as_str());
            }
            // Read models are shown by table.
            if standing != Presence::Holds && lane != READ_MODELS {
                self.note_absent(lane, subject, standing);
            }
        }
        if standing(CLICKHOUSE) == Presence::Expired {
            self.note_expired(event.timestamp);
        }
        {
            let document = LazyCell::new(|| wire::canonical_document(&event));
            for lane in columnar().filter(|lane| standing(lane) == Presence::Holds) {
                self.hold(lane, subject, &at, &document);
            }
        }
        if standing(METRICS) == Presence::Holds {
            self.metrics.count(&event, units);
        }
        match standing(READ_MODELS) {
            Presence::Holds => {
                self.held.push(HeldEvent { event, payload, at: at.coordinates, rank: at.rank });
                if self.held.len() >= HELD_MAX {
                    // The receiver ends early only on an error of its own, which is reported when it is joined.
                    drop(sorter.send(std::mem::take(&mut self.held)).await);
                }
            }
            absent @ (Presence::Dead | Presence::Repeat | Presence::Expired | Presence::Beyond) => {
                for (model, ..) in rows_of(&event, "") {
                    self.note_absent(READ_MODELS, model.table(), absent);
                }
            }
        }
        Ok(())
    }

    /// Reports a record in a topic whose event lanes had read from the event store itself, before they were moved to Kafka.
    fn note_published_again(&mut self, record: &Record) {
        const WORDS_MAX: usize = 10;
        if self.differences.len() < WORDS_MAX {
            let words = "is an event that lanes have read from the event store already";
            self.differences.push(format!("kafka: offset {} of {} {words}", record.offset, record.partition));
        }
    }

    fn note_first(&mut self, lane: &'static str, event_id: &str) {
        if !self.repeated.is_empty()
            && let Some(found) = self.repeated.get_mut(&(lane, event_id.to_owned()))
        {
            *found = true;
        }
    }
}

/// Positions in the event store that the topics should hold: from where lanes stopped reading it to the publisher's progress.
pub(crate) fn publishing(sources: &Sources, cuts: &Cuts) -> Range<i64> {
    let of_event_store = cuts.iter().filter(|((_, partition), _)| *partition == sources.event_store);
    let end = of_event_store.map(|(_, cut)| cut.below).max().unwrap_or(0);
    end..(sources.published + 1).max(end)
}

/// Whether ClickHouse may have let go of a record; one that does not say when it was recorded stays.
pub(crate) fn is_expired(kept: Option<Timestamp>, recorded_at: Option<Timestamp>) -> bool {
    kept.zip(recorded_at).is_some_and(|(kept, recorded_at)| recorded_at < kept)
}

/// Adds a record's bytes as they are, not raised to a newer contract version: what was published must be what is stored.
fn count(hashes: &mut BTreeMap<String, SetHash>, record: &Record) {
    hashes.entry(claimed_type(record)).or_default().add(&[&record.payload]);
}

/// The type that a record claims, which may be no event.
fn claimed_type(record: &Record) -> String {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Claim {
        event_type: String,
    }
    serde_json::from_slice(&record.payload).map_or_else(|_| String::new(), |claim: Claim| claim.event_type)
}
