//! Lanes and the publisher of a process, started.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weir_clickhouse::ClickHouseSink;
use weir_engine::retry::chain;
use weir_engine::{
    BoxError, LaneError, LaneKind, LanePhase, PUBLISHER, Sink, Source, StatusBoard, Tap, TapLimits, UnknownLane,
    run_lane,
};
use weir_history::HistorySink;
use weir_kafka::{KafkaSource, KafkaTap};
use weir_model::event_type::TOPICS;
use weir_postgres::{AppendSignal, EventStoreReader, Ledger, MetricsProjection, ProjectionSink, ReadModelsProjection};

use crate::attached::Attached;
use crate::own::OwnLane;
use crate::runner::{Carried, Runner};
use crate::settings::Settings;

/// Whose lane it is.
enum Kind<'a> {
    Weirs(LaneKind),
    Own(&'a OwnLane),
}

/// What the lanes of a process read.
enum Feed {
    /// Topics, each lane's partitions by its consumer group.
    Topics(Arc<KafkaTap>),
    /// The event store.
    EventStore(Arc<Tap<EventStoreReader>>),
}

/// There is no such lane, among weir's and the program's own.
fn known(settings: &Settings, error: &UnknownLane) -> String {
    settings.own.names().fold(error.to_string(), |words, name| format!("{words}, {name}"))
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
    let feed = match settings.kafka.options() {
        Some(kafka) => {
            // Each lane's group takes its time.
            let gather = Duration::from_secs(1);
            let counts_alone = |name: &String| name.parse().is_ok_and(|kind: LaneKind| !kind.keeps_every_record());
            let keeps_text = !names.iter().all(counts_alone);
            let limits = TapLimits { gather, keeps_text, ..settings.engine.tap_limits() };
            Feed::Topics(KafkaTap::start(&kafka, &settings.kafka.group_prefix, owner, limits)?)
        }
        None => {
            let reader = EventStoreReader::open(attached.database.clone(), signal, attached.handover.clone()).await?;
            Feed::EventStore(Tap::start(reader, settings.engine.tap_limits()))
        }
    };
    for name in names {
        let kind = match settings.own.get(name) {
            Some(own) => Kind::Own(own),
            None => Kind::Weirs(name.parse().map_err(|error: UnknownLane| known(settings, &error))?),
        };
        let lane = settings.lane(name).ok_or_else(|| format!("the lane {name} has no settings"))?;
        let mut source: Box<dyn Source> = match &feed {
            Feed::Topics(tap) => {
                let group = format!("{}-{name}", settings.kafka.group_prefix);
                Box::new(KafkaSource::open(tap, name, &group, &TOPICS)?)
            }
            Feed::EventStore(tap) => Box::new(tap.source(name)),
        };
        let (database, ledger) = (attached.database.clone(), Ledger::new(name, owner));
        let mut sink: Box<dyn Sink> = match kind {
            Kind::Own(own) => Box::new(ProjectionSink::new(database, ledger, own.projection(), policy.clone())),
            Kind::Weirs(LaneKind::ReadModels) => {
                Box::new(ProjectionSink::new(database, ledger, ReadModelsProjection { units }, policy.clone()))
            }
            Kind::Weirs(LaneKind::Metrics) => {
                Box::new(ProjectionSink::new(database, ledger, MetricsProjection { units }, policy.clone()))
            }
            Kind::Weirs(LaneKind::ClickHouse) => {
                let server = settings.clickhouse.required()?;
                Box::new(ClickHouseSink::new(server, database, ledger, policy.clone()))
            }
            Kind::Weirs(LaneKind::History) => {
                Box::new(HistorySink::new(attached.history.clone(), database, ledger, policy.clone()))
            }
        };
        board.announce(name);
        let (board, stop) = (board.clone(), stop.clone());
        let carrying = matches!(kind, Kind::Weirs(LaneKind::ReadModels)).then(|| Runner::new(attached));
        let (own, database) = (settings.own.clone(), attached.database.clone());
        lanes.spawn(async move {
            // A lane whose tables cannot be made stops alone.
            if let Err(error) = own.prepare(&lane.name, &database, &stop).await {
                let words = chain(&error);
                tracing::error!(lane = lane.name, error = words, "stopped");
                board.update(&lane.name, |status| {
                    (status.phase, status.trouble) = (LanePhase::Stopped, Some(words));
                });
                return Err(LaneError { lane: lane.name, source: error.into() });
            }
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
        board.update(LaneKind::ReadModels.name(), |status| {
            (status.phase, status.trouble) = (LanePhase::Waiting, Some(trouble))
        });
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(CARRIED_AGAIN) => {}
        }
    }
    board.update(LaneKind::ReadModels.name(), |status| (status.phase, status.trouble) = (LanePhase::Starting, None));
}

/// The publisher beside the lanes; one that stops for good stops alone, as a lane does.
pub(crate) fn start_publisher(
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
