//! The lane: one source, one sink, one loop.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weir_model::{Clock as _, EventType, SystemClock};

use crate::batch::{Batch, BatchLimits};
use crate::chunk::Chunk;
use crate::error::{BoxError, SinkError, SourceError};
use crate::observed;
use crate::progress;
use crate::record::Partition;
use crate::retry::{Backoff, chain};
use crate::sink::Sink;
use crate::source::{Source, SourceEvent, Started};
use crate::status::{LanePhase, StatusBoard};
use crate::step::{self, Facts, Step};

/// How long an idle lane waits before it looks after parked keys and its lag.
const IDLE_WAIT_MAX: Duration = Duration::from_millis(500);

/// How often a refused partition is looked at again: someone may have decided what to do about it.
const REFUSED_WAIT: Duration = Duration::from_secs(5);

/// What a lane says of itself that was fenced.
const FENCED: &str =
    "fenced: another owner took its partitions, or what they are read from changed; it claims them again";

/// A lane's name and limits.
#[derive(Debug, Clone)]
pub struct Lane {
    /// Its name in the ledger.
    pub name: String,
    /// When a batch is full.
    pub limits: BatchLimits,
    /// Records asked of the source at once.
    pub poll_records_max: usize,
    /// The event types that the lane applies; all when `None`.
    pub filter: Option<HashSet<EventType>>,
}

/// Why a lane ended before it was told to.
#[derive(Debug, thiserror::Error)]
#[error("lane {lane} stopped")]
pub struct LaneError {
    /// Which lane.
    pub lane: String,
    /// Why.
    #[source]
    pub source: BoxError,
}

/// Runs a lane until `stop`, then commits what it holds and returns. Dependencies that are down are waited for.
pub async fn run_lane(
    lane: &Lane,
    source: &mut dyn Source,
    sink: &mut dyn Sink,
    board: &StatusBoard,
    stop: &CancellationToken,
) -> Result<(), LaneError> {
    board.announce(&lane.name);
    for name in ["weir_lane_fenced_total", "weir_lane_detached_total"] {
        metrics::counter!(name, "lane" => lane.name.clone()).increment(0);
    }
    let (batch, owned, unclaimed) = (Batch::default(), Vec::new(), Vec::new());
    let (refused, refused_at, claim_failed) = (BTreeMap::new(), Instant::now(), false);
    let mut runner = Runner {
        lane,
        source,
        sink,
        board,
        stop,
        batch,
        owned,
        unclaimed,
        refused,
        refused_at,
        claim_failed,
        trouble: None,
        is_said: false,
    };
    let result = runner.run().await;
    runner.source.close().await;
    board.update(&lane.name, |status| {
        status.phase = LanePhase::Stopped;
        status.trouble = result.as_ref().err().map(|e| chain(e.as_ref()));
    });
    result.map_err(|source| LaneError { lane: lane.name.clone(), source })
}

struct Runner<'a> {
    lane: &'a Lane,
    source: &'a mut dyn Source,
    sink: &'a mut dyn Sink,
    board: &'a StatusBoard,
    stop: &'a CancellationToken,
    batch: Batch,
    owned: Vec<Partition>,
    /// Assigned, but not claimed, or fenced since.
    unclaimed: Vec<Partition>,
    /// Assigned, but not to be read as things stand, and why; the others go on.
    refused: BTreeMap<Partition, String>,
    refused_at: Instant,
    claim_failed: bool,
    trouble: Option<Backoff>,
    /// Whether this trouble's error was said: a fenced lane claims again at first, and only then comes to what is wrong.
    is_said: bool,
}

/// What the loop does after an error that is not the end.
enum Next {
    GoOn,
    Stop,
}

impl Runner<'_> {
    async fn run(&mut self) -> Result<(), BoxError> {
        let mut looked_after = Instant::now();
        loop {
            if !self.refused.is_empty() && self.refused_at.elapsed() >= REFUSED_WAIT {
                self.refused_at = Instant::now();
                let again = self.refused.keys().filter(|partition| !self.unclaimed.contains(partition));
                let again: Vec<_> = again.cloned().collect();
                self.unclaimed.extend(again);
            }
            let facts = Facts {
                is_stopping: self.stop.is_cancelled(),
                has_unclaimed: !self.unclaimed.is_empty(),
                claim_just_failed: std::mem::take(&mut self.claim_failed),
                batch_is_due: self.batch.is_due(&self.lane.limits),
            };
            let mut done = match step::next(facts) {
                Step::Drain => break,
                Step::Claim => {
                    let claimed = self.claim().await;
                    self.claim_failed = claimed.is_err();
                    claimed
                }
                Step::Commit => self.commit().await,
                Step::Read => self.read().await,
            };
            if done.is_ok() && looked_after.elapsed() >= IDLE_WAIT_MAX {
                looked_after = Instant::now();
                done = self.maintain().await;
            }
            if let Next::Stop = self.handle_outcome(done).await? {
                break;
            }
        }
        self.drain().await
    }

    async fn read(&mut self) -> Result<(), Trouble> {
        let wait = self.batch.wait(&self.lane.limits).min(IDLE_WAIT_MAX);
        let event = tokio::select! {
            () = self.stop.cancelled() => return Ok(()),
            event = self.source.next(self.lane.poll_records_max, wait) => event?,
        };
        match event {
            SourceEvent::Assigned(partitions) => {
                let new = partitions.into_iter().filter(|partition| !self.unclaimed.contains(partition));
                let new: Vec<_> = new.collect();
                self.unclaimed.extend(new);
            }
            SourceEvent::Revoked(partitions) => {
                self.batch.forget(&partitions);
                self.sink.release(&partitions);
                self.owned.retain(|p| !partitions.contains(p));
                self.unclaimed.retain(|p| !partitions.contains(p));
                self.refused.retain(|p, _| !partitions.contains(p));
                self.board.update(&self.lane.name, |status| status.idle_since = None);
            }
            SourceEvent::OutOfRange(partitions) => return Err(Trouble::Restart(partitions)),
            SourceEvent::Records(records) => {
                let chunk = Arc::new(Chunk::decode_with_text(records));
                self.batch.take(&chunk, chunk.all(), self.lane.filter.as_ref());
            }
            SourceEvent::Rows(chunk, rows) => self.batch.take(&chunk, rows, self.lane.filter.as_ref()),
            SourceEvent::Full => self.batch.make_due(),
            SourceEvent::Passed(offsets) => {
                for (partition, offset) in offsets {
                    self.batch.pass(&partition, offset);
                }
            }
            SourceEvent::Idle => {}
        }
        Ok(())
    }

    async fn claim(&mut self) -> Result<(), Trouble> {
        let partitions = self.unclaimed.clone();
        self.batch.forget(&partitions);
        self.source.unclaimed(&partitions).await;
        let claims = self.sink.claim(&partitions).await?;
        let mut refusals: BTreeMap<Partition, String> = BTreeMap::new();
        let mut positions = Vec::with_capacity(claims.len());
        for claim in claims {
            match claim.refused {
                Some(reason) => drop(refusals.insert(claim.partition, reason)),
                None => positions.push((claim.partition, claim.next_offset)),
            }
        }
        let (mut begun, mut first) = (Vec::new(), Vec::new());
        for started in self.source.start(&positions).await? {
            match started {
                Started::At { partition, offset } => {
                    if positions.contains(&(partition.clone(), None)) {
                        first.push((partition.clone(), offset));
                    }
                    self.batch.begin(partition.clone(), offset);
                    begun.push(partition);
                }
                Started::Refused { partition, reason } => drop(refusals.insert(partition, reason)),
            }
        }
        self.sink.begin(&first).await?;
        tracing::info!(lane = self.lane.name, partitions = begun.len(), refused = refusals.len(), "claimed");
        self.unclaimed.clear();
        self.owned.retain(|p| !partitions.contains(p));
        self.owned.append(&mut begun);
        self.refuse(&partitions, refusals);
        let next_offset = self.batch.start_offsets();
        self.board.update(&self.lane.name, |status| {
            status.phase = LanePhase::Running;
            // What it may have counted as idle was the time before it knew what there is to do.
            status.idle_since = None;
            status.next_offset = next_offset;
            status.advanced_at = Instant::now();
        });
        // Before the first commit: what an operator asked for, because a lane stopped, must not wait behind what stopped it.
        self.sink.tick().await?;
        Ok(())
    }

    /// Remembers what is refused, and says each reason once.
    fn refuse(&mut self, claimed: &[Partition], refusals: BTreeMap<Partition, String>) {
        for (partition, reason) in &refusals {
            if self.refused.get(partition) != Some(reason) {
                tracing::error!(lane = self.lane.name, %partition, reason, "a partition is not read");
            }
        }
        self.refused.retain(|partition, _| !claimed.contains(partition));
        self.refused.extend(refusals);
        self.refused_at = Instant::now();
    }

    async fn commit(&mut self) -> Result<(), Trouble> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let committed = self.sink.commit(&self.batch).await;
        if let Err(SinkError::Fenced { .. }) = &committed {
            metrics::counter!("weir_lane_fenced_total", "lane" => self.lane.name.clone()).increment(1);
        }
        committed?;
        let dead = self.batch.dead_len();
        let applied = self.batch.len() - dead;
        let labels = [("lane", self.lane.name.clone())];
        metrics::histogram!("weir_lane_batch_records", &labels).record(progress::double(self.batch.len()));
        metrics::histogram!("weir_lane_commit_seconds", &labels).record(started.elapsed().as_secs_f64());
        metrics::counter!("weir_lane_records_total", &labels).increment(u64::try_from(applied + dead).unwrap_or(0));
        let now = SystemClock.now().as_millis();
        let recorded = self.batch.events().filter_map(|located| located.event.recorded_at);
        let waited = recorded.map(|at| progress::double((now - at.as_millis()).max(0)) / 1000.0);
        observed::fresh(&self.lane.name, waited);
        tracing::debug!(lane = self.lane.name, applied, dead, seconds = started.elapsed().as_secs_f64(), "committed");
        self.source.committed(&self.batch.spans()).await;
        self.batch.advance();
        let next_offset = self.batch.start_offsets();
        self.board.update(&self.lane.name, |status| {
            status.next_offset = next_offset;
            status.end_offset = status.end_offset.max(status.next_offset);
            status.applied += u64::try_from(applied).unwrap_or(0);
            status.dead += u64::try_from(dead).unwrap_or(0);
            status.advanced_at = Instant::now();
        });
        Ok(())
    }

    /// Parked keys, redrives, and the lag.
    async fn maintain(&mut self) -> Result<(), Trouble> {
        if self.owned.is_empty() {
            // Another process may have all the partitions; then there is nothing to do here.
            self.board.update(&self.lane.name, |status| {
                status.partitions = 0;
                status.idle_since.get_or_insert_with(Instant::now);
            });
            return Ok(());
        }
        self.sink.tick().await?;
        self.report().await
    }

    /// How far the source is ahead.
    async fn report(&mut self) -> Result<(), Trouble> {
        let mut end_offset = 0;
        for partition in &self.owned {
            let end = self.source.end(partition).await?;
            end_offset += end;
            if let Some(reached) = self.batch.reached(partition) {
                progress::report(&self.lane.name, partition, reached, end);
            }
        }
        let (idle, partitions) = (self.batch.is_empty(), self.owned.len());
        self.board.update(&self.lane.name, |status| {
            status.partitions = partitions;
            status.end_offset = end_offset.max(status.next_offset);
            if idle && status.lag() == 0 {
                status.advanced_at = Instant::now();
                status.idle_since.get_or_insert_with(Instant::now);
            } else {
                status.idle_since = None;
            }
        });
        Ok(())
    }

    /// Turns an error into waiting, claiming again, or the end.
    async fn handle_outcome(&mut self, done: Result<(), Trouble>) -> Result<Next, BoxError> {
        let error = match done {
            // Something else went well; what was to be claimed still is.
            Ok(()) if !self.unclaimed.is_empty() && self.trouble.is_some() => return Ok(Next::GoOn),
            Ok(()) => {
                let recovered = self.trouble.take().is_some();
                self.is_said = false;
                if recovered {
                    tracing::info!(lane = self.lane.name, "works again");
                }
                let refused = self.refused.values().next();
                self.board.update(&self.lane.name, |status| {
                    if recovered || status.trouble.as_ref() != refused {
                        status.phase = if refused.is_some() { LanePhase::Waiting } else { LanePhase::Running };
                        status.trouble = refused.cloned();
                    }
                });
                return Ok(Next::GoOn);
            }
            Err(Trouble::Fatal(error)) => {
                tracing::error!(lane = self.lane.name, error = chain(error.as_ref()), "stopped");
                return Err(error);
            }
            Err(Trouble::Restart(partitions)) => {
                tracing::warn!(lane = self.lane.name, ?partitions, "claiming again");
                // Only what is still assigned; the rest of the batch is committed without them.
                let (again, gone): (Vec<_>, Vec<_>) = partitions.into_iter().partition(|p| self.owned.contains(p));
                self.batch.forget(&gone);
                let again = again.into_iter().filter(|p| !self.unclaimed.contains(p));
                self.unclaimed.extend(again.collect::<Vec<_>>());
                None
            }
            Err(Trouble::Retry(error)) => Some(chain(error.as_ref())),
        };
        if let Some(error) = &error {
            // Once per trouble, not once per try.
            if !std::mem::replace(&mut self.is_said, true) {
                tracing::warn!(lane = self.lane.name, error, "waiting for what this lane needs");
            }
        }
        self.board.update(&self.lane.name, |status| {
            status.phase = LanePhase::Waiting;
            status.trouble = Some(error.unwrap_or_else(|| FENCED.to_owned()));
        });
        // What waits goes on growing, and this is when people look. The source may be what is away.
        if !self.owned.is_empty() {
            drop(self.report().await);
        }
        if !self.trouble.get_or_insert_default().wait(self.stop).await {
            return Ok(Next::Stop);
        }
        Ok(Next::GoOn)
    }

    /// What is in hand when the lane is told to stop; tried once, since the ledger keeps the rest safe anyway.
    async fn drain(&mut self) -> Result<(), BoxError> {
        let done = match self.commit().await {
            Ok(()) => self.sink.finish().await.map_err(Trouble::from),
            failed => failed,
        };
        match done {
            Err(Trouble::Fatal(error)) => Err(error),
            Err(Trouble::Retry(error)) => {
                let error = chain(error.as_ref());
                tracing::warn!(
                    lane = self.lane.name,
                    error,
                    "stopped with records in hand; the next start applies them"
                );
                Ok(())
            }
            Ok(()) | Err(Trouble::Restart(_)) => Ok(()),
        }
    }
}

enum Trouble {
    Retry(BoxError),
    /// Drop what is in hand of these, and claim them again.
    Restart(Vec<Partition>),
    Fatal(BoxError),
}

impl From<SinkError> for Trouble {
    fn from(error: SinkError) -> Self {
        match error {
            SinkError::Retry(source) => Self::Retry(source),
            SinkError::Fenced { partitions } => Self::Restart(partitions),
            SinkError::Fatal(source) => Self::Fatal(source),
        }
    }
}

impl From<SourceError> for Trouble {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Retry(source) => Self::Retry(source),
            SourceError::Fatal(source) => Self::Fatal(source),
        }
    }
}
