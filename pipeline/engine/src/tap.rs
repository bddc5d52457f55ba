//! One reader for all lanes of a process: what it read is decoded once, and held until the last lane has committed it.
//!
//! The tap keeps a *ring* of chunks in a row, without a hole. A lane that is *attached* takes them from where it stands, and lets go of
//! them when it has committed. The ring has a budget in bytes. When it is full, the reader waits for the lane that holds the oldest
//! chunk, which is asked to commit ([`SourceEvent::Full`]) if it has taken everything. Once others, with nothing left to do, have waited
//! for it for [`TapLimits::held_up_max`] in all, while processors had time that they could have used, it is *detached*: it reads for
//! itself, from where it stands, until it has come to where the ring begins, and is attached again. So no lane waits for one that is
//! slow or stands still (P9). Where the processors are busy all lanes are slow together, and share all of the reading; only one that
//! does not move at all is detached then, after five times as long.
//!
//! A lane that comes from further ahead than the tap will soon be takes the tap along, and those behind read for themselves.

mod processors;
mod ring;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::chunk::Chunk;
use crate::error::SourceError;
use crate::failpoint;
use crate::record::{Partition, Span};
use crate::retry::Backoff;
use crate::source::{Source, SourceEvent, Started};

pub use processors::Processors;
pub use ring::{LaneId, Offer, Ring, Taken, Wanted};

/// How long the reader waits at the partition's end before it looks again, without a signal.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// How often a reader that has no room looks for lanes that hold up others.
pub const STALLS_EVERY: Duration = Duration::from_millis(100);

/// Reads one partition whose offsets are in the order of its records.
#[async_trait]
pub trait Reader: Send + Sync + 'static {
    /// Which partition.
    fn partition(&self) -> &Partition;

    /// The rows from an offset on, as many as make one chunk; none at the end. May be dropped while it waits, without losing a row.
    async fn read(&mut self, from: i64) -> Result<Chunk, SourceError>;

    /// Waits until there may be more, at most so long.
    async fn changed(&mut self, wait: Duration);

    /// The offset after the last record that can be read now.
    async fn end(&self) -> Result<i64, SourceError>;

    /// The partition's first offset.
    fn first(&self) -> i64;

    /// Another reader of the same partition.
    fn another(&self) -> Self;
}

/// How much a tap holds, and for whom.
#[derive(Debug, Clone, Copy)]
pub struct TapLimits {
    /// Bytes of memory for the chunks that lanes have not committed yet; one chunk may exceed it.
    pub buffer_bytes: usize,
    /// How long in all others may wait for one lane, within a window of thirty times this, before that lane is detached.
    pub held_up_max: Duration,
    /// How long the first read of a partition waits for lanes of this process that are not attached to it yet.
    pub gather: Duration,
    /// Whether a lane keeps the events' text, as history and ClickHouse do.
    pub keeps_text: bool,
}

/// A chunk of a partition, and the generation that it was read in.
pub type Offered = (Partition, u64, Arc<Chunk>);

/// A ring between the one who reads and the lanes.
pub struct SharedRing {
    ring: Mutex<Ring>,
    /// Changes when there is something for lanes: rows, no room, trouble, a detachment.
    pub news: watch::Sender<()>,
    /// Changes when a lane came, went, or let go of something.
    pub room: watch::Sender<()>,
}

impl SharedRing {
    /// An empty one.
    #[must_use]
    pub fn new(limits: TapLimits) -> Arc<Self> {
        let ring = Mutex::new(Ring::new(limits));
        Arc::new(Self { ring, news: watch::Sender::default(), room: watch::Sender::default() })
    }

    /// The ring, for a moment.
    pub fn ring(&self) -> MutexGuard<'_, Ring> {
        // A panic of another thread leaves the ring whole: each method changes it by steps that cannot fail.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Offers chunks, and takes away those that there is room for; `false` when there is none for the first that is left, and it has to be offered
    /// again. Lanes hear of all of them at once.
    pub fn offer(&self, processors: &mut Processors, waiting: &mut VecDeque<Offered>) -> bool {
        if waiting.is_empty() {
            return true;
        }
        let now = Instant::now();
        let is_time_to_spare = processors.have_time_to_spare(now);
        let (mut taken, mut no_room) = (0, None);
        {
            let mut ring = self.ring();
            if let Some(is_time_to_spare) = is_time_to_spare {
                ring.account(is_time_to_spare, now);
            }
            while let Some((partition, generation, chunk)) = waiting.front() {
                if let Offer::NoRoom { detached } = ring.offer(partition, *generation, chunk, now) {
                    no_room = Some(detached);
                    break;
                }
                taken += chunk.rows().len();
                waiting.pop_front();
            }
        }
        self.news.send_replace(());
        count_read("all", taken);
        for lane in no_room.iter().flatten() {
            metrics::counter!("weir_lane_detached_total", "lane" => lane.clone()).increment(1);
            tracing::info!(lane, "holds up others: it reads for itself until it has caught up");
            failpoint::hit("tap.after_detach");
        }
        no_room.is_none()
    }
}

/// A guard that the reader holds. When it is dropped, after a panic too, lanes are told that nothing more will be read.
pub struct Reading(pub Arc<SharedRing>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.ring().end();
        self.0.news.send_replace(());
    }
}

/// How often each record is read shows how much of the reading is shared. `by` is a lane that reads for itself, or `all`.
pub fn count_read(by: &str, records: usize) {
    let records = u64::try_from(records).unwrap_or(0);
    metrics::counter!("weir_records_read_total", "for" => by.to_owned()).increment(records);
}

/// The reader of a process.
pub struct Tap<R> {
    shared: Arc<SharedRing>,
    prototype: R,
    _reading: AbortOnDropHandle<()>,
}

impl<R: Reader> Tap<R> {
    /// Starts reading as soon as a lane is attached. Ends when it is dropped.
    #[must_use]
    pub fn start(reader: R, limits: TapLimits) -> Arc<Self> {
        let shared = SharedRing::new(limits);
        let prototype = reader.another();
        let reading = AbortOnDropHandle::new(tokio::spawn(read_on(reader, shared.clone())));
        Arc::new(Self { shared, prototype, _reading: reading })
    }

    /// A lane's view of it.
    #[must_use]
    pub fn source(self: &Arc<Self>, lane: &str) -> TapSource<R> {
        TapSource {
            news: self.shared.news.subscribe(),
            reader: self.prototype.another(),
            tap: self.clone(),
            lane: lane.to_owned(),
            id: self.shared.ring().add(lane, Instant::now()),
            is_assigned: false,
            mode: Mode::Unstarted,
            next: 0,
        }
    }
}

/// Where the one partition is to be read on; `None` while no lane is attached.
fn wanted(shared: &SharedRing) -> Option<Wanted> {
    shared.ring().wanted(Instant::now()).pop()
}

async fn read_on<R: Reader>(mut reader: R, shared: Arc<SharedRing>) {
    let _reading = Reading(shared.clone());
    let mut room = shared.room.subscribe();
    let mut processors = Processors::new();
    let (mut backoff, never) = (Backoff::default(), CancellationToken::new());
    let mut trusted = 0;
    loop {
        room.borrow_and_update();
        let Some(Wanted { generation, from, partition }) = wanted(&shared) else {
            if room.changed().await.is_err() {
                return;
            }
            continue;
        };
        if std::mem::replace(&mut trusted, generation) != generation {
            // What it has read ahead is of before.
            reader = reader.another();
        }
        match reader.read(from).await {
            Err(error) => {
                shared.ring().fail(&error);
                shared.news.send_replace(());
                backoff.wait(&never).await;
                continue;
            }
            Ok(chunk) if chunk.rows().is_empty() => {
                shared.ring().recover();
                let changed = reader.changed(POLL_INTERVAL);
                tokio::pin!(changed);
                // A lane that comes from elsewhere is not to wait for the next event; one that has committed wants nothing new.
                while wanted(&shared).is_some_and(|now| (now.generation, now.from) == (generation, from)) {
                    tokio::select! {
                        () = &mut changed => break,
                        _ = room.changed() => {}
                    }
                }
            }
            Ok(chunk) => {
                let mut waiting = VecDeque::from([(partition.clone(), generation, Arc::new(chunk))]);
                while !shared.offer(&mut processors, &mut waiting) {
                    drop(tokio::time::timeout(STALLS_EVERY, room.changed()).await);
                    room.borrow_and_update();
                }
            }
        }
        backoff = Backoff::default();
    }
}

enum Mode {
    /// Not claimed.
    Unstarted,
    Attached,
    /// Reads for itself; what is left of the chunk that it read.
    Private(Option<(Arc<Chunk>, Range<usize>)>),
}

/// One lane's view of a tap.
pub struct TapSource<R: Reader> {
    tap: Arc<Tap<R>>,
    lane: String,
    id: LaneId,
    reader: R,
    news: watch::Receiver<()>,
    is_assigned: bool,
    mode: Mode,
    /// The next offset to be handed on.
    next: i64,
}

impl<R: Reader> TapSource<R> {
    fn leave(&mut self) {
        if let Mode::Attached = self.mode {
            let partition = std::slice::from_ref(self.reader.partition());
            self.tap.shared.ring().leave(self.id, partition, Instant::now());
            self.tap.shared.room.send_replace(());
        }
        self.mode = Mode::Unstarted;
    }

    /// What there is for an attached lane; `None` when it is to look again.
    async fn take_shared(&mut self, records_max: usize, wait: Duration) -> Option<Result<SourceEvent, SourceError>> {
        self.news.borrow_and_update();
        let taken = self.tap.shared.ring().take(self.id, records_max, Instant::now());
        match taken {
            Taken::Rows(chunk, rows) => {
                self.next = chunk.rows()[rows.clone()].last().map_or(self.next, |row| row.record().offset + 1);
                Some(Ok(SourceEvent::Rows(chunk, rows)))
            }
            Taken::Full => Some(Ok(SourceEvent::Full)),
            Taken::Trouble(error) => Some(Err(error)),
            Taken::Detached(_) => {
                self.mode = Mode::Private(None);
                None
            }
            Taken::Passed(offsets) => Some(Ok(SourceEvent::Passed(offsets))),
            Taken::OutOfRange(partitions) => Some(Ok(SourceEvent::OutOfRange(partitions))),
            Taken::Nothing => match tokio::time::timeout(wait, self.news.changed()).await {
                Ok(Ok(())) => None,
                // The sender lives as long as the tap, which this lane holds.
                Ok(Err(_)) | Err(_) => Some(Ok(SourceEvent::Idle)),
            },
        }
    }

    /// What a detached lane reads for itself; `None` when it has been attached again.
    async fn take_own(&mut self, records_max: usize, wait: Duration) -> Option<Result<SourceEvent, SourceError>> {
        if let Mode::Private(Some((chunk, rows))) = &mut self.mode {
            let part = rows.start..rows.end.min(rows.start.saturating_add(records_max));
            let (chunk, is_all) = (chunk.clone(), part.end == rows.end);
            rows.start = part.end;
            if is_all {
                self.mode = Mode::Private(None);
            }
            self.next = chunk.rows()[part.clone()].last().map_or(self.next, |row| row.record().offset + 1);
            return Some(Ok(SourceEvent::Rows(chunk, part)));
        }
        let partition = self.reader.partition();
        if self.tap.shared.ring().join(self.id, partition, self.next, Instant::now()) {
            failpoint::hit("tap.after_join");
            tracing::info!(lane = self.lane, "has caught up, and shares the reading again");
            self.tap.shared.room.send_replace(());
            // Without the pages that it has read ahead.
            self.reader = self.reader.another();
            self.mode = Mode::Attached;
            return None;
        }
        match self.reader.read(self.next).await {
            Err(error) => Some(Err(error)),
            Ok(chunk) if chunk.rows().is_empty() => {
                self.reader.changed(wait.min(POLL_INTERVAL)).await;
                Some(Ok(SourceEvent::Idle))
            }
            Ok(chunk) => {
                count_read(&self.lane, chunk.rows().len());
                let rows = chunk.all();
                self.mode = Mode::Private(Some((Arc::new(chunk), rows)));
                None
            }
        }
    }
}

impl<R: Reader> Drop for TapSource<R> {
    fn drop(&mut self) {
        self.tap.shared.ring().remove(self.id, Instant::now());
        self.tap.shared.room.send_replace(());
    }
}

#[async_trait]
impl<R: Reader> Source for TapSource<R> {
    async fn next(&mut self, records_max: usize, wait: Duration) -> Result<SourceEvent, SourceError> {
        if !self.is_assigned {
            self.is_assigned = true;
            return Ok(SourceEvent::Assigned(vec![self.reader.partition().clone()]));
        }
        let until = Instant::now() + wait;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let event = match self.mode {
                Mode::Unstarted => {
                    tokio::time::sleep(wait).await;
                    Some(Ok(SourceEvent::Idle))
                }
                Mode::Attached => self.take_shared(records_max, left).await,
                Mode::Private(_) => self.take_own(records_max, left).await,
            };
            if let Some(event) = event {
                return event;
            }
        }
    }

    async fn start(&mut self, positions: &[(Partition, Option<i64>)]) -> Result<Vec<Started>, SourceError> {
        let found = positions.iter().find(|(partition, _)| partition == self.reader.partition());
        self.leave();
        let Some((partition, next)) = found else { return Ok(Vec::new()) };
        let next = next.unwrap_or(self.reader.first());
        if next < self.next {
            // The ledger stands below what was handed on: what lies between is read again, by this lane and by the others.
            self.tap.shared.ring().distrust();
        }
        self.reader = self.reader.another();
        self.next = next;
        let attached = self.tap.shared.ring().attach(self.id, partition, self.next, Instant::now());
        self.mode = if attached { Mode::Attached } else { Mode::Private(None) };
        self.tap.shared.room.send_replace(());
        self.tap.shared.news.send_replace(());
        Ok(vec![Started::At { partition: partition.clone(), offset: self.next }])
    }

    async fn unclaimed(&mut self, _: &[Partition]) {
        self.leave();
    }

    async fn end(&mut self, _: &Partition) -> Result<i64, SourceError> {
        self.reader.end().await
    }

    async fn close(&mut self) {
        self.leave();
    }

    async fn committed(&mut self, spans: &[Span]) {
        if let Mode::Attached = self.mode {
            let offsets = spans.iter().map(|span| (&span.partition, span.end));
            self.tap.shared.ring().release(self.id, offsets, Instant::now());
            self.tap.shared.room.send_replace(());
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::chunk::Row;
    use crate::headers::Headers;
    use crate::record::{Record, RecordHead};

    /// What each offset holds, from 1 on; another process may change it.
    type Store = Arc<Mutex<Vec<&'static str>>>;

    struct FromMemory {
        store: Store,
        partition: Partition,
    }

    #[async_trait]
    impl Reader for FromMemory {
        fn partition(&self) -> &Partition {
            &self.partition
        }

        async fn read(&mut self, from: i64) -> Result<Chunk, SourceError> {
            let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
            let row = |(offset, text): (i64, &&'static str)| {
                let head = RecordHead {
                    partition: self.partition.clone(),
                    offset,
                    key: None,
                    odd_key: None,
                    headers: Headers::default(),
                    recorded_at: None,
                };
                Row::of(Record { head, payload: Bytes::from_static(text.as_bytes()) })
            };
            Ok(Chunk::new((1..).zip(store.iter()).filter(|(offset, _)| *offset >= from).map(row).collect()))
        }

        async fn changed(&mut self, wait: Duration) {
            tokio::time::sleep(wait.min(Duration::from_millis(5))).await;
        }

        async fn end(&self) -> Result<i64, SourceError> {
            Ok(1)
        }

        fn first(&self) -> i64 {
            1
        }

        fn another(&self) -> Self {
            Self { store: self.store.clone(), partition: self.partition.clone() }
        }
    }

    /// The next texts that a lane is handed.
    async fn texts(source: &mut TapSource<FromMemory>, count: usize) -> Vec<String> {
        let mut found = Vec::new();
        while found.len() < count {
            let event = source.next(1, Duration::from_secs(5)).await.expect("readable");
            let SourceEvent::Rows(chunk, rows) = event else { panic!("{event:?}") };
            found.extend(chunk.rows()[rows].iter().filter_map(|row| match row {
                Row::Dead(dead) => Some(String::from_utf8_lossy(&dead.record.payload).into_owned()),
                Row::Event(_) | Row::Other(_) => None,
            }));
        }
        found
    }

    /// Postgres fails over to an older copy, and other events get the offsets of those that are lost.
    #[tokio::test]
    async fn a_lane_that_is_set_back_is_not_given_what_was_read_before() {
        let partition = Partition { source: "s".into(), topic: "t".into(), number: 0 };
        let store: Store = Arc::new(Mutex::new(vec!["1", "2 lost", "3 lost"]));
        let reader = FromMemory { store: store.clone(), partition: partition.clone() };
        let held_up_max = Duration::from_secs(1);
        let limits = TapLimits { buffer_bytes: 1 << 20, held_up_max, gather: Duration::ZERO, keeps_text: true };
        let tap = Tap::start(reader, limits);
        let (mut ahead, mut behind) = (tap.source("ahead"), tap.source("behind"));
        for source in [&mut ahead, &mut behind] {
            assert!(matches!(source.next(1, Duration::ZERO).await, Ok(SourceEvent::Assigned(_))));
            source.start(&[(partition.clone(), Some(1))]).await.expect("starts");
        }
        assert_eq!(texts(&mut ahead, 3).await, ["1", "2 lost", "3 lost"]);
        assert_eq!(texts(&mut behind, 1).await, ["1"]);
        *store.lock().unwrap_or_else(PoisonError::into_inner) = vec!["1", "2 new", "3 new", "4 new"];
        ahead.unclaimed(std::slice::from_ref(&partition)).await;
        ahead.start(&[(partition.clone(), Some(2))]).await.expect("starts");
        assert_eq!(texts(&mut ahead, 3).await, ["2 new", "3 new", "4 new"]);
        assert_eq!(texts(&mut behind, 3).await, ["2 new", "3 new", "4 new"], "nor is one that had them still to come");
    }
}
