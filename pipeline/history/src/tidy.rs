//! What no reader needs any more is removed: files that the table named once or never, and old commits of the log.

use std::time::Duration;

use chrono::TimeDelta;
use deltalake_core::checkpoints;
use deltalake_core::kernel::transaction::CommitProperties;
use deltalake_core::operations::vacuum::VacuumMode;

use crate::table::{HistoryError, HistoryTable, during};

/// Files that no commit names are kept for so long at least: a writer that stood still may be about to name them. It does so only within
/// [`UNCOMMITTED_MAX`] of writing them, which leaves the vacuum's plan, made before it deletes, no such file.
const ORPHANS_KEPT: Duration = Duration::from_secs(86_400);

/// Files that were written so long ago and not committed are given up, and written again.
pub(crate) const UNCOMMITTED_MAX: Duration = Duration::from_secs(3600);

impl HistoryTable {
    /// Removes files that have not been part of the table for `retention`, and those that no commit named for a day or longer; writes a checkpoint, and drops
    /// commits before it that are older than the log's own retention. Gives how many files are gone.
    pub async fn tidy(&mut self, retention: Duration) -> Result<usize, HistoryError> {
        const ACTION: &str = "removing old files of history";
        self.refresh().await?;
        let mut gone = 0;
        for (mode, retention) in [(VacuumMode::Lite, retention), (VacuumMode::Full, retention.max(ORPHANS_KEPT))] {
            let properties =
                CommitProperties::default().with_create_checkpoint(false).with_cleanup_expired_logs(Some(false));
            let vacuum = self
                .delta()
                .clone()
                .vacuum()
                .with_retention_period(TimeDelta::from_std(retention).map_err(during(ACTION))?)
                .with_enforce_retention_duration(false)
                .with_mode(mode)
                .with_commit_properties(properties);
            let (_, removed) = vacuum.await.map_err(during(ACTION))?;
            gone += removed.files_deleted.len();
            self.refresh().await?;
        }
        checkpoints::create_checkpoint(self.delta(), None)
            .await
            .map_err(during("writing a checkpoint of the history log"))?;
        // A torn checkpoint must not outlive the log that it stands for.
        self.sync_everything().await?;
        checkpoints::cleanup_metadata(self.delta(), None)
            .await
            .map_err(during("dropping old commits of the history log"))?;
        Ok(gone)
    }
}
