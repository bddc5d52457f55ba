//! SQL over history for clients of Postgres' protocol: where it listens, and who may come.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use async_trait::async_trait;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use weir_engine::retry::chain;
use weir_engine::{BoxError, LanePhase, SQL, StatusBoard};
use weir_postgres::{Database, Ledger, tokens};
use weir_query::{Login, Logins, Options};

use crate::attached::Attached;
use crate::data_dir::{DataDir, write_bytes};
use crate::self_signed;
use crate::settings::Settings;

/// How much later than lanes and commands its threads come, where both want a core (`nice`).
const NICE: i32 = 10;

/// How long statements may still take once the process is told to stop.
const STOP_WAIT: Duration = Duration::from_secs(2);

/// Listening, and not serving yet.
pub(crate) struct SqlServer {
    listener: std::net::TcpListener,
    options: Options,
    database: Database,
    /// Where clients reach it.
    pub(crate) address: String,
}

impl SqlServer {
    /// Listens at an address, the value of a setting.
    pub(crate) async fn listen(attached: &Attached, address: &str) -> Result<Self, BoxError> {
        let settings = &attached.settings;
        let listener = TcpListener::bind(address).await.map_err(|e| {
            format!("sql.listen = {address}: {e}; another address goes with --set sql.listen=127.0.0.1:0, which takes a free port")
        })?;
        let (certificate, key) = certificate(&attached.dir, settings)?;
        let options = Options {
            history: attached.history.clone(),
            memory_max: settings.sql.memory_max_bytes,
            connections_max: settings.sql.connections_max,
            statement_max: settings.sql.statement_max(),
            certificate,
            key,
        };
        let address = listener.local_addr()?.to_string();
        Ok(Self { listener: listener.into_std()?, options, database: attached.database.clone(), address })
    }

    /// Serves on threads of its own, which give way to lanes and commands, until told to stop.
    pub(crate) fn serve(self, board: StatusBoard, stop: CancellationToken) -> std::io::Result<Serving> {
        let main = Handle::current();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .thread_name("sql")
            .on_thread_start(|| {
                if let Err(error) = rustix::process::nice(NICE) {
                    tracing::debug!(%error, "threads of SQL run as urgent as others");
                }
            })
            .build()?;
        let told = board.clone();
        let served = async move {
            let logins = Arc::new(OfTokens { main, database: self.database });
            let listener = TcpListener::from_std(self.listener)?;
            weir_query::serve(listener, self.options, logins, board, stop.cancelled_owned()).await
        };
        let (tell, ended) = oneshot::channel();
        std::thread::Builder::new().name("sql-main".to_owned()).spawn(move || {
            // Polled by one of the runtime's threads, which are the ones that give way.
            let serving = runtime.spawn(served);
            let ended = runtime.block_on(serving).map_err(BoxError::from).flatten();
            runtime.shutdown_background();
            if let Err(error) = &ended {
                tracing::error!(error = chain(error.as_ref()), "clients of Postgres' protocol are answered no more");
                let words = Some(chain(error.as_ref()));
                told.update(SQL, |status| (status.phase, status.trouble) = (LanePhase::Stopped, words));
            }
            if tell.send(ended).is_err() {
                tracing::debug!("SQL ended after what it ran in");
            }
        })?;
        Ok(Serving(ended))
    }
}

/// Under way.
pub(crate) struct Serving(oneshot::Receiver<Result<(), BoxError>>);

impl Serving {
    /// Its end, once it was told to stop. A statement that holds its thread does not hold up the process.
    pub(crate) async fn ended(self) -> Result<(), BoxError> {
        match tokio::time::timeout(STOP_WAIT, self.0).await {
            Ok(ended) => ended.map_err(|_| "the server of SQL panicked")?,
            Err(_) => {
                tracing::warn!("statements of SQL that did not end are cut off");
                Ok(())
            }
        }
    }
}

/// Certificate and key: those of everything that listens, or else our own, signed by no authority. What it is for then is channel binding.
fn certificate(dir: &DataDir, settings: &Settings) -> Result<(PathBuf, PathBuf), BoxError> {
    if let Some(files) = settings.api.certificate() {
        return Ok(files);
    }
    let (certificate, key) = (dir.join("sql.crt"), dir.join("sql.key"));
    if !certificate.exists() || !key.exists() {
        let made = self_signed::certificate("weir's SQL")?;
        write_bytes(&certificate, &made.0, |_| Ok(()))?;
        write_bytes(&key, &made.1, |_| Ok(()))?;
    }
    Ok((certificate, key))
}

/// Logins are tokens. The pool of connections belongs to the main runtime, so it is asked there.
struct OfTokens {
    main: Handle,
    database: Database,
}

impl std::fmt::Debug for OfTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OfTokens")
    }
}

#[async_trait]
impl Logins for OfTokens {
    async fn login(&self, name: &str) -> Result<Option<Login>, BoxError> {
        let (database, name) = (self.database.clone(), name.to_owned());
        let asked = async move { Ok::<_, BoxError>(tokens::sql_login(&**database.get().await?, &name).await?) };
        let login = self.main.spawn(asked).await??;
        Ok(login.map(|l| Login { tenant: l.tenant, salt: l.salt, salted_password: l.salted_password }))
    }

    async fn freshness(&self) -> Result<RecordBatch, BoxError> {
        let database = self.database.clone();
        let asked = async move { Ok::<_, BoxError>(Ledger::rows(&**database.get().await?).await?) };
        let mut last: BTreeMap<String, i64> = BTreeMap::new();
        for row in self.main.spawn(asked).await?? {
            let at = last.entry(row.lane).or_default();
            *at = row.advanced_at.as_microsecond().max(*at);
        }
        let (lanes, times): (Vec<String>, Vec<i64>) = last.into_iter().unzip();
        let times = TimestampMicrosecondArray::from(times).with_timezone("UTC");
        let columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(lanes)), Arc::new(times)];
        Ok(RecordBatch::try_new(weir_query::freshness_schema(), columns)?)
    }
}
