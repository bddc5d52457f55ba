//! Small files of a partition of the table made into large ones, sorted by time, beside processes that write and read.
//!
//! 1. choose, in the snapshot at hand, groups of small files of one partition;
//! 2. read a group's files, hash each row, sort, and write new files, which no reader sees yet;
//! 3. read the new files back: count and hash of their rows must be those of 2;
//! 4. sync the new files;
//! 5. read the log again: each of the old files must be part of the table still, and the new ones must not be old;
//! 6. commit on exactly that snapshot: the old files out, the new ones in, no data changed. A commit in between is a conflict, which goes back to 5.
//!
//! So a compactor that stood still finds at 5 or 6 that another did its work, and a live writer's commit is never undone: it only adds. A crash
//! before 6 leaves files that no commit names, which the vacuum removes once they are old enough.

use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arrow::array::{ArrayRef, RecordBatch, StringArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use buoyant_kernel::expressions::Scalar;
use buoyant_kernel::table_properties::DataSkippingNumIndexedCols;
use deltalake_core::datafile::DataFileReader;
use deltalake_core::datafile::reader::ParquetFileReader;
use deltalake_core::datafile::writer::{DeltaWriter, WriterConfig};
use deltalake_core::datafusion::catalog::streaming::StreamingTable;
use deltalake_core::datafusion::error::DataFusionError;
use deltalake_core::datafusion::execution::runtime_env::RuntimeEnvBuilder;
use deltalake_core::datafusion::execution::{SendableRecordBatchStream, TaskContext};
use deltalake_core::datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use deltalake_core::datafusion::physical_plan::streaming::PartitionStream;
use deltalake_core::datafusion::prelude::{SessionConfig, SessionContext, col};
use deltalake_core::kernel::{Action, Add, Remove};
use deltalake_core::logstore::ObjectStoreRef;
use deltalake_core::logstore::object_store::ObjectStoreExt;
use deltalake_core::logstore::object_store::path::Path as StorePath;
use deltalake_core::protocol::DeltaOperation;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use indexmap::IndexMap;
use weir_engine::failpoint;
use weir_model::{Clock, SystemClock};

use crate::row_hash::RowHash;
use crate::schema::{PARTITION_COLUMNS, STATS_COLUMNS, arrow_schema};
use crate::table::{HistoryError, HistoryTable, during};
use crate::tidy::UNCOMMITTED_MAX;
use crate::write::properties;

const ACTION: &str = "compacting history";

/// Rows within a file go by time, and where times are equal by where they were read.
const ORDER: [&str; 5] = ["timestamp", "source", "topic", "partition", "offset"];

/// Rows that are sorted together.
const ROWS: usize = 8192;

/// How often a commit is tried again after others' commits.
const TRIES_MAX: usize = 50;

/// What a compaction may use, and what it makes.
#[derive(Debug, Clone)]
pub struct Compaction {
    /// Bytes of a new file at most, nearly.
    pub target_bytes: u64,
    /// Memory of the sort, in bytes; what does not fit goes to `spill`.
    pub memory_bytes: usize,
    /// A directory for what does not fit into memory.
    pub spill: PathBuf,
}

/// A file of the table.
#[derive(Debug, Clone)]
struct SmallFile {
    path: StorePath,
    bytes: u64,
    remove: Remove,
}

/// Small files of one partition of the table that become one file, or a few.
#[derive(Debug, Clone)]
pub struct Group {
    values: BTreeMap<String, String>,
    files: Vec<SmallFile>,
}

impl Group {
    /// The partition, for people: `AssessmentCompleted 2024-03`.
    #[must_use]
    pub fn partition(&self) -> String {
        PARTITION_COLUMNS.iter().filter_map(|name| self.values.get(*name)).cloned().collect::<Vec<_>>().join(" ")
    }

    /// Files.
    #[must_use]
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// Bytes of its files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// What a group became.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// Rows, as many as before.
    pub rows: u64,
    /// Files, and their bytes.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// A group whose new files are written, and named by no commit yet.
#[derive(Debug)]
pub struct Rewritten {
    group: Group,
    adds: Vec<Add>,
    rows: u64,
    at: Instant,
}

impl Rewritten {
    /// What was rewritten.
    #[must_use]
    pub fn group(&self) -> &Group {
        &self.group
    }

    fn paths(&self) -> Vec<StorePath> {
        self.adds.iter().map(|add| StorePath::from(add.path.as_str())).collect()
    }
}

/// What became of a commit.
enum Replaced {
    Yes,
    /// Nothing was tried: no commit names the new files.
    No,
    /// A try whose answer was an error may have succeeded, and others have gone on from there.
    Unknown,
}

/// Groups whose files together are about the target; a file of half of that or more is left as it is, and so is one alone.
fn groups(files: Vec<(BTreeMap<String, String>, SmallFile)>, target_bytes: u64) -> Vec<Group> {
    let mut by_partition: BTreeMap<BTreeMap<String, String>, Vec<SmallFile>> = BTreeMap::new();
    for (values, file) in files {
        if file.bytes < target_bytes.div_ceil(2) {
            by_partition.entry(values).or_default().push(file);
        }
    }
    let mut groups = Vec::new();
    for (values, mut files) in by_partition {
        // In the order in which they were written, as far as that is known: the oldest are next to each other in time.
        files.sort_by(|a, b| a.remove.deletion_timestamp.cmp(&b.remove.deletion_timestamp).then(a.path.cmp(&b.path)));
        let mut open: Vec<SmallFile> = Vec::new();
        for file in files {
            let held: u64 = open.iter().map(|file| file.bytes).sum();
            if held + file.bytes > target_bytes {
                groups.push(Group { values: values.clone(), files: std::mem::take(&mut open) });
            }
            open.push(file);
        }
        groups.push(Group { values, files: open });
    }
    groups.retain(|group| group.files.len() > 1);
    groups
}

/// The columns of a file: without those that name its directories.
pub(crate) fn file_schema() -> SchemaRef {
    let fields = arrow_schema()
        .fields()
        .iter()
        .filter(|field| !PARTITION_COLUMNS.contains(&field.name().as_str()))
        .cloned()
        .collect::<Vec<_>>();
    Arc::new(Schema::new(fields))
}

/// A batch with exactly these columns. Files of before have no `kafka_record`.
pub(crate) fn aligned(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let column = |field: &Arc<arrow::datatypes::Field>| match batch.column_by_name(field.name()) {
        Some(array) => cast(array, field.data_type()),
        None => Ok(new_null_array(field.data_type(), batch.num_rows())),
    };
    RecordBatch::try_new(schema.clone(), schema.fields().iter().map(column).collect::<Result<_, _>>()?)
}

pub(crate) type SharedHash = Arc<Mutex<RowHash>>;

/// The rows of files, each hashed when it is read.
pub(crate) fn rows_of(
    store: ObjectStoreRef,
    paths: Vec<StorePath>,
    hash: SharedHash,
) -> BoxStream<'static, Result<RecordBatch, DataFusionError>> {
    let (reader, schema) = (ParquetFileReader::new(store), file_schema());
    let opened = futures::stream::iter(paths).then(move |path| {
        let reader = reader.clone();
        async move { reader.read_file(path).await }
    });
    let batches = opened.try_flatten().map_err(|error| DataFusionError::External(error.into()));
    let hashed = move |batch: RecordBatch| {
        let batch = aligned(&batch, &schema)?;
        hash.lock().unwrap_or_else(PoisonError::into_inner).add(&batch)?;
        Ok(batch)
    };
    batches.map(move |batch| batch.and_then(&hashed)).boxed()
}

/// What the sort reads, once.
struct Input {
    schema: SchemaRef,
    rows: Mutex<Option<BoxStream<'static, Result<RecordBatch, DataFusionError>>>>,
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("files of history")
    }
}

impl PartitionStream for Input {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let taken = self.rows.lock().unwrap_or_else(PoisonError::into_inner).take();
        let rows = taken.unwrap_or_else(|| futures::stream::empty().boxed());
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), rows))
    }
}

/// Rows in their order, within a bound of memory.
async fn sorted(
    rows: BoxStream<'static, Result<RecordBatch, DataFusionError>>,
    options: &Compaction,
) -> Result<SendableRecordBatchStream, DataFusionError> {
    let runtime =
        RuntimeEnvBuilder::new().with_memory_limit(options.memory_bytes, 1.0).with_temp_file_path(&options.spill);
    let config = SessionConfig::new().with_target_partitions(1).with_batch_size(ROWS);
    let context = SessionContext::new_with_config_rt(config, runtime.build_arc()?);
    let schema = file_schema();
    let input = Input { schema: schema.clone(), rows: Mutex::new(Some(rows)) };
    let table = StreamingTable::try_new(schema, vec![Arc::new(input)])?;
    let by = ORDER.map(|name| col(name).sort(true, false)).to_vec();
    context.read_table(Arc::new(table))?.sort(by)?.execute_stream().await
}

impl HistoryTable {
    /// The groups of small files in the snapshot at hand.
    pub fn groups(&self, target_bytes: u64) -> Result<Vec<Group>, HistoryError> {
        let snapshot = self.delta().snapshot().map_err(during(ACTION))?;
        let mut files = Vec::new();
        for view in snapshot.log_data() {
            // Not ours: rows of it are gone that the file still holds.
            if view.deletion_vector_descriptor().is_some() {
                continue;
            }
            let values =
                view.partition_values_map().into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
            let remove = Remove { deletion_timestamp: Some(view.modification_time()), ..view.remove_action(false) };
            let bytes = u64::try_from(view.size()).unwrap_or(0);
            files.push((values, SmallFile { path: view.object_store_path(), bytes, remove }));
        }
        Ok(groups(files, target_bytes))
    }

    /// What rewrites groups, several at once, while this table commits.
    #[must_use]
    pub fn rewriter(&self, options: Compaction) -> Rewriter {
        Rewriter { store: self.delta().log_store().object_store(None), options }
    }

    /// Puts a group's new files in the place of its old ones; `None` when another process did meanwhile.
    pub async fn put_in_place(&mut self, rewritten: &Rewritten) -> Result<Option<Compacted>, HistoryError> {
        let Rewritten { group, adds, rows, at } = rewritten;
        // 4.
        self.sync_files(adds).await?;
        // 5. and 6.
        let bytes = adds.iter().map(|add| u64::try_from(add.size).unwrap_or(0)).sum();
        match self.replace(group, adds, *at).await? {
            Replaced::Yes => return Ok(Some(Compacted { rows: *rows, files: adds.len(), bytes })),
            Replaced::No => discard(&self.delta().log_store().object_store(None), &rewritten.paths()).await,
            Replaced::Unknown => {}
        }
        Ok(None)
    }

    /// Puts the new files in the place of the old ones, unless those are not part of the table any more.
    async fn replace(&mut self, group: &Group, adds: &[Add], written: Instant) -> Result<Replaced, HistoryError> {
        let operation = DeltaOperation::Optimize { predicate: None, target_size: 0 };
        let now = SystemClock.now().as_millis();
        let removes = group
            .files
            .iter()
            .map(|file| Action::Remove(Remove { deletion_timestamp: Some(now), ..file.remove.clone() }));
        let adds_of = adds.iter().map(|add| Action::Add(Add { data_change: false, ..add.clone() }));
        let actions: Vec<Action> = removes.chain(adds_of).collect();
        let mut failed = None;
        for _ in 0..TRIES_MAX {
            self.refresh().await?;
            let active = self.active()?;
            // A commit whose answer was lost.
            if adds.iter().all(|add| active.contains(add.path.as_str())) {
                failed = None;
                break;
            }
            // A process that stood still for long gives its files up: the vacuum may be about to remove them.
            let are_there = group.files.iter().all(|file| active.contains(file.remove.path.as_str()));
            if !are_there || written.elapsed() > UNCOMMITTED_MAX {
                return Ok(if failed.is_none() { Replaced::No } else { Replaced::Unknown });
            }
            failpoint::hit("compaction.before_commit");
            match self.commit_actions(actions.clone(), operation.clone()).await {
                Ok(_) => {
                    failed = None;
                    break;
                }
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) => Err(error),
            None => {
                failpoint::hit("compaction.after_commit");
                let version = self.delta().version().unwrap_or(0);
                self.sync(adds, version).await?;
                Ok(Replaced::Yes)
            }
        }
    }

    /// The paths of the files in the snapshot at hand.
    fn active(&self) -> Result<HashSet<String>, HistoryError> {
        let snapshot = self.delta().snapshot().map_err(during(ACTION))?;
        Ok(snapshot.log_data().into_iter().map(|view| view.path().into_owned()).collect())
    }
}

/// Writes groups' rows into new files, sorted.
#[derive(Debug, Clone)]
pub struct Rewriter {
    store: ObjectStoreRef,
    options: Compaction,
}

impl Rewriter {
    /// Rewrites one group of [`HistoryTable::groups`], and reads back what was written.
    pub async fn rewrite(self, group: Group) -> Result<Rewritten, HistoryError> {
        // 2.
        let hash = || Arc::new(Mutex::new(RowHash::default()));
        let (read, written) = (hash(), hash());
        let paths = group.files.iter().map(|file| file.path.clone()).collect();
        let adds = self.write_sorted(&group, rows_of(self.store.clone(), paths, read.clone())).await?;
        let rewritten = Rewritten { group, adds, rows: 0, at: Instant::now() };
        failpoint::hit("compaction.after_files");
        // 3.
        let mut back = rows_of(self.store.clone(), rewritten.paths(), written.clone());
        while back.try_next().await.map_err(during(ACTION))?.is_some() {}
        let of = |hash: &SharedHash| *hash.lock().unwrap_or_else(PoisonError::into_inner);
        let (read, written) = (of(&read), of(&written));
        if read != written {
            discard(&self.store, &rewritten.paths()).await;
            return Err(during(ACTION)(format!(
                "{} rows of {} were read and {} others written; nothing was changed",
                read.count(),
                rewritten.group.partition(),
                written.count()
            )));
        }
        Ok(Rewritten { rows: read.count(), ..rewritten })
    }

    async fn write_sorted(
        &self,
        group: &Group,
        rows: BoxStream<'static, Result<RecordBatch, DataFusionError>>,
    ) -> Result<Vec<Add>, HistoryError> {
        let config = WriterConfig::new(
            arrow_schema(),
            PARTITION_COLUMNS.map(str::to_owned).to_vec(),
            Some(properties()),
            NonZeroU64::new(self.options.target_bytes),
            None,
            DataSkippingNumIndexedCols::NumColumns(32),
            Some(STATS_COLUMNS.split(',').map(str::to_owned).collect()),
        );
        let mut writer = DeltaWriter::new(self.store.clone(), config);
        let values: IndexMap<String, Scalar> = PARTITION_COLUMNS
            .iter()
            .map(|name| ((*name).to_owned(), Scalar::String(group.values.get(*name).cloned().unwrap_or_default())))
            .collect();
        let mut sorted = sorted(rows, &self.options).await.map_err(during(ACTION))?;
        loop {
            let written = match sorted.try_next().await {
                Ok(None) => break,
                Ok(Some(batch)) => match whole(&batch, group) {
                    Ok(batch) => writer.write_partition(batch, &values).await.map_err(during(ACTION)),
                    Err(error) => Err(during(ACTION)(error)),
                },
                Err(error) => Err(during(ACTION)(error)),
            };
            if let Err(error) = written {
                drop(writer.abort().await);
                return Err(error);
            }
        }
        writer.close().await.map_err(during(ACTION))
    }
}

/// Removes files that no commit names. What stays is the vacuum's.
async fn discard(store: &ObjectStoreRef, paths: &[StorePath]) {
    for path in paths {
        drop(store.delete(path).await);
    }
}

/// The rows with the columns that name their directory.
fn whole(batch: &RecordBatch, group: &Group) -> Result<RecordBatch, ArrowError> {
    let schema = arrow_schema();
    let column = |name: &str| -> Option<ArrayRef> {
        match group.values.get(name) {
            Some(value) => Some(Arc::new(StringArray::from(vec![value.as_str(); batch.num_rows()]))),
            None => batch.column_by_name(name).cloned(),
        }
    };
    let missing = |name: &str| ArrowError::SchemaError(format!("there is no column {name}"));
    let columns = schema.fields().iter().map(|field| column(field.name()).ok_or_else(|| missing(field.name())));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(schema, columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(month: &str, number: i64, bytes: u64) -> (BTreeMap<String, String>, SmallFile) {
        let path = StorePath::from(format!("{month}/{number}.parquet"));
        let remove = Remove {
            path: path.to_string(),
            data_change: false,
            deletion_timestamp: Some(number),
            extended_file_metadata: None,
            partition_values: None,
            size: None,
            tags: None,
            deletion_vector: None,
            base_row_id: None,
            default_row_commit_version: None,
        };
        (BTreeMap::from([("event_month".to_owned(), month.to_owned())]), SmallFile { path, bytes, remove })
    }

    #[test]
    fn groups_hold_about_the_target_of_one_partition_and_never_one_file() {
        let files = vec![
            file("2024-01", 3, 40),
            file("2024-01", 1, 40),
            file("2024-01", 2, 30),
            file("2024-01", 4, 49),
            file("2024-01", 5, 50),
            file("2024-02", 6, 10),
            file("2024-03", 7, 10),
            file("2024-03", 8, 10),
        ];
        let made: Vec<(String, Vec<String>)> = groups(files, 100)
            .iter()
            .map(|group| (group.partition(), group.files.iter().map(|file| file.path.to_string()).collect()))
            .collect();
        let of = |month: &str, numbers: &[i64]| {
            (month.to_owned(), numbers.iter().map(|n| format!("{month}/{n}.parquet")).collect::<Vec<_>>())
        };
        assert_eq!(made, [of("2024-01", &[1, 2]), of("2024-01", &[3, 4]), of("2024-03", &[7, 8])]);
    }
}
