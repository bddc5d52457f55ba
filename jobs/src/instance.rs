//! An attached data directory, and a running instance on it: lanes, appender, HTTP side.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use url::Url;
use weir_api::Front;
use weir_clickhouse::ClickHouseSink;
use weir_engine::retry::{Backoff, chain};
use weir_engine::{BoxError, LaneError, LanePhase, PUBLISHER, Sink, Source, StatusBoard, run_lane};
use weir_history::{HistoryRoot, HistorySink};
use weir_kafka::KafkaSource;
use weir_model::SystemClock;
use weir_model::event::TOPICS;
use weir_postgres::publishing::Publishing;
use weir_postgres::tokens::Tokens;
use weir_postgres::{
    AppendSignal, CommandService, Database, DatabaseOptions, ErrorKind, EventStore, EventStoreSource, GroupCommit,
    Ledger, MetricsProjection, ProjectionSink, ReadModelsProjection,
};
use weir_verify::{CLICKHOUSE, LANES, READ_MODELS};

use crate::data_dir::{DataDir, Running};
use crate::schedule::{Carried, Runner, Scheduler};
use crate::server::Server;
use crate::settings::Settings;
use crate::telling::{self, Telling};

/// How long a lane on topics must have found nothing before it counts as caught up.
const SETTLED: Duration = Duration::from_secs(2);

/// How long requests may still take once the instance is told to stop.
const OPEN_REQUESTS_WAIT: Duration = Duration::from_secs(10);

/// How long a server that was just started may be away again.
const SERVER_WAIT: Duration = Duration::from_secs(60);

/// For so long each try says why it failed; then it has been said.
const FIRST_WORDS: Duration = Duration::from_secs(1);

/// A data directory with its Postgres at hand.
pub(crate) struct Attached {
    pub(crate) dir: DataDir,
    pub(crate) settings: Settings,
    pub(crate) database: Database,
    pub(crate) history: HistoryRoot,
    pub(crate) server: Option<Server>,
}

/// Where a command works and with what settings.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) data_dir: PathBuf,
    pub(crate) config: Option<PathBuf>,
    pub(crate) set: Vec<String>,
}

impl Place {
    /// Opens the data directory and reads the settings.
    pub(crate) fn open(&self) -> Result<(DataDir, Settings), BoxError> {
        let dir = DataDir::open(&self.data_dir)?;
        let settings = Settings::read(dir.path(), self.config.as_deref(), &self.set)?;
        dir.share(settings.files.group())?;
        Ok((dir, settings))
    }

    /// Attaches to the running Postgres, or starts it. [`Attached::detach`] stops what nobody else uses.
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
        Ok(Self { dir, settings, database, history, server })
    }

    /// The command side, with an appender of its own that says on the board how it is.
    pub(crate) fn commands(&self, board: &StatusBoard, stop: &CancellationToken) -> CommandService {
        let (limits, board) = (self.settings.group_commit(), board.clone());
        let commits = GroupCommit::start(self.database.clone(), limits, board, stop.clone());
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

/// Everything of `weir up`, running. Its fields are apart so that one may be watched while the other is used.
pub(crate) struct Instance {
    pub(crate) view: View,
    pub(crate) watch: Watch,
    http: tokio::task::JoinHandle<std::io::Result<()>>,
    telling: Telling,
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
    pub(crate) async fn start(place: &Place) -> Result<Self, BoxError> {
        let (dir, settings) = place.open()?;
        let lock = dir.lock_instance()?;
        // What a killed instance said of itself is no longer true.
        dir.clear_running();
        let mut attached = Attached::new(dir, settings, Patience::Some).await?;
        let (stop, stop_appending) = (CancellationToken::new(), CancellationToken::new());
        let board = StatusBoard::default();
        let commands = attached.commands(&board, &stop_appending);
        let (listening, api) = listen("api.listen", &attached.settings.api.listen, &attached.settings).await?;
        let names: Vec<String> = attached.settings.lanes().into_iter().map(str::to_owned).collect();
        // Before the lanes, or what they count first is counted nowhere.
        let handlers = handlers(&attached, commands.clone(), board.clone())?;
        let process = telling::process("up", &api);
        let mut lanes = start_lanes(&attached, &names, &process.id, &board, &stop).await?;
        if attached.settings.kafka.options().is_some() {
            start_publisher(&attached, &mut lanes, &board, &stop)?;
        }
        let telling = Telling::start(&attached.database, process, &board).await?;
        let http = tokio::spawn(listening.serve(handlers, stop.clone()));
        attached.dir.set_running(&Running { pid: std::process::id(), api: api.clone() })?;
        tracing::info!(api, data_dir = %attached.dir.path().display(), "up");
        Scheduler::start(&attached, stop.clone());
        let watch = Watch { server: attached.server.take(), lanes, stopped: Vec::new() };
        let view = View { attached, commands, board, api };
        Ok(Self { view, watch, http, telling, stop, stop_appending, _lock: lock })
    }

    /// Drains: no new commands, then each lane commits what it holds, then the server goes. Gives the first lane's trouble
    /// beside what is still attached.
    pub(crate) async fn stop(self) -> Result<(Attached, Option<BoxError>), BoxError> {
        tracing::info!("draining");
        let Self { view: View { mut attached, .. }, watch, mut http, telling, stop, stop_appending, _lock } = self;
        stop.cancel();
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
    /// database is away nobody knows: not yet.
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

/// Starts lanes by name, on topics where brokers are set, else on the event store. `owner` is this process in the ledger.
pub(crate) async fn start_lanes(
    attached: &Attached,
    names: &[String],
    owner: &str,
    board: &StatusBoard,
    stop: &CancellationToken,
) -> Result<JoinSet<Result<(), LaneError>>, BoxError> {
    let signal = AppendSignal::start(attached.database.clone(), stop.clone());
    let settings = &attached.settings;
    let policy = settings.record_policy();
    let units = settings.durations;
    let mut lanes = JoinSet::new();
    for name in names {
        let known = || format!("there is no lane {name}; there are {}", LANES.join(", "));
        let lane = settings.lane(name).filter(|_| LANES.contains(&name.as_str())).ok_or_else(known)?;
        let mut source: Box<dyn Source> = match settings.kafka.options() {
            Some(kafka) => {
                let group = format!("{}-{name}", settings.kafka.group_prefix);
                Box::new(KafkaSource::open(&kafka, name, &group, &TOPICS)?)
            }
            None => Box::new(EventStoreSource::open(attached.database.clone(), signal.clone()).await?),
        };
        let (database, ledger) = (attached.database.clone(), Ledger::new(name, owner));
        let mut sink: Box<dyn Sink> = match name.as_str() {
            READ_MODELS => {
                Box::new(ProjectionSink::new(database, ledger, ReadModelsProjection { units }, policy.clone()))
            }
            "metrics" => Box::new(ProjectionSink::new(database, ledger, MetricsProjection { units }, policy.clone())),
            CLICKHOUSE => {
                let server = settings.clickhouse.required()?;
                Box::new(ClickHouseSink::new(server, database, ledger, policy.clone()))
            }
            _ => Box::new(HistorySink::new(attached.history.clone(), database, ledger, policy.clone())),
        };
        board.announce(name);
        let (board, stop) = (board.clone(), stop.clone());
        let carrying = (name == READ_MODELS).then(|| Runner::new(attached));
        lanes.spawn(async move {
            if let Some(runner) = carrying {
                carry_over(&runner, &board, &stop).await;
            }
            Box::pin(run_lane(&lane, source.as_mut(), sink.as_mut(), &board, &stop)).await
        });
    }
    Ok(lanes)
}

/// When a rebuild that failed, or that another process does, is looked at again: each try is a run of its job, and kept.
const CARRIED_AGAIN: Duration = Duration::from_secs(10);

/// Read models of an older layout are rebuilt before their lane goes on, by the first process that comes to it.
async fn carry_over(runner: &Runner, board: &StatusBoard, stop: &CancellationToken) {
    loop {
        let trouble = match runner.carry_over().await {
            Ok(Carried::Current) => break,
            Ok(Carried::Elsewhere) => {
                "the read models are being rebuilt for this version by another process".to_owned()
            }
            Err(error) => {
                let words = format!(
                    "the read models are of an older layout and could not be rebuilt: {}; mend that, and it is tried again",
                    chain(error.as_ref())
                );
                tracing::warn!(error = words, "the read models wait");
                words
            }
        };
        board.update(READ_MODELS, |status| (status.phase, status.trouble) = (LanePhase::Waiting, Some(trouble)));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(CARRIED_AGAIN) => {}
        }
    }
    board.update(READ_MODELS, |status| (status.phase, status.trouble) = (LanePhase::Starting, None));
}

/// The publisher beside the lanes; one that stops for good stops alone, as a lane does.
fn start_publisher(
    attached: &Attached,
    lanes: &mut JoinSet<Result<(), LaneError>>,
    board: &StatusBoard,
    stop: &CancellationToken,
) -> Result<(), BoxError> {
    let options = attached.settings.publisher_options()?;
    let (database, board, stop) = (attached.database.clone(), board.clone(), stop.clone());
    board.announce(PUBLISHER);
    lanes.spawn(async move {
        let signal = AppendSignal::start(database.clone(), stop.clone());
        let published = weir_kafka::publish(&options, &database, &signal, &board, &stop).await;
        published.map_err(|error| {
            tracing::error!(error = chain(&error), "the publisher stopped");
            LaneError { lane: PUBLISHER.to_owned(), source: error.into() }
        })
    });
    Ok(())
}
