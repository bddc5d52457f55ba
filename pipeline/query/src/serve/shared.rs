//! What all connections share.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use weir_history::HistoryRoot;

use super::logins::Logins;
use super::running::Running;
use super::seen::Seen;
use super::snapshot::Snapshots;

/// How it serves.
#[derive(Debug, Clone)]
pub struct Options {
    /// What is read.
    pub history: HistoryRoot,
    /// Bytes of memory that all queries may take together.
    pub memory_max: usize,
    /// Connections at most, logins under way included.
    pub connections_max: usize,
    /// How long a statement may run, its rows' way to the client included.
    pub statement_max: Duration,
    /// PEM file of the server's certificate, read again when it changes.
    pub certificate: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
}

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) logins: Arc<dyn Logins>,
    pub(crate) snapshots: Snapshots,
    pub(crate) running: Running,
    pub(crate) seen: Seen,
    /// What unknown users' salts are made of, so that they look like those of known ones.
    pub(crate) decoy: [u8; 32],
}

impl Shared {
    /// Whether logins can be looked up and history can be read.
    pub(crate) async fn is_well(&self) -> bool {
        self.logins.login("").await.is_ok() && self.snapshots.refresh().await.is_ok()
    }
}
