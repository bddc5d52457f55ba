//! Opening, creating and syncing the Delta table.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake_core::kernel::{Action, Add, MetadataExt, StructField, StructType};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::table::config::TableProperty;
use deltalake_core::{DeltaTable, DeltaTableBuilder, DeltaTableError};
use url::Url;
use weir_engine::{BoxError, Partition};

use crate::kafka_record::Kept;
use crate::schema;

/// A failure of the history table.
#[derive(Debug, thiserror::Error)]
#[error("{action} failed")]
pub struct HistoryError {
    pub(crate) action: &'static str,
    #[source]
    pub(crate) source: BoxError,
}

/// Names the work that failed.
pub(crate) fn during<E: Into<BoxError>>(action: &'static str) -> impl FnOnce(E) -> HistoryError {
    move |e| HistoryError { action, source: e.into() }
}

/// The id of a lane's transactions for a partition; its version is the next offset to apply.
#[must_use]
pub fn transaction_id(lane: &str, partition: &Partition) -> String {
    format!("{lane}/{}/{}/{}", partition.source, partition.topic, partition.number)
}

/// The id of the transaction that fences a partition; its version is the owner's epoch in the ledger.
#[must_use]
pub(crate) fn epoch_id(lane: &str, partition: &Partition) -> String {
    format!("{}/epoch", transaction_id(lane, partition))
}

/// The id of the transaction that brought a redriven record in.
#[must_use]
pub fn redrive_id(lane: &str, partition: &Partition, offset: i64) -> String {
    format!("{}/{offset}", transaction_id(lane, partition))
}

/// Where history lives, and how its object store is reached.
#[derive(Debug, Clone)]
pub struct HistoryRoot {
    /// The directory above the table.
    pub url: Url,
    /// The object store's own options.
    pub options: BTreeMap<String, String>,
}

impl From<Url> for HistoryRoot {
    fn from(url: Url) -> Self {
        Self { url, options: BTreeMap::new() }
    }
}

impl HistoryRoot {
    /// Where the table is.
    pub fn location(&self) -> Result<Url, HistoryError> {
        let mut root = self.url.clone();
        if !root.path().ends_with('/') {
            root.set_path(&format!("{}/", root.path()));
        }
        root.join("events/").map_err(during("reading the history URL"))
    }

    fn builder(&self, action: &'static str) -> Result<DeltaTableBuilder, HistoryError> {
        let options = self.options.clone().into_iter().collect();
        Ok(DeltaTableBuilder::from_url(self.location()?).map_err(during(action))?.with_storage_options(options))
    }
}

/// The table `events` at a URL.
pub struct HistoryTable {
    delta: DeltaTable,
    /// Where its files are, when they are on this machine.
    local: Option<PathBuf>,
    /// Versions of application transactions in the snapshot at hand, as far as someone asked: to find one, all of the log
    /// since its last checkpoint has to be read, and a lane of sixty partitions asks for a hundred and twenty.
    transactions: Mutex<HashMap<String, Option<i64>>>,
}

impl HistoryTable {
    /// Opens the table, or makes an empty one.
    pub async fn open_or_create(root: &HistoryRoot) -> Result<Self, HistoryError> {
        const ACTION: &str = "opening the history table";
        let location = root.location()?;
        let local = (location.scheme() == "file").then(|| location.to_file_path().ok()).flatten();
        if let Some(path) = &local {
            std::fs::create_dir_all(path).map_err(during(ACTION))?;
        }
        let mut delta = root.builder(ACTION)?.build().map_err(during(ACTION))?;
        if delta.verify_deltatable_existence().await.map_err(during(ACTION))? {
            delta.load().await.map_err(during(ACTION))?;
        } else {
            delta = delta
                .create()
                .with_table_name("events")
                .with_comment("Every event, once. Written by Weir; read it with any Delta reader.")
                .with_columns(schema::delta_columns())
                .with_partition_columns(schema::PARTITION_COLUMNS)
                .with_configuration_property(TableProperty::DataSkippingStatsColumns, Some(schema::STATS_COLUMNS))
                .with_configuration([(schema::FORMAT_PROPERTY, Some(schema::FORMAT.to_string()))])
                // That property is our own.
                .with_raise_if_key_not_exists(false)
                .with_save_mode(SaveMode::Ignore)
                .await
                .map_err(during("creating the history table"))?;
        }
        let table = Self { delta, local, transactions: Mutex::default() };
        table.check_format()?;
        table.sync_everything().await?;
        Ok(table)
    }

    /// Opens the table for reading; `None` when there is none.
    pub async fn open(root: &HistoryRoot) -> Result<Option<Self>, HistoryError> {
        const ACTION: &str = "opening the history table";
        let location = root.location()?;
        let local = (location.scheme() == "file").then(|| location.to_file_path().ok()).flatten();
        if local.as_ref().is_some_and(|path| !path.join("_delta_log").is_dir()) {
            return Ok(None);
        }
        match root.builder(ACTION)?.load().await {
            Ok(delta) => {
                let table = Self { delta, local, transactions: Mutex::default() };
                table.check_format()?;
                Ok(Some(table))
            }
            Err(DeltaTableError::NotATable(_)) => Ok(None),
            Err(error) => Err(during(ACTION)(error)),
        }
    }

    /// The table as delta-rs has it.
    #[must_use]
    pub fn delta(&self) -> &DeltaTable {
        &self.delta
    }

    /// What a newer build wrote might mean something else here.
    fn check_format(&self) -> Result<(), HistoryError> {
        const ACTION: &str = "opening the history table";
        let found = self.property(schema::FORMAT_PROPERTY)?.unwrap_or_else(|| "1".to_owned());
        if found.parse::<u32>().is_ok_and(|found| found <= schema::FORMAT) {
            return Ok(());
        }
        Err(during(ACTION)(format!(
            "{} is of format {found}, and this build knows up to {}: a newer weir made it, use that one; nothing was changed",
            self.delta.table_url(),
            schema::FORMAT
        )))
    }

    fn property(&self, name: &str) -> Result<Option<String>, HistoryError> {
        let snapshot = self.delta.snapshot().map_err(during("reading the history table's properties"))?;
        Ok(snapshot.metadata().configuration().get(name).cloned())
    }

    /// Which rows have key and headers of their records.
    pub fn kept(&self) -> Result<Kept, HistoryError> {
        if self.property(schema::FORMAT_PROPERTY)?.is_none_or(|format| format == "1") {
            return Ok(Kept::default());
        }
        let from = self.property(schema::RECORDS_FROM_PROPERTY)?.unwrap_or_else(|| "{}".to_owned());
        Ok(Kept::from(serde_json::from_str(&from).map_err(during("reading the history table's properties"))?))
    }

    /// Whether an older build made it, and no newer one has written since.
    pub(crate) fn is_older(&self) -> Result<bool, HistoryError> {
        let format = self.property(schema::FORMAT_PROPERTY)?;
        Ok(format.is_none_or(|format| format.parse::<u32>().is_ok_and(|format| format < schema::FORMAT)))
    }

    /// Gives a table of an older build the columns and the format of this one, in one commit on the snapshot at hand: processes of the
    /// older build refuse it from then on. `from` says how far each partition goes in that snapshot.
    pub(crate) async fn upgrade(&mut self, from: &BTreeMap<String, i64>) -> Result<(), HistoryError> {
        const ACTION: &str = "bringing the history table to the format of this build";
        let snapshot = self.delta.snapshot().map_err(during(ACTION))?;
        let there: Vec<StructField> = snapshot.schema().fields().cloned().collect();
        let is_new = |field: &StructField| there.iter().all(|other| other.name() != field.name());
        let new: Vec<StructField> = schema::delta_columns().into_iter().filter(is_new).collect();
        let all = StructType::try_new(there.iter().chain(&new).cloned()).map_err(during(ACTION))?;
        let from = serde_json::to_string(from).map_err(during(ACTION))?;
        let metadata = snapshot
            .metadata()
            .clone()
            .with_schema(&all)
            .and_then(|metadata| {
                metadata.add_config_key(schema::FORMAT_PROPERTY.to_owned(), schema::FORMAT.to_string())
            })
            .and_then(|metadata| metadata.add_config_key(schema::RECORDS_FROM_PROPERTY.to_owned(), from))
            .map_err(during(ACTION))?;
        let operation = DeltaOperation::AddColumn { fields: new };
        let version = self.commit_actions(vec![Action::Metadata(metadata)], operation).await?;
        self.sync(&[], version).await
    }

    /// Commits on exactly the snapshot at hand, and reads the log again. After an error the outcome is unknown: read the log again.
    pub(crate) async fn commit_actions(
        &mut self,
        actions: Vec<Action>,
        operation: DeltaOperation,
    ) -> Result<u64, HistoryError> {
        const ACTION: &str = "committing to the history table";
        let snapshot = self.delta.snapshot().map_err(during(ACTION))?;
        // Checkpoints and log cleanup are work of their own.
        let properties = CommitProperties::default()
            .with_max_retries(0)
            .with_create_checkpoint(false)
            .with_cleanup_expired_logs(Some(false));
        let commit = CommitBuilder::from(properties).with_actions(actions);
        let committed = commit.build(Some(snapshot), self.delta.log_store(), operation).await;
        let version = committed.map_err(during(ACTION))?.version();
        self.refresh().await?;
        Ok(version)
    }

    /// Reads what others committed, and what we did.
    pub async fn refresh(&mut self) -> Result<(), HistoryError> {
        const ACTION: &str = "reading the history log";
        let before = self.delta.version();
        self.delta.update_state().await.map_err(during(ACTION))?;
        // A newer build may have begun with it meanwhile.
        self.check_format()?;
        let (Some(before), Some(now)) = (before, self.delta.version()) else {
            self.known().clear();
            return Ok(());
        };
        for version in before + 1..=now {
            let entry = self.delta.log_store().read_commit_entry(version).await.map_err(during(ACTION))?;
            let mut known = self.known();
            match entry {
                Some(entry) => known.extend(transactions_of(&entry).map(|(id, version)| (id, Some(version)))),
                // Cleaned up meanwhile: the next question reads the checkpoint.
                None => known.clear(),
            }
        }
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Option<i64>>> {
        self.transactions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The version of an application transaction in the snapshot at hand.
    pub async fn transaction(&self, id: &str) -> Result<Option<i64>, HistoryError> {
        const ACTION: &str = "reading a history transaction";
        if let Some(known) = self.known().get(id) {
            return Ok(*known);
        }
        let snapshot = self.delta.snapshot().map_err(during(ACTION))?;
        let found = snapshot.transaction_version(self.delta.log_store().as_ref(), id).await.map_err(during(ACTION))?;
        self.known().insert(id.to_owned(), found);
        Ok(found)
    }

    /// Makes files and the directories that name them durable: the object store behind Delta does not.
    pub(crate) async fn sync(&self, adds: &[Add], version: u64) -> Result<(), HistoryError> {
        let Some(root) = &self.local else { return Ok(()) };
        let log = root.join("_delta_log");
        self.sync_paths(adds, vec![log.join(format!("{version:020}.json")), log]).await
    }

    /// Makes files durable that no commit names yet.
    pub(crate) async fn sync_files(&self, adds: &[Add]) -> Result<(), HistoryError> {
        self.sync_paths(adds, Vec::new()).await
    }

    async fn sync_paths(&self, adds: &[Add], mut paths: Vec<PathBuf>) -> Result<(), HistoryError> {
        let Some(root) = &self.local else { return Ok(()) };
        for add in adds {
            let mut path = root.join(&add.path);
            while path.starts_with(root) {
                paths.push(path.clone());
                if !path.pop() {
                    break;
                }
            }
        }
        paths.sort_unstable();
        paths.dedup();
        // Deepest first: a directory entry must not outlive the file it names.
        blocking(move || paths.iter().rev().try_for_each(|path| sync_path(path))).await
    }

    /// Makes everything durable that an earlier owner may have left in the page cache.
    pub(crate) async fn sync_everything(&self) -> Result<(), HistoryError> {
        let Some(root) = self.local.clone() else { return Ok(()) };
        blocking(move || Ok(rustix::fs::syncfs(File::open(root)?)?)).await
    }
}

/// The application transactions of one commit of the log: a JSON action on each line.
fn transactions_of(entry: &[u8]) -> impl Iterator<Item = (String, i64)> {
    #[derive(serde::Deserialize)]
    struct Line {
        txn: Option<Txn>,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Txn {
        app_id: String,
        version: i64,
    }
    let lines = entry.split(|byte| *byte == b'\n');
    lines.filter_map(|line| serde_json::from_slice::<Line>(line).ok()?.txn).map(|txn| (txn.app_id, txn.version))
}

/// A slow disk must hold up this lane only, not the threads that everything runs on.
async fn blocking(work: impl FnOnce() -> std::io::Result<()> + Send + 'static) -> Result<(), HistoryError> {
    const ACTION: &str = "syncing history to disk";
    tokio::task::spawn_blocking(work).await.map_err(during(ACTION))?.map_err(during(ACTION))
}

fn sync_path(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}
