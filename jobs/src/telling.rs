//! This process tells in the database what its parts do, for `weir status` on any machine.

use std::time::Duration;

use rustix::process::Pid;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weir_engine::retry::chain;
use weir_engine::{BoxError, StatusBoard};
use weir_postgres::Database;
use weir_postgres::parts::{self, Part, Process, TOLD_EVERY};

/// How long the last word may take: the database may be what is away.
const FAREWELL: Duration = Duration::from_secs(2);

/// The machine's name.
pub(crate) fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// This process, as it will tell of itself. `address` is where it serves.
pub(crate) fn process(command: &'static str, address: &str) -> Process {
    let pid = std::process::id();
    Process {
        id: format!("{pid}-{}", Uuid::now_v7()),
        command,
        host: host(),
        pid: i32::try_from(pid).unwrap_or(0),
        build: env!("CARGO_PKG_VERSION").to_owned(),
        address: address.to_owned(),
    }
}

/// Whether a part's process is one of this machine's that is not there any more.
pub(crate) fn is_gone(part: &Part) -> bool {
    let gone = |pid| rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH);
    part.host == host() && Pid::from_raw(part.pid).is_some_and(gone)
}

/// Tells until stopped.
pub(crate) struct Telling {
    database: Database,
    process: Process,
    board: StatusBoard,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Telling {
    /// Begins, after what earlier processes of this machine left behind that ended without a word was removed.
    pub(crate) async fn start(database: &Database, process: Process, board: &StatusBoard) -> Result<Self, BoxError> {
        let client = database.get().await?;
        for part in parts::list(&**client).await? {
            // A part that trouble stopped is for people to see, until it works again.
            if is_gone(&part) && part.phase != "stopped" {
                parts::forget(&**client, &part.process).await?;
            }
        }
        parts::tell(&**client, &process, board).await?;
        drop(client);
        let stop = CancellationToken::new();
        let (database, board) = (database.clone(), board.clone());
        let task = tokio::spawn({
            let (database, process, board, stop) = (database.clone(), process.clone(), board.clone(), stop.clone());
            async move {
                while tokio::time::timeout(TOLD_EVERY, stop.cancelled()).await.is_err() {
                    if let Err(error) = tell(&database, &process, &board).await {
                        tracing::debug!(error = chain(error.as_ref()), "this process could not tell what it does");
                    }
                }
            }
        });
        Ok(Self { database, process, board, stop, task })
    }

    /// The last word: parts that trouble stopped stay, all others go.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        drop(self.task.await);
        let leaving = async {
            tell(&self.database, &self.process, &self.board).await?;
            let client = self.database.get().await?;
            Ok::<_, BoxError>(parts::leave(&**client, &self.process).await?)
        };
        match tokio::time::timeout(FAREWELL, leaving).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(error = chain(error.as_ref()), "this process could not take its leave"),
            Err(_) => tracing::debug!("this process could not take its leave in time"),
        }
    }
}

async fn tell(database: &Database, process: &Process, board: &StatusBoard) -> Result<(), BoxError> {
    let client = database.get().await?;
    Ok(parts::tell(&**client, process, board).await?)
}
