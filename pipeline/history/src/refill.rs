//! Rows of history written again from their sources: those that are missing, or all of them.
//!
//! 1. [`HistoryTable::begin_refill`] drops from the log the files that are not in the store any more, and commits the run's number: a run that
//!    stood still while another took its place finds that number changed, and commits nothing more;
//! 2. [`Refill`] takes rows and writes files, which no reader sees yet; each row is hashed as it is written;
//! 3. [`HistoryTable::commit_refill`] reads the files back, whose rows must be those that were hashed, syncs them, and commits: new files in and,
//!    where everything is replaced, all files of the snapshot out that the run began with.
//!
//! A live lane only adds rows behind the offsets that its transactions had in the snapshot, so it goes on meanwhile. A crash before 3 leaves files
//! that no commit names, which the vacuum removes once they are old enough.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use deltalake_core::datafusion::prelude::{Expr, col, lit};
use deltalake_core::kernel::{Action, Add, Remove, Transaction};
use deltalake_core::logstore::object_store::path::Path as StorePath;
use deltalake_core::logstore::object_store::{Error as StoreError, ObjectStoreExt};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::writer::{DeltaWriter, RecordBatchWriter, WriteMode};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use roaring::RoaringTreemap;
use weir_engine::{Located, Partition, failpoint};
use weir_model::{Clock, OtherEvent, SystemClock};

use crate::compact::{SharedHash, aligned, file_schema, rows_of};
use crate::past;
use crate::places::{Place, integers, places};
use crate::row_hash::RowHash;
use crate::rows;
use crate::scan::Filter;
use crate::schema::{PARTITION_COLUMNS, columns};
use crate::table::{HistoryError, HistoryTable, during};
use crate::write::{properties, values};

const ACTION: &str = "filling history";

/// The transaction whose version is the number of the last run.
const RUN_ID: &str = "weir/refill";

/// The transaction whose version is the number of the last commit of a run: in a snapshot it says that a commit succeeded whose answer was lost.
const COMMIT_ID: &str = "weir/refill/commit";

/// Commits of a run at most.
const COMMITS_MAX: i64 = 1_000_000;

/// Bytes of events that are written as one set of files.
const BYTES_MAX: usize = 32 << 20;

/// Rows made into columns at once.
const CHUNK_ROWS: usize = 8192;

/// How often a commit is tried again after others' commits, and the wait between.
const TRIES_MAX: usize = 50;
const TRY_AFTER: Duration = Duration::from_millis(50);

/// Files that are looked for at a time: a store elsewhere takes its time to answer.
pub(crate) const LOOKS_MAX: usize = 16;

/// Files that were written so long ago and not committed are given up: half of what the vacuum leaves them.
const UNCOMMITTED_MAX: Duration = Duration::from_secs(43_200);

/// What history holds of a range.
#[derive(Debug, Default)]
pub struct Held {
    offsets: HashMap<Partition, RoaringTreemap>,
    positions: RoaringTreemap,
}

impl Held {
    /// Whether there is a row of this place.
    #[must_use]
    pub fn has(&self, partition: &Partition, offset: i64) -> bool {
        let offset = u64::try_from(offset).ok();
        offset.zip(self.offsets.get(partition)).is_some_and(|(offset, held)| held.contains(offset))
    }

    /// Whether there is a row of this position in the event store, under whatever place.
    #[must_use]
    pub fn has_position(&self, position: i64) -> bool {
        u64::try_from(position).is_ok_and(|position| self.positions.contains(position))
    }

    fn add(&mut self, batch: &RecordBatch) -> Result<(), HistoryError> {
        let positions = integers(batch, "position").map_err(during(ACTION))?;
        let positions = positions.as_primitive::<Int64Type>();
        for (row, Place { partition, offset }) in places(batch).map_err(during(ACTION))?.into_iter().enumerate() {
            self.offsets.entry(partition).or_default().extend(u64::try_from(offset).ok());
            if positions.is_valid(row) {
                self.positions.extend(u64::try_from(positions.value(row)).ok());
            }
        }
        Ok(())
    }
}

/// A run that fills history.
pub struct Refill {
    run: i64,
    /// The files that are replaced: none where only missing rows are added.
    replaced: Vec<Remove>,
    /// Its commits so far.
    commits: i64,
    /// When the oldest file was written that is not committed.
    written: Option<Instant>,
    events: Vec<Located>,
    others: Vec<Located<OtherEvent>>,
    bytes: usize,
    adds: Vec<Add>,
    hash: RowHash,
}

/// What a commit of a refill brought in.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Refilled {
    /// Rows.
    pub rows: u64,
    /// Files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl HistoryTable {
    /// Begins a run. `replaces_all`: its commit takes everything out that is in the snapshot at hand. Gives the paths of the files that were gone.
    pub async fn begin_refill(&mut self, replaces_all: bool) -> Result<(Refill, Vec<String>), HistoryError> {
        if self.is_older()? {
            return Err(during(ACTION)(
                "the table is of an older build: start the lane history once, which brings it to this one's format",
            ));
        }
        let mut tries = 0;
        loop {
            self.refresh().await?;
            let run = self.transaction(RUN_ID).await?.unwrap_or(0) + 1;
            let lost = self.lost_files().await?;
            let mut actions = vec![Action::Txn(Transaction::new(RUN_ID, run))];
            actions.extend(removals(&lost));
            let paths = lost.into_iter().map(|file| file.path).collect();
            match self.commit_actions(actions, append(SaveMode::Append)).await {
                Ok(version) => {
                    self.sync(&[], version).await?;
                    let replaced = if replaces_all { self.files()? } else { Vec::new() };
                    return Ok((Refill::new(run, replaced)?, paths));
                }
                Err(error) if tries == TRIES_MAX => return Err(error),
                Err(_) => {
                    tries += 1;
                    tokio::time::sleep(TRY_AFTER).await;
                }
            }
        }
    }

    /// Every file of the snapshot, as what takes it out.
    fn files(&self) -> Result<Vec<Remove>, HistoryError> {
        let snapshot = self.delta().snapshot().map_err(during(ACTION))?;
        Ok(snapshot.log_data().into_iter().map(|view| view.remove_action(true)).collect::<Vec<_>>())
    }

    /// Bytes of all files in the snapshot at hand.
    pub fn bytes(&self) -> Result<u64, HistoryError> {
        let snapshot = self.delta().snapshot().map_err(during(ACTION))?;
        Ok(snapshot.log_data().into_iter().map(|view| u64::try_from(view.size()).unwrap_or(0)).sum())
    }

    /// Files that the log names and the store does not have.
    pub async fn lost_files(&self) -> Result<Vec<Remove>, HistoryError> {
        let store = self.delta().log_store().object_store(None);
        let snapshot = self.delta().snapshot().map_err(during(ACTION))?;
        let named: Vec<(StorePath, Remove)> =
            snapshot.log_data().into_iter().map(|view| (view.object_store_path(), view.remove_action(true))).collect();
        let looks = named.into_iter().map(|(path, file)| {
            let store = Arc::clone(&store);
            async move {
                match store.head(&path).await {
                    Ok(_) => Ok(None),
                    Err(StoreError::NotFound { .. }) => Ok(Some(file)),
                    Err(error) => Err(during(ACTION)(error)),
                }
            }
        });
        let found: Vec<Option<Remove>> = futures::stream::iter(looks).buffered(LOOKS_MAX).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Offset and id of the last event of a partition below an offset.
    pub async fn last_event(&self, partition: &Partition, below: i64) -> Result<Option<(i64, String)>, HistoryError> {
        past::last_event(self, partition, below).await
    }

    /// Paths of files that are there and cannot be opened, or are not as long as the log says.
    pub async fn unreadable_files(&self) -> Result<Vec<String>, HistoryError> {
        past::unreadable_files(self).await
    }

    /// The same as `last_event` where files of it may be damaged, and the paths of those that cannot be read.
    pub async fn last_readable_event(
        &self,
        partition: &Partition,
        below: i64,
    ) -> Result<(Option<(i64, String)>, Vec<String>), HistoryError> {
        past::last_readable_event(self, partition, below).await
    }

    /// What it holds of a range.
    pub async fn held(&self, filter: &Filter) -> Result<Held, HistoryError> {
        let rows = self.frame(filter).await?;
        let rows =
            rows.select_columns(&["source", "topic", "partition", "offset", "position"]).map_err(during(ACTION))?;
        let mut rows = rows.execute_stream().await.map_err(during(ACTION))?;
        let mut held = Held::default();
        while let Some(batch) = rows.next().await {
            held.add(&batch.map_err(during(ACTION))?)?;
        }
        Ok(held)
    }

    /// Where the events of these positions of the event store are, as far as history has them.
    pub async fn places_of(&self, from: i64, below: i64) -> Result<HashMap<i64, (Partition, i64)>, HistoryError> {
        let rows = self.frame(&Filter::default()).await?;
        let within = col("position").gt_eq(lit(from)).and(col("position").lt(lit(below)));
        let rows = rows
            .filter(within)
            .and_then(|rows| rows.select_columns(&["source", "topic", "partition", "offset", "position"]))
            .map_err(during(ACTION))?;
        let mut found = HashMap::new();
        for batch in rows.collect().await.map_err(during(ACTION))? {
            let positions = integers(&batch, "position").map_err(during(ACTION))?;
            let positions = positions.as_primitive::<Int64Type>();
            found.extend(
                positions.values().iter().copied().zip(
                    places(&batch).map_err(during(ACTION))?.into_iter().map(|place| (place.partition, place.offset)),
                ),
            );
        }
        Ok(found)
    }

    /// Rows of other services, whole, that lie below these offsets.
    pub async fn foreign_rows(
        &self,
        below: &BTreeMap<Partition, i64>,
    ) -> Result<BoxStream<'static, Result<RecordBatch, HistoryError>>, HistoryError> {
        let of_partition = |(partition, below): (&Partition, &i64)| {
            col("source")
                .eq(lit(&*partition.source))
                .and(col("topic").eq(lit(&*partition.topic)))
                .and(col("partition").eq(lit(i64::from(partition.number))))
                .and(col("offset").lt(lit(*below)))
        };
        let Some(gone) = below.iter().map(of_partition).reduce(Expr::or) else {
            return Ok(futures::stream::empty().boxed());
        };
        let rows = self.frame(&Filter::default()).await?.filter(gone.and(col("position").is_null()));
        let rows = rows.map_err(during(ACTION))?;
        let there: Vec<String> = rows.schema().fields().iter().map(|field| field.name().clone()).collect();
        let names: Vec<&str> =
            columns().map(|(name, ..)| name).filter(|name| there.iter().any(|t| t == name)).collect();
        let stream =
            rows.select_columns(&names).map_err(during(ACTION))?.execute_stream().await.map_err(during(ACTION))?;
        let schema = crate::schema::arrow_schema();
        let whole = move |batch: RecordBatch| aligned(&batch, &Arc::clone(&schema)).map_err(during(ACTION));
        Ok(stream.map(move |batch| batch.map_err(during(ACTION)).and_then(&whole)).boxed())
    }

    /// Step 3. `transactions` go with it: how far each partition goes now, where the log said less.
    pub async fn commit_refill(
        &mut self,
        refill: &mut Refill,
        transactions: &[(String, i64)],
    ) -> Result<Refilled, HistoryError> {
        refill.flush(self).await?;
        let (adds, removes) = (std::mem::take(&mut refill.adds), std::mem::take(&mut refill.replaced));
        if adds.is_empty() && removes.is_empty() && transactions.is_empty() {
            return Ok(Refilled::default());
        }
        failpoint::hit("refill.after_files");
        let rows = self.read_back(refill, &adds).await?;
        self.sync_files(&adds).await?;
        let mode = if removes.is_empty() { SaveMode::Append } else { SaveMode::Overwrite };
        refill.commits += 1;
        let number = refill.run * COMMITS_MAX + refill.commits;
        let transactions = transactions.iter().map(|(id, version)| Action::Txn(Transaction::new(id, *version)));
        let transactions = transactions.chain([Action::Txn(Transaction::new(COMMIT_ID, number))]);
        let adding = adds.iter().cloned().map(Action::Add);
        let actions: Vec<Action> = removals(&removes).chain(adding).chain(transactions).collect();
        self.commit_tries(refill, number, &removes, actions, mode).await?;
        refill.written = None;
        failpoint::hit("refill.after_commit");
        self.sync_everything().await?;
        let bytes = adds.iter().map(|add| u64::try_from(add.size).unwrap_or(0)).sum();
        Ok(Refilled { rows, files: adds.len(), bytes })
    }

    /// Count of the rows in new files, which must be what was written.
    async fn read_back(&self, refill: &mut Refill, adds: &[Add]) -> Result<u64, HistoryError> {
        let read = SharedHash::default();
        let paths: Vec<StorePath> = adds.iter().map(|add| StorePath::from(add.path.as_str())).collect();
        let mut back = rows_of(self.delta().log_store().object_store(None), paths, read.clone());
        while back.try_next().await.map_err(during(ACTION))?.is_some() {}
        let read = *read.lock().unwrap_or_else(PoisonError::into_inner);
        let written = std::mem::take(&mut refill.hash);
        if read == written {
            return Ok(read.count());
        }
        Err(during(ACTION)(format!(
            "{} rows were written and {} others read back; nothing was changed",
            written.count(),
            read.count()
        )))
    }

    async fn commit_tries(
        &mut self,
        refill: &Refill,
        number: i64,
        removes: &[Remove],
        actions: Vec<Action>,
        mode: SaveMode,
    ) -> Result<(), HistoryError> {
        let mut failed = None;
        for _ in 0..TRIES_MAX {
            self.refresh().await?;
            if self.transaction(RUN_ID).await? != Some(refill.run) {
                return Err(during(ACTION)("another run has taken the place of this one; it commits nothing more"));
            }
            // A commit whose answer was lost.
            if self.transaction(COMMIT_ID).await? == Some(number) {
                return Ok(());
            }
            let active: HashSet<String> = self.files()?.into_iter().map(|file| file.path).collect();
            if !removes.iter().all(|file| active.contains(&file.path)) {
                return Err(during(ACTION)("files were compacted meanwhile; run it again"));
            }
            if refill.written.is_some_and(|at| at.elapsed() > UNCOMMITTED_MAX) {
                return Err(during(ACTION)("its files are so old that they may be removed; run it again"));
            }
            failpoint::hit("refill.before_commit");
            match self.commit_actions(actions.clone(), append(mode)).await {
                Ok(_) => return Ok(()),
                Err(error) => failed = Some(error),
            }
            tokio::time::sleep(TRY_AFTER).await;
        }
        failed.map_or(Ok(()), Err)
    }
}

fn append(mode: SaveMode) -> DeltaOperation {
    DeltaOperation::Write { mode, partition_by: Some(PARTITION_COLUMNS.map(str::to_owned).to_vec()), predicate: None }
}

fn removals(files: &[Remove]) -> impl Iterator<Item = Action> {
    let now = SystemClock.now().as_millis();
    files.iter().map(move |file| Action::Remove(Remove { deletion_timestamp: Some(now), ..file.clone() }))
}

impl Refill {
    fn new(run: i64, replaced: Vec<Remove>) -> Result<Self, HistoryError> {
        Ok(Self {
            run,
            replaced,
            commits: 0,
            written: None,
            events: Vec::new(),
            others: Vec::new(),
            bytes: 0,
            adds: Vec::new(),
            hash: RowHash::default(),
        })
    }

    /// Files that its commit takes out.
    #[must_use]
    pub fn replaced(&self) -> usize {
        self.replaced.len()
    }

    /// Whether so many rows wait that they are to be written.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.bytes >= BYTES_MAX
    }

    /// Takes an event of `bytes` bytes.
    pub fn push(&mut self, event: Located, bytes: usize) {
        self.bytes += bytes;
        self.events.push(event);
    }

    /// Takes an event of a type that this build does not know.
    pub fn push_other(&mut self, event: Located<OtherEvent>, bytes: usize) {
        self.bytes += bytes;
        self.others.push(event);
    }

    /// Writes rows that are whole: the columns of [`crate::schema`].
    pub async fn push_rows(&mut self, table: &HistoryTable, batch: RecordBatch) -> Result<(), HistoryError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.hash.add(&aligned(&batch, &file_schema()).map_err(during(ACTION))?).map_err(during(ACTION))?;
        let mut writer = writer(table)?;
        writer.write(batch).await.map_err(during(ACTION))?;
        self.adds.extend(writer.flush().await.map_err(during(ACTION))?);
        self.written.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Writes what waits, one partition of the table after the other, and by time within each.
    pub async fn flush(&mut self, table: &HistoryTable) -> Result<(), HistoryError> {
        self.bytes = 0;
        let (mut events, others) = (std::mem::take(&mut self.events), std::mem::take(&mut self.others));
        if events.is_empty() && others.is_empty() {
            return Ok(());
        }
        let mut writer = writer(table)?;
        let place = |l: &Located| (l.event.event_type, l.event.timestamp.month());
        events.sort_by_key(|located| (place(located), located.event.timestamp, located.record.offset));
        for part in events.chunk_by(|a, b| place(a) == place(b)) {
            for chunk in part.chunks(CHUNK_ROWS) {
                let batch = rows::to_batch(chunk.iter()).map_err(during(ACTION))?;
                self.hash.add(&aligned(&batch, &file_schema()).map_err(during(ACTION))?).map_err(during(ACTION))?;
                let of = values(place(&part[0]));
                writer.write_partition(batch, &of, WriteMode::Default).await.map_err(during(ACTION))?;
            }
        }
        if !others.is_empty() {
            let batch = rows::others_to_batch(others.iter()).map_err(during(ACTION))?;
            self.hash.add(&aligned(&batch, &file_schema()).map_err(during(ACTION))?).map_err(during(ACTION))?;
            writer.write(batch).await.map_err(during(ACTION))?;
        }
        self.adds.extend(writer.flush().await.map_err(during(ACTION))?);
        self.written.get_or_insert_with(Instant::now);
        Ok(())
    }
}

fn writer(table: &HistoryTable) -> Result<RecordBatchWriter, HistoryError> {
    Ok(RecordBatchWriter::for_table(table.delta()).map_err(during(ACTION))?.with_writer_properties(properties()))
}
