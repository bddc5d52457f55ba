//! A running instance on a data directory: lanes, appender, HTTP side.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weir_api::Front;
use weir_engine::{BoxError, LaneError, LanePhase, StatusBoard};
use weir_postgres::publishing::Publishing;
use weir_postgres::tokens::Tokens;
use weir_postgres::{CommandService, EventStore};

use crate::attached::{Attached, Patience, Target};
use crate::data_dir::Running;
use crate::door::Door;
use crate::lanes::{start_lanes, start_publisher};
use crate::schedule;
use crate::server::Server;
use crate::settings::Settings;
use crate::sql_server::{Serving, SqlServer};
use crate::telling::{self, Telling};

/// How long a lane on topics must have found nothing before it counts as caught up.
const SETTLED: Duration = Duration::from_secs(2);

/// How long requests may still take once the instance is told to stop.
const OPEN_REQUESTS_WAIT: Duration = Duration::from_secs(10);

/// Everything of `weir up`, running. Its fields are apart so that one may be watched while the other is used.
pub(crate) struct Instance {
    pub(crate) view: View,
    pub(crate) watch: Watch,
    http: tokio::task::JoinHandle<std::io::Result<()>>,
    telling: Telling,
    /// The schedule.
    jobs: JoinSet<()>,
    /// Clients of SQL, where a setting says so.
    sql: Option<Serving>,
    stop: CancellationToken,
    stop_appending: CancellationToken,
    _lock: std::fs::File,
}

/// What a running instance offers.
pub(crate) struct View {
    pub(crate) attached: Attached,
    pub(crate) commands: CommandService,
    pub(crate) board: StatusBoard,
    pub(crate) api: String,
}

/// What has to go on working.
pub(crate) struct Watch {
    server: Option<Server>,
    /// The lanes, and the publisher.
    lanes: JoinSet<Result<(), LaneError>>,
    /// Lanes that stopped for good, while the others went on (P9).
    stopped: Vec<BoxError>,
}

impl Instance {
    /// Takes the data directory and starts everything on it.
    pub(crate) async fn start(target: &Target) -> Result<Self, BoxError> {
        let (dir, settings) = target.open()?;
        let lock = dir.lock_instance()?;
        // What a killed instance said of itself is no longer true.
        dir.clear_running();
        let mut attached = Attached::new(dir, settings, Patience::Some).await?;
        let (stop, stop_appending) = (CancellationToken::new(), CancellationToken::new());
        let board = StatusBoard::default();
        let commands = attached.commands(&board, &stop_appending);
        let (listening, api) = listen("api.listen", &attached.settings.api.listen, &attached.settings).await?;
        let sql = match attached.settings.sql.listen.as_str() {
            "" => None,
            address => Some(SqlServer::listen(&attached, address).await?),
        };
        let names: Vec<String> = attached.settings.lanes().into_iter().map(str::to_owned).collect();
        // Before the lanes, or what they count first is counted nowhere.
        let handlers = handlers(&attached, commands.clone(), board.clone(), &stop)?;
        let process = telling::process("up", &api);
        let mut lanes = start_lanes(&attached, &names, &process.id, &board, &stop).await?;
        if attached.settings.kafka.options().is_some() {
            start_publisher(&attached, &mut lanes, &board, &stop)?;
        }
        let telling = Telling::start(&attached.database, process, &board).await?;
        let http = tokio::spawn(listening.serve(handlers, stop.clone()));
        attached.dir.set_running(&Running { pid: std::process::id(), api: api.clone() })?;
        tracing::info!(api, data_dir = %attached.dir.path().display(), "up");
        let jobs = schedule::start(&attached, &stop);
        let sql = match sql {
            Some(server) => {
                tracing::info!(address = server.address, "clients of Postgres' protocol may ask history");
                Some(server.serve(board.clone(), stop.clone())?)
            }
            None => None,
        };
        let watch = Watch { server: attached.server.take(), lanes, stopped: Vec::new() };
        let view = View { attached, commands, board, api };
        Ok(Self { view, watch, http, telling, jobs, sql, stop, stop_appending, _lock: lock })
    }

    /// Drains: no new commands, then each lane commits what it holds, then the server goes. Gives the first lane's trouble
    /// beside what is still attached.
    pub(crate) async fn stop(self) -> Result<(Attached, Option<BoxError>), BoxError> {
        tracing::info!("draining");
        let Self {
            view: View { mut attached, .. },
            watch,
            mut http,
            telling,
            mut jobs,
            sql,
            stop,
            stop_appending,
            _lock,
        } = self;
        stop.cancel();
        if let Some(sql) = sql {
            sql.ended().await?;
        }
        while jobs.join_next().await.is_some() {}
        // A client that never ends its request does not hold the end up.
        match tokio::time::timeout(OPEN_REQUESTS_WAIT, &mut http).await {
            Ok(served) => served??,
            Err(_) => {
                tracing::warn!("requests that did not end are cut off");
                http.abort();
            }
        }
        stop_appending.cancel();
        let Watch { server, mut lanes, mut stopped } = watch;
        while let Some(ended) = lanes.join_next().await {
            if let Err(error) = ended? {
                stopped.push(error.into());
            }
        }
        telling.end().await;
        attached.dir.clear_running();
        attached.server = server;
        Ok((attached, stopped.into_iter().next()))
    }
}

impl Watch {
    /// Until nothing is left that works: the server cannot be brought back, or every lane has stopped. A single lane that
    /// stops says so in the log and in `/readyz`; it holds up neither commands nor other lanes. To be polled all the time,
    /// for it also brings the server back.
    pub(crate) async fn failed(&mut self) -> BoxError {
        let server = self.server.as_mut();
        let supervised = async {
            match server {
                Some(server) => BoxError::from(server.supervise().await),
                None => std::future::pending().await,
            }
        };
        tokio::pin!(supervised);
        loop {
            let ended = tokio::select! {
                error = &mut supervised => return error,
                ended = self.lanes.join_next() => ended,
            };
            match ended {
                Some(Ok(Ok(()))) => return "a lane ended without being told to".into(),
                Some(Ok(Err(error))) => self.stopped.push(error.into()),
                Some(Err(error)) => return error.into(),
                None => return self.stopped.pop().unwrap_or_else(|| "no lane runs".into()),
            }
        }
    }
}

impl View {
    /// Whether every lane that has not stopped for good has applied everything up to the event store's end. While the
    /// database is away it is not known: not yet.
    pub(crate) async fn is_caught_up(&self) -> bool {
        let Ok(head) = EventStore::new(self.attached.database.clone()).head().await else { return false };
        let lanes = self.board.lanes();
        if lanes.len() != self.attached.settings.lanes().len() {
            return false;
        }
        let through_kafka = self.attached.settings.kafka.options().is_some();
        if through_kafka && !self.is_published(head.0).await {
            return false;
        }
        lanes.values().all(|lane| match lane.phase {
            LanePhase::Stopped => true,
            LanePhase::Starting | LanePhase::Waiting | LanePhase::StandingBy => false,
            // Offsets of topics are no positions: there, a lane is at the end when it has been for a while.
            LanePhase::Running if through_kafka => lane.idle_since.is_some_and(|since| since.elapsed() > SETTLED),
            LanePhase::Running => lane.next_offset > head.0.max(0),
        })
    }

    async fn is_published(&self, head: i64) -> bool {
        let Ok(publishing) = Publishing::new(self.attached.database.clone()).await else { return false };
        publishing.lower_bound().await.is_ok_and(|(position, _)| position >= head)
    }
}

/// What the HTTP side works with. Installs the process's recorder of metrics.
pub(crate) fn handlers(
    attached: &Attached,
    commands: CommandService,
    board: StatusBoard,
    stop: &CancellationToken,
) -> Result<weir_api::Api, BoxError> {
    Ok(weir_api::Api {
        commands,
        store: EventStore::new(attached.database.clone()),
        tokens: Tokens::new(attached.database.clone()),
        database: attached.database.clone(),
        board,
        process_metrics: weir_api::exporter()?,
        limits: Arc::new(attached.settings.api.limits()),
        parts: attached.settings.parts().into_iter().map(str::to_owned).collect(),
        layout: weir_api::Layout::default(),
        scraped: weir_api::Scraped::default(),
        data_dir: attached.dir.path().to_owned(),
        retention: attached.settings.retention(),
        jobs: Arc::new(Door::new(attached, stop)),
    })
}

/// Where this process listens.
pub(crate) struct Listening {
    listener: TcpListener,
    front: Front,
}

impl Listening {
    /// Answers until told to stop.
    pub(crate) async fn serve(self, api: weir_api::Api, stop: CancellationToken) -> std::io::Result<()> {
        weir_api::serve(self.listener, self.front, api, stop).await
    }
}

/// Listens at an address, the value of a setting; gives the URL, too.
pub(crate) async fn listen(setting: &str, address: &str, settings: &Settings) -> Result<(Listening, String), BoxError> {
    let listener = TcpListener::bind(address).await.map_err(|e| {
        format!(
            "{setting} = {address}: {e}; another address goes with --set {setting}=127.0.0.1:0, which takes a free port"
        )
    })?;
    let (front, local) = (settings.api.front()?, listener.local_addr()?);
    let is_plain = front.tls.is_none() && front.proxies.is_empty();
    if is_plain && !local.ip().is_loopback() && !front.plaintext_beyond_loopback {
        return Err(format!(
            "{setting} = {address} is reached from beyond this machine, and tokens would go there in clear: set api.tls.certificate and \
             api.tls.key, or api.trusted_proxies where a proxy with TLS is in front, or api.plaintext_beyond_loopback = true where the \
             network itself is trusted"
        )
        .into());
    }
    let scheme = if front.tls.is_some() { "https" } else { "http" };
    Ok((Listening { listener, front }, format!("{scheme}://{local}")))
}
