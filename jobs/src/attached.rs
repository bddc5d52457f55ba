//! A data directory with its Postgres at hand: what every command works on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use url::Url;
use weir_engine::retry::{Backoff, chain};
use weir_engine::{BoxError, StatusBoard};
use weir_history::HistoryRoot;
use weir_model::SystemClock;
use weir_postgres::{CommandService, Database, DatabaseOptions, ErrorKind, EventStore, GroupCommit, Handover};

use crate::data_dir::DataDir;
use crate::own::OwnLanes;
use crate::server::Server;
use crate::settings::Settings;

/// How long the migration at the start is tried again while Postgres is away.
const SERVER_WAIT: Duration = Duration::from_secs(60);

/// How long after the first try failed tries are logged; later ones would only repeat it.
const FIRST_WORDS: Duration = Duration::from_secs(1);

/// A data directory with its Postgres at hand.
pub(crate) struct Attached {
    pub(crate) dir: DataDir,
    pub(crate) settings: Settings,
    pub(crate) database: Database,
    pub(crate) history: HistoryRoot,
    pub(crate) server: Option<Server>,
    /// From the appender of this process to its lanes.
    pub(crate) handover: Handover,
}

/// Where a command works and with what settings.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) data_dir: PathBuf,
    pub(crate) config: Option<PathBuf>,
    pub(crate) set: Vec<String>,
    /// Lanes of the program's own.
    pub(crate) own: OwnLanes,
}

impl Target {
    /// Opens the data directory and reads the settings.
    pub(crate) fn open(&self) -> Result<(DataDir, Settings), BoxError> {
        let dir = DataDir::open(&self.data_dir)?;
        let settings = Settings::read(dir.path(), self.config.as_deref(), &self.set, &self.own)?;
        dir.share(settings.files.group())?;
        Ok((dir, settings))
    }

    /// Attaches to the running Postgres, or starts it. [`Attached::detach`] stops what no other process uses.
    pub(crate) async fn attach(&self) -> Result<Attached, BoxError> {
        let (dir, settings) = self.open()?;
        Attached::new(dir, settings, Patience::None).await
    }

    /// [`Self::attach`] for what runs until it is told to stop: whatever starts first waits for the other.
    pub(crate) async fn attach_patiently(&self) -> Result<Attached, BoxError> {
        let (dir, settings) = self.open()?;
        Attached::new(dir, settings, Patience::Some).await
    }
}

/// Whether a server that is not there is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    None,
    Some,
}

/// Where history is.
pub(crate) fn history_root(dir: &DataDir, settings: &Settings) -> Result<HistoryRoot, BoxError> {
    let url = match settings.history.url.as_str() {
        "" => dir.history()?,
        url => Url::parse(url)?,
    };
    Ok(HistoryRoot { url, options: settings.history.storage() })
}

impl Attached {
    pub(crate) async fn new(dir: DataDir, settings: Settings, patience: Patience) -> Result<Self, BoxError> {
        let (mut server, url) = if settings.postgres.url.is_empty() {
            let server = Server::start(&dir, &settings.postgres.bin_dir).await?;
            let url = server.owner_url()?;
            (Some(server), url)
        } else {
            (None, settings.postgres.url.clone())
        };
        let database = Database::open(&DatabaseOptions {
            url,
            connections_max: settings.postgres.connections_max,
            statement_timeout: settings.postgres.statement_timeout(),
            lock_timeout: settings.postgres.lock_timeout(),
            session: settings.postgres.session.iter().map(|(name, value)| (name.clone(), value.to_string())).collect(),
        })?;
        migrate(&database, server.as_mut(), patience).await?;
        let history = history_root(&dir, &settings)?;
        Ok(Self { dir, settings, database, history, server, handover: Handover::default() })
    }

    /// The command side, with an appender of its own that says on the board how it is.
    pub(crate) fn commands(&self, board: &StatusBoard, stop: &CancellationToken) -> CommandService {
        let (limits, board) = (self.settings.group_commit(), board.clone());
        let (database, handover) = (self.database.clone(), self.handover.clone());
        let commits = GroupCommit::start_handing(database, limits, board, handover, stop.clone());
        let store = EventStore::new(self.database.clone());
        CommandService::new(store, commits, Arc::new(SystemClock), self.settings.rules())
    }

    /// Stops the server unless others use it.
    pub(crate) async fn detach(self) -> Result<(), BoxError> {
        drop(self.database);
        if let Some(server) = self.server {
            server.stop().await?;
        }
        Ok(())
    }
}

/// Brings the schema up to date. A server of our own that dies meanwhile is started again.
async fn migrate(database: &Database, server: Option<&mut Server>, patience: Patience) -> Result<(), BoxError> {
    if server.is_none() && patience == Patience::None {
        return Ok(database.migrate().await?);
    }
    let (started, mut backoff) = (Instant::now(), Backoff::default());
    let migrating = async {
        loop {
            let error = match database.migrate().await {
                Err(error) if error.kind() == ErrorKind::Unavailable && started.elapsed() < SERVER_WAIT => error,
                done => return done,
            };
            if started.elapsed() < FIRST_WORDS {
                tracing::warn!(error = chain(&error), "waiting for Postgres");
            }
            backoff.wait(&CancellationToken::new()).await;
        }
    };
    let Some(server) = server else { return Ok(migrating.await?) };
    tokio::select! {
        done = migrating => Ok(done?),
        error = server.supervise() => Err(error.into()),
    }
}
