//! The lane `history`: a batch's files and one application transaction per partition, in one Delta commit.
//!
//! A transaction's version is the next offset to apply, so the Delta log itself is a compare-and-set on offsets:
//!
//! 1. ask whether the ledger stands at the batch's start, and keep the batch's dead letters and new ids in Postgres, if the partitions
//!    are still ours;
//! 2. write the data files; no reader sees them yet;
//! 3. read the log again: each transaction must stand at the batch's start. At its end: an earlier try had succeeded;
//! 4. commit on exactly that snapshot (no retries: any commit in between is a conflict, which goes back to 3);
//! 5. sync files, log and directories;
//! 6. advance the ledger.
//!
//! A crash after 4 leaves the log ahead of the ledger; the next claim moves the ledger up. The ledger is never ahead of the
//! log. A claim also commits, without files, its epoch: a commit must find its own epoch in the snapshot that it
//! commits on, so an older owner is out from then on, whenever it wakes up and whatever it reads again.

use std::collections::BTreeMap;
use std::time::Instant;

use async_trait::async_trait;
use deltalake_core::checkpoints;
use deltalake_core::kernel::{Action, Add, Transaction};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use weir_engine::{Batch, Claim, LaneKind, Partition, Sink, SinkError, Span, failpoint};
use weir_model::Position;
use weir_postgres::owner::{self, Redrive};
use weir_postgres::repeats::Places;
use weir_postgres::{Database, EVENT_STORE_TOPIC, EventStore, Ledger, LedgerRow, PartitionOwner, RecordPolicy};

use crate::kafka_record::partition_id;
use crate::past;
use crate::schema::PARTITION_COLUMNS;
use crate::standing::{Facts, Found, Standing, found, standing};
use crate::table::{HistoryError, HistoryRoot, HistoryTable, during, epoch_id, redrive_id, transaction_id};
use crate::tidy::UNCOMMITTED_MAX;
use crate::write::write;

/// Commits between two checkpoints of the log.
const CHECKPOINT_EVERY: u64 = 20;

/// Writes history.
pub struct HistorySink {
    root: HistoryRoot,
    owner: PartitionOwner,
    table: Option<HistoryTable>,
    /// Files written for a batch whose commit did not succeed yet, and when.
    written: Option<(Vec<Span>, Vec<Add>, Instant)>,
    checkpointed: u64,
}

impl HistorySink {
    /// Nothing happens until the lane claims.
    #[must_use]
    pub fn new(root: impl Into<HistoryRoot>, database: Database, ledger: Ledger, policy: RecordPolicy) -> Self {
        Self {
            root: root.into(),
            owner: PartitionOwner::new(database, ledger, policy),
            table: None,
            written: None,
            checkpointed: 0,
        }
    }

    async fn table(&mut self) -> Result<&mut HistoryTable, SinkError> {
        if self.table.is_none() {
            self.table = Some(HistoryTable::open_or_create(&self.root).await.map_err(retry)?);
        }
        self.table.as_mut().ok_or_else(|| SinkError::Retry("the table is not open".into()))
    }

    async fn write_files(&mut self, batch: &Batch, spans: &[Span], repeats: &Places) -> Result<Vec<Add>, SinkError> {
        if let Some((_, adds, _)) = self.written.clone().filter(|(written, ..)| written == spans) {
            return Ok(adds);
        }
        let (events, others) = owner::shared_without(batch, repeats);
        let adds = write(self.table().await?, &events, &others).await.map_err(retry)?;
        self.written = Some((spans.to_vec(), adds.clone(), Instant::now()));
        failpoint::hit("history.after_data_files");
        Ok(adds)
    }

    /// A process that stood still for long writes its files again: the vacuum may be about to remove those.
    fn refuse_old_files(&mut self) -> Result<(), SinkError> {
        match &self.written {
            Some((.., at)) if at.elapsed() > UNCOMMITTED_MAX => {
                self.written = None;
                Err(SinkError::Retry(
                    "files that this process wrote long ago are not committed: they are written again".into(),
                ))
            }
            _ => Ok(()),
        }
    }

    async fn standing(&mut self, spans: &[Span]) -> Result<Standing, SinkError> {
        self.table().await?.refresh().await.map_err(retry)?;
        let mut facts = Vec::with_capacity(spans.len());
        for span in spans {
            let fenced_by_us = self.is_fenced_by_us(&span.partition).await?;
            let id = transaction_id(self.owner.lane(), &span.partition);
            let next_offset = self.table().await?.transaction(&id).await.map_err(retry)?;
            facts.push((span, Facts { fenced_by_us, next_offset }));
        }
        Ok(standing(&facts))
    }

    /// Whether the snapshot at hand was fenced by our own claim, and by none since.
    async fn is_fenced_by_us(&mut self, partition: &Partition) -> Result<bool, SinkError> {
        let (id, ours) = (epoch_id(self.owner.lane(), partition), self.owner.ledger().epoch(partition));
        let fenced_by = self.table().await?.transaction(&id).await.map_err(retry)?;
        Ok(fenced_by.is_some() && fenced_by == ours)
    }

    async fn check_epoch(&mut self, partition: &Partition) -> Result<(), SinkError> {
        match self.is_fenced_by_us(partition).await? {
            true => Ok(()),
            false => Err(SinkError::Fenced { partitions: vec![partition.clone()] }),
        }
    }

    /// What the last owners left open: their commits that the ledger has not heard of, and a fence against their next ones.
    async fn take_over(&mut self, claims: &mut [Claim]) -> Result<(), SinkError> {
        let lane = self.owner.lane().to_owned();
        let table = self.table().await?;
        table.refresh().await.map_err(retry)?;
        table.sync_everything().await.map_err(retry)?;
        if table.is_older().map_err(retry)? {
            self.upgrade().await?;
        }
        let (mut behind, mut begun) = (Vec::new(), Vec::new());
        for claim in claims.iter_mut().filter(|claim| claim.refused.is_none()) {
            let id = transaction_id(&lane, &claim.partition);
            let log = self.table().await?.transaction(&id).await.map_err(retry)?;
            if let Found::LogLost { ledger } = found(claim.next_offset, log) {
                return Err(SinkError::Fatal(lost(&claim.partition, ledger, log).into()));
            }
            if let Some(log) = log {
                self.check_past(&claim.partition, log).await?;
            }
            if let (None, Some(log)) = (claim.next_offset, log) {
                // The last owner began here, and died before the ledger heard of it.
                begun.push((claim.partition.clone(), log));
            }
            if let Found::LogAhead { from, to } = found(claim.next_offset, log) {
                behind.push(Span { partition: claim.partition.clone(), start: from, end: to, position: None });
                claim.next_offset = Some(to);
            }
        }
        self.fence(claims).await?;
        failpoint::hit("claim.after_history_fence");
        if !begun.is_empty() {
            self.owner.begin(&begun).await?;
        }
        if !behind.is_empty() {
            self.owner.advance(&behind).await?;
        }
        self.owner.drop_provisional(claims).await
    }

    /// Brings a table of an older build to this one's format. Another process that commits at the same time makes it fail, and be
    /// tried again.
    async fn upgrade(&mut self) -> Result<(), SinkError> {
        let lane = self.owner.lane().to_owned();
        let rows = {
            let client = self.owner.database().get().await?;
            Ledger::rows(&**client).await?
        };
        let mut from = BTreeMap::new();
        for LedgerRow { partition, .. } in rows.into_iter().filter(|row| row.lane == lane) {
            let next = self.table().await?.transaction(&transaction_id(&lane, &partition)).await.map_err(retry)?;
            if let Some(next) = next.filter(|_| *partition.topic != *EVENT_STORE_TOPIC) {
                from.insert(partition_id(&partition.source, &partition.topic, partition.number.into()), next);
            }
        }
        failpoint::hit("history.before_upgrade");
        self.table().await?.upgrade(&from).await.map_err(retry)?;
        failpoint::hit("history.after_upgrade");
        tracing::info!("the history table has the format of this build now");
        Ok(())
    }

    /// Refuses an event store that does not hold the last event that history holds.
    async fn check_past(&mut self, partition: &Partition, below: i64) -> Result<(), SinkError> {
        if *partition.topic != *EVENT_STORE_TOPIC {
            return Ok(());
        }
        let store = EventStore::new(self.owner.database().clone());
        let Some((offset, id)) = past::last_event(self.table().await?, partition, below).await.map_err(retry)? else {
            return Ok(());
        };
        let stored = store.event_id_at(Position(offset)).await?;
        if stored.is_some_and(|stored| stored.to_string() == id) {
            return Ok(());
        }
        tracing::error!(offset, history = id, event_store = ?stored, "two pasts");
        // No ids: this is shown to each client that asks whether we are ready.
        let found = if stored.is_some() { "another event" } else { "nothing" };
        Err(SinkError::Fatal(
            format!(
                "the event store holds {found} at position {offset}, where history has its last event: Postgres was restored \
                 to an older copy than history. Restore the newer Postgres; or, if that past is lost for good, move the \
                 history table aside and remove this lane's row from the ledger, to build history again from what is left"
            )
            .into(),
        ))
    }

    /// Writes our epochs into the log, those of all partitions in one commit.
    async fn fence(&mut self, claims: &[Claim]) -> Result<(), SinkError> {
        let lane = self.owner.lane().to_owned();
        let table = self.table().await?;
        let mut fences = Vec::with_capacity(claims.len());
        for claim in owner::taken(claims) {
            let id = epoch_id(&lane, &claim.partition);
            if table.transaction(&id).await.map_err(retry)?.is_some_and(|epoch| epoch > claim.epoch) {
                return Err(SinkError::Fenced { partitions: vec![claim.partition.clone()] });
            }
            fences.push(Transaction::new(&id, claim.epoch));
        }
        if fences.is_empty() {
            return Ok(());
        }
        let version = commit(table, &[], fences).await.map_err(retry)?;
        table.sync(&[], version).await.map_err(retry)
    }

    /// Undecodable records that someone asked to try again, now perhaps with a contract that knows them.
    async fn redrive(&mut self) -> Result<(), SinkError> {
        for Redrive { letter, partition, offset, batch } in self.owner.redrives().await? {
            // Its own transaction makes it exactly once: if it is there, only the dead letter was left to remove.
            let id = redrive_id(self.owner.lane(), &partition, offset);
            self.table().await?.refresh().await.map_err(retry)?;
            self.check_epoch(&partition).await?;
            let table = self.table().await?;
            if table.transaction(&id).await.map_err(retry)?.is_none() {
                let (events, others) = owner::shared_without(&batch, &Places::new());
                let (table, began) = (self.table().await?, Instant::now());
                let adds = write(table, &events, &others).await.map_err(retry)?;
                if began.elapsed() > UNCOMMITTED_MAX {
                    return Err(SinkError::Retry("a file for a redriven record is old: it is written again".into()));
                }
                let version = commit(table, &adds, vec![Transaction::new(&id, 1)]).await.map_err(retry)?;
                table.sync(&adds, version).await.map_err(retry)?;
                failpoint::hit("history.after_redrive_commit");
            }
            self.owner.resolve(&letter).await?;
        }
        Ok(())
    }

    /// Beside the commits, so that a slow checkpoint is never part of one.
    async fn checkpoint(&mut self) -> Result<(), SinkError> {
        let checkpointed = self.checkpointed;
        let table = self.table().await?;
        let version = table.delta().version().unwrap_or(0);
        if version < checkpointed + CHECKPOINT_EVERY {
            return Ok(());
        }
        const ACTION: &str = "writing a checkpoint of the history log";
        checkpoints::create_checkpoint(table.delta(), None).await.map_err(|e| retry(during(ACTION)(e)))?;
        // A torn checkpoint must not outlive the log that it stands for.
        table.sync_everything().await.map_err(retry)?;
        checkpoints::cleanup_metadata(table.delta(), None).await.map_err(|e| retry(during(ACTION)(e)))?;
        self.checkpointed = version;
        Ok(())
    }
}

/// What to do about a table that holds less than the ledger says.
fn lost(partition: &Partition, ledger: i64, history: Option<i64>) -> String {
    format!(
        "the ledger says that history holds everything below {ledger} of {partition}, but its log says {}: the table was \
         restored or deleted behind weir's back; restore the newer copy, or have `weir rebuild history` make it again",
        history.map_or_else(|| "nothing".to_owned(), |h| h.to_string())
    )
}

fn retry(error: HistoryError) -> SinkError {
    SinkError::Retry(error.into())
}

/// Commits on exactly the snapshot at hand. After an error the outcome is unknown: read the log again.
pub(crate) async fn commit(
    table: &mut HistoryTable,
    adds: &[Add],
    transactions: Vec<Transaction>,
) -> Result<u64, HistoryError> {
    let operation = DeltaOperation::Write {
        mode: SaveMode::Append,
        partition_by: Some(PARTITION_COLUMNS.map(str::to_owned).to_vec()),
        predicate: None,
    };
    let actions = adds.iter().cloned().map(Action::Add).chain(transactions.into_iter().map(Action::Txn)).collect();
    table.commit_actions(actions, operation).await
}

#[async_trait]
impl Sink for HistorySink {
    async fn claim(&mut self, partitions: &[Partition]) -> Result<Vec<Claim>, SinkError> {
        self.written = None;
        if let Some(reason) = self.owner.refusal(LaneKind::History).await? {
            return Ok(owner::refused(partitions, &reason));
        }
        let mut claims = self.owner.claim(partitions).await?;
        self.take_over(&mut claims).await?;
        self.owner.take(&claims);
        Ok(claims)
    }

    /// Into the log first, which the ledger is never ahead of.
    async fn begin(&mut self, positions: &[(Partition, i64)]) -> Result<(), SinkError> {
        let lane = self.owner.lane().to_owned();
        let of_topics = positions.iter().filter(|(partition, _)| *partition.topic != *EVENT_STORE_TOPIC);
        let begins: Vec<Transaction> =
            of_topics.map(|(partition, start)| Transaction::new(transaction_id(&lane, partition), *start)).collect();
        if begins.is_empty() {
            return Ok(());
        }
        for (partition, _) in positions {
            self.check_epoch(partition).await?;
        }
        let table = self.table().await?;
        let version = commit(table, &[], begins).await.map_err(retry)?;
        table.sync(&[], version).await.map_err(retry)?;
        self.owner.begin(positions).await
    }

    fn release(&mut self, partitions: &[Partition]) {
        self.owner.release(partitions);
    }

    async fn commit(&mut self, batch: &Batch) -> Result<(), SinkError> {
        let spans = batch.spans();
        let partitions: Vec<&Partition> = spans.iter().map(|span| &span.partition).collect();
        // 1.
        self.owner.expect(&spans).await?;
        let repeats = self.owner.keep(batch, &partitions).await?;
        // 2.
        let adds = self.write_files(batch, &spans, &repeats).await?;
        // 3.
        match self.standing(&spans).await? {
            Standing::AtStart => {
                // 4.
                failpoint::hit("history.before_delta_commit");
                self.refuse_old_files()?;
                let lane = self.owner.lane();
                let moved = spans.iter().map(|span| Transaction::new(transaction_id(lane, &span.partition), span.end));
                let moved = moved.collect();
                let table = self.table().await?;
                let version = commit(table, &adds, moved).await.map_err(retry)?;
                failpoint::hit("history.after_delta_commit");
                // 5.
                table.sync(&adds, version).await.map_err(retry)?;
            }
            // A part of this may have been in the page cache only when the earlier try ended.
            Standing::AtEnd => self.table().await?.sync_everything().await.map_err(retry)?,
            Standing::Elsewhere(partitions) => return Err(SinkError::Fenced { partitions }),
        }
        failpoint::hit("history.after_sync");
        // 6.
        self.owner.advance(&spans).await?;
        failpoint::hit("history.after_ledger");
        self.written = None;
        Ok(())
    }

    async fn tick(&mut self) -> Result<(), SinkError> {
        self.redrive().await?;
        self.owner.maintain().await?;
        self.checkpoint().await
    }
}
