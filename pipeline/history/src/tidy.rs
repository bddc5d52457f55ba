//! What no reader needs any more is removed: files that the table named once or never, and old commits of the log.

use std::time::Duration;

use chrono::TimeDelta;
use deltalake_core::checkpoints;
use deltalake_core::kernel::transaction::CommitProperties;
use deltalake_core::operations::vacuum::VacuumMode;

use crate::table::{HistoryError, HistoryTable, during};

impl HistoryTable {
    /// Removes files that have not been part of the table for `retention`, or that no commit named for so long; writes a checkpoint, and drops
    /// commits before it that are older than the log's own retention. Gives how many files are gone.
    pub async fn tidy(&mut self, retention: Duration) -> Result<usize, HistoryError> {
        const ACTION: &str = "removing old files of history";
        self.refresh().await?;
        let retention = TimeDelta::from_std(retention).map_err(during(ACTION))?;
        let properties =
            CommitProperties::default().with_create_checkpoint(false).with_cleanup_expired_logs(Some(false));
        let vacuum = self
            .delta()
            .clone()
            .vacuum()
            .with_retention_period(retention)
            .with_enforce_retention_duration(false)
            .with_mode(VacuumMode::Full)
            .with_commit_properties(properties);
        let (_, removed) = vacuum.await.map_err(during(ACTION))?;
        self.refresh().await?;
        checkpoints::create_checkpoint(self.delta(), None)
            .await
            .map_err(during("writing a checkpoint of the history log"))?;
        // A torn checkpoint must not outlive the log that it stands for.
        self.sync_everything().await?;
        checkpoints::cleanup_metadata(self.delta(), None)
            .await
            .map_err(during("dropping old commits of the history log"))?;
        Ok(removed.files_deleted.len())
    }
}
