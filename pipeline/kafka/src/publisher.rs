//! The publisher: the event store, in position order, into the topics, each event once (P3).
//!
//! One Kafka transaction holds a batch's events and the publisher's own progress, so both are there or neither. A new
//! publisher first takes the transactional id over, which fences the old one and ends its open transaction, and only then
//! reads the progress. After any error the outcome counts as unknown: everything begins again with taking over and reading.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError as RdError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer};
use tokio_util::sync::CancellationToken;
use weir_engine::retry::{Backoff, chain};
use weir_engine::{LanePhase, PUBLISHER, Record, Source as _, SourceError, SourceEvent, StatusBoard, failpoint};
use weir_model::Position;
use weir_model::event_type::topic_for;
use weir_postgres::publishing::{Lead, Publishing};
use weir_postgres::{AppendSignal, Database, EventStore, EventStoreSource};

use crate::client::{CALL_TIMEOUT, KafkaOptions, Quiet};
use crate::error::{During, KafkaError};
use crate::mirror::Mirror;
use crate::producer::{TransactionalProducer, enqueue, is_fenced};
use crate::progress::{self, PROGRESS_TOPIC, Progress};
use crate::too_large;

/// What the publisher needs to know.
#[derive(Debug, Clone)]
pub struct PublisherOptions {
    /// The brokers.
    pub kafka: KafkaOptions,
    /// Names the publisher to the brokers: of several with one id, one publishes.
    pub transactional_id: String,
    /// A transaction that takes longer is ended by the brokers.
    pub transaction_timeout: Duration,
    /// Events in one transaction.
    pub records_max: usize,
    /// Whether dead letters are copied to topics of their own.
    pub mirror_dead_letters: bool,
    /// After so long without a sign of life a standby takes over, even from one that still holds its connection.
    pub takeover_after: Duration,
}

/// How often the lower bound in Postgres is moved, and a sign of life given.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

const PUBLISHING: &str = "publishing events";

/// Publishes until `stop`, and tells the board how it goes. Brokers and database that are away are waited for; an error is one that
/// a person has to mend.
pub async fn publish(
    options: &PublisherOptions,
    database: &Database,
    signal: &AppendSignal,
    board: &StatusBoard,
    stop: &CancellationToken,
) -> Result<(), KafkaError> {
    board.announce(PUBLISHER);
    let published = tokio::select! {
        published = publish_patiently(options, database, signal, board, stop) => published,
        never = report(database, board) => match never {},
    };
    board.update(PUBLISHER, |status| {
        status.phase = LanePhase::Stopped;
        status.trouble = published.as_ref().err().map(|error| chain(error));
    });
    published
}

/// How often the lag is looked at.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// How far publishing is behind the event store, whichever process publishes; for as long as it is polled.
async fn report(database: &Database, board: &StatusBoard) -> Infallible {
    loop {
        // A database that is away is the publisher's own trouble, and said there.
        if let Ok(behind) = Behind::read(database).await {
            behind.tell(board);
        }
        tokio::time::sleep(REPORT_EVERY).await;
    }
}

async fn publish_patiently(
    options: &PublisherOptions,
    database: &Database,
    signal: &AppendSignal,
    board: &StatusBoard,
    stop: &CancellationToken,
) -> Result<(), KafkaError> {
    let mut backoff = Backoff::default();
    let mut troubled = false;
    while !stop.is_cancelled() {
        let error = match lead(options, database, signal, board, stop).await {
            Ok(Led::ToTheEnd) => return Ok(()),
            Ok(Led::UntilFenced) => {
                tracing::warn!("another publisher took over; standing by");
                backoff = Backoff::default();
                continue;
            }
            Err(error) if error.is_retriable() => error,
            Err(error) => return Err(error),
        };
        board.update(PUBLISHER, |status| {
            status.phase = LanePhase::Waiting;
            status.trouble = Some(chain(&error));
        });
        if !troubled {
            tracing::warn!(error = chain(&error), "the publisher waits for what it needs");
            troubled = true;
        } else {
            tracing::debug!(error = chain(&error), "the publisher still waits");
        }
        if !backoff.wait(stop).await {
            return Ok(());
        }
    }
    Ok(())
}

enum Led {
    ToTheEnd,
    UntilFenced,
}

/// From taking over to the first trouble.
async fn lead(
    options: &PublisherOptions,
    database: &Database,
    signal: &AppendSignal,
    board: &StatusBoard,
    stop: &CancellationToken,
) -> Result<Led, KafkaError> {
    let publishing = Publishing::new(database.clone()).await.during(PUBLISHING)?;
    refuse_embedded(&publishing).await?;
    let Some(mut lead) = stand_by(options, &publishing, board, stop).await? else { return Ok(Led::ToTheEnd) };
    refuse_embedded(&publishing).await?;
    let producer = take_over(options).await?;
    failpoint::hit("publisher.after_take_over");
    let to = Publisher { producer: &producer, options, publishing: &publishing, database, board };
    let led = Box::pin(to.publish(&mut lead, signal, stop)).await;
    // Its end waits for the brokers.
    drop(tokio::task::spawn_blocking(move || drop(producer)));
    let led = led?;
    if let Led::ToTheEnd = led {
        lead.release().await.during(PUBLISHING)?;
    }
    Ok(led)
}

/// Lanes that read the event store themselves would apply what is published a second time.
async fn refuse_embedded(publishing: &Publishing) -> Result<(), KafkaError> {
    let embedded = publishing.embedded_lanes().await.during(PUBLISHING)?;
    if embedded.is_empty() {
        return Ok(());
    }
    Err(KafkaError::permanent(
        PUBLISHING,
        format!(
            "the lanes {} read the event store themselves, and would apply each event twice; `weir source switch kafka` moves \
             them over",
            embedded.join(", ")
        ),
    ))
}

/// What publishing works with, once it leads.
struct Publisher<'a> {
    producer: &'a Arc<TransactionalProducer>,
    options: &'a PublisherOptions,
    publishing: &'a Publishing,
    database: &'a Database,
    board: &'a StatusBoard,
}

impl Publisher<'_> {
    async fn publish(
        &self,
        lead: &mut Lead,
        signal: &AppendSignal,
        stop: &CancellationToken,
    ) -> Result<Led, KafkaError> {
        let progress = read_progress(self.options, self.publishing).await?;
        let source = EventStoreSource::open(self.database.clone(), signal.clone()).await;
        let mut source = source.during(PUBLISHING)?.with_headers();
        let partition = source.identity().clone();
        source.start(&[(partition, Some(progress.position + 1))]).await.map_err(unreadable)?;
        tracing::info!(position = progress.position, "publishing");
        self.note_published(progress.position);
        let mut published = progress;
        let mut sign_of_life = Instant::now();
        let mut mirror = self.options.mirror_dead_letters.then(|| Mirror::new(&self.options.kafka));
        while !stop.is_cancelled() {
            let event = tokio::select! {
                () = stop.cancelled() => break,
                event = source.next(self.options.records_max, SIGN_OF_LIFE) => event.map_err(unreadable)?,
            };
            if let SourceEvent::Records(records) = event {
                match self.send(records, stop).await? {
                    Some(progress) => published = progress,
                    None => return Ok(Led::UntilFenced),
                }
            }
            self.note_published(published.position);
            if sign_of_life.elapsed() >= SIGN_OF_LIFE {
                sign_of_life = Instant::now();
                if !lead.note(published.position, published.event_id.as_deref()).await.during(PUBLISHING)? {
                    return Ok(Led::UntilFenced);
                }
                if let Some(mirror) = &mut mirror {
                    mirror.run(self.producer, self.database).await?;
                }
            }
        }
        lead.note(published.position, published.event_id.as_deref()).await.during(PUBLISHING)?;
        Ok(Led::ToTheEnd)
    }

    fn note_published(&self, position: i64) {
        metrics::gauge!("weir_publisher_position").set(double(position));
        self.board.update(PUBLISHER, |status| {
            (status.phase, status.trouble) = (LanePhase::Running, None);
            if status.next_offset != position + 1 {
                (status.next_offset, status.advanced_at) = (position + 1, tokio::time::Instant::now());
            }
            status.end_offset = status.end_offset.max(status.next_offset);
        });
    }

    /// Sends records in one transaction; `None` when another publisher took over.
    async fn send(&self, records: Vec<Record>, stop: &CancellationToken) -> Result<Option<Progress>, KafkaError> {
        let (started, count) = (Instant::now(), records.len());
        let records = Arc::new(records);
        let (sender, event_store) = (self.producer.clone(), self.publishing.event_store().to_string());
        let (stopping, sent) = (stop.clone(), records.clone());
        let sending = move || transaction(&sender, &event_store, &sent, &stopping);
        match tokio::task::spawn_blocking(sending).await.map_err(|e| KafkaError::unavailable(PUBLISHING, e))? {
            Ok(progress) => {
                metrics::counter!("weir_publisher_events_total").increment(u64::try_from(count).unwrap_or(0));
                metrics::histogram!("weir_publisher_transaction_seconds").record(started.elapsed().as_secs_f64());
                Ok(Some(progress))
            }
            Err(error) if is_fenced(self.producer, &error) => Ok(None),
            Err(error) if is_too_large(&error) => Err(too_large::make_room(&self.options.kafka, &records, error).await),
            Err(error) => Err(error).during(PUBLISHING),
        }
    }
}

fn is_too_large(error: &RdError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge)
}

/// How far the topics are behind the event store.
#[derive(Debug, Clone, Copy)]
struct Behind {
    head: i64,
    published: i64,
    /// Seconds since the first event that waits was appended; 0 when none does.
    seconds: f64,
}

impl Behind {
    async fn read(database: &Database) -> Result<Self, weir_postgres::DbError> {
        let store = EventStore::new(database.clone());
        let head = store.head().await?.0;
        let (published, _) = Publishing::new(database.clone()).await?.lower_bound().await?;
        let seconds = if published < head { store.age_of(Position(published + 1)).await?.unwrap_or(0.0) } else { 0.0 };
        Ok(Self { head, published, seconds })
    }

    fn tell(self, board: &StatusBoard) {
        metrics::gauge!("weir_event_store_head").set(double(self.head));
        metrics::gauge!("weir_publisher_lag_events").set(double((self.head - self.published).max(0)));
        metrics::gauge!("weir_publisher_lag_seconds").set(self.seconds);
        board.update(PUBLISHER, |status| {
            status.next_offset = status.next_offset.max(self.published + 1);
            status.end_offset = (self.head + 1).max(status.next_offset);
        });
    }
}

#[allow(clippy::as_conversions, reason = "a gauge is a double; positions below 2^53 are exact")]
fn double(position: i64) -> f64 {
    position as f64
}

fn unreadable(error: SourceError) -> KafkaError {
    match error {
        SourceError::Retry(error) => KafkaError::unavailable(PUBLISHING, error),
        SourceError::Fatal(error) => KafkaError::permanent(PUBLISHING, error),
    }
}

/// Waits until no other process publishes; `None` when told to stop.
async fn stand_by(
    options: &PublisherOptions,
    publishing: &Publishing,
    board: &StatusBoard,
    stop: &CancellationToken,
) -> Result<Option<Lead>, KafkaError> {
    loop {
        if let Some(lead) = publishing.lead(options.takeover_after).await.during("looking for another publisher")? {
            return Ok(Some(lead));
        }
        board.update(PUBLISHER, |status| (status.phase, status.trouble) = (LanePhase::StandingBy, None));
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
    }
}

/// From here on an older publisher of the same id is fenced, and its open transaction is ended.
async fn take_over(options: &PublisherOptions) -> Result<Arc<TransactionalProducer>, KafkaError> {
    const ACTION: &str = "taking over the publisher's id";
    let config = options.kafka.publisher(&options.transactional_id, options.transaction_timeout);
    let timeout = options.transaction_timeout;
    let taking = tokio::task::spawn_blocking(move || {
        let producer = TransactionalProducer::from_config_and_context(&config, Quiet).during(ACTION)?;
        producer.init_transactions(timeout).during(ACTION)?;
        Ok(Arc::new(producer))
    });
    taking.await.map_err(|e| KafkaError::unavailable(ACTION, e))?
}

/// Where to go on. Stops, naming the cure, where the topics and the event store do not fit together.
async fn read_progress(options: &PublisherOptions, publishing: &Publishing) -> Result<Progress, KafkaError> {
    const ACTION: &str = "reading the publisher's progress";
    // The bound first: another publisher may take over and move both while this one hangs between them, and a bound that is newer
    // than the progress would look like a topic that lost its end.
    let bound = publishing.lower_bound().await.during(ACTION)?;
    failpoint::hit("publisher.between_progress");
    let kafka = options.kafka.clone();
    let event_store = publishing.event_store().to_string();
    let reading = tokio::task::spawn_blocking(move || progress::last(&kafka, &event_store));
    let found = reading.await.map_err(|e| KafkaError::unavailable(ACTION, e))??;
    let progress = match (found, bound) {
        (Some(found), _) => found,
        (None, (0, _)) => Progress { position: 0, event_id: None },
        // The first progress after `weir source switch kafka` stands in Postgres alone.
        (None, (position, true)) => Progress { position, event_id: None },
        (None, (position, false)) => return Err(lost(None, position)),
    };
    if progress.position < bound.0 {
        return Err(lost(Some(progress.position), bound.0));
    }
    let stored = publishing.event_id_at(progress.position).await.during(ACTION)?;
    if progress.event_id.is_some() && progress.event_id != stored {
        return Err(KafkaError::permanent(
            ACTION,
            format!(
                "the topics hold event {} at position {}, where the event store has {}: Postgres was restored to an older copy \
                 than the topics. Restore the newer Postgres; or, if that past is lost for good, delete the topics, make them \
                 again, and rebuild the sinks",
                progress.event_id.unwrap_or_default(),
                progress.position,
                stored.unwrap_or_else(|| "nothing".to_owned())
            ),
        ));
    }
    Ok(progress)
}

fn lost(found: Option<i64>, bound: i64) -> KafkaError {
    let found = found.map_or_else(|| "nothing".to_owned(), |position| position.to_string());
    KafkaError::permanent(
        "reading the publisher's progress",
        format!(
            "the topic {PROGRESS_TOPIC} says {found}, but everything up to position {bound} was published: the topic was deleted or lost \
             its end. Nothing is published twice: `weir publish --recover` reads the position of the last event in the \
             topics and goes on from there"
        ),
    )
}

/// Writes the progress that the topics themselves show, and returns it.
pub async fn recover(options: &PublisherOptions, database: &Database) -> Result<Progress, KafkaError> {
    const ACTION: &str = "recovering the publisher's progress";
    let publishing = Publishing::new(database.clone()).await.during(ACTION)?;
    let producer = take_over(options).await?;
    let kafka = options.kafka.clone();
    let event_store = publishing.event_store().to_string();
    let recovering = tokio::task::spawn_blocking(move || {
        let mut found = progress::recover(&kafka)?;
        if let Some(last) = progress::last(&kafka, &event_store)?.filter(|last| last.position > found.position) {
            found = last;
        }
        producer.begin_transaction().during(ACTION)?;
        send_progress(&producer, &event_store, &found).during(ACTION)?;
        producer.commit_transaction(CALL_TIMEOUT).during(ACTION)?;
        Ok(found)
    });
    recovering.await.map_err(|e| KafkaError::unavailable(ACTION, e))?
}

/// One transaction: the events and the progress.
fn transaction(
    producer: &TransactionalProducer,
    event_store: &str,
    records: &[Record],
    stop: &CancellationToken,
) -> Result<Progress, RdError> {
    producer.begin_transaction()?;
    failpoint::hit("publisher.after_begin");
    for record in records {
        send(producer, record)?;
    }
    let progress = progress_of(records);
    send_progress(producer, event_store, &progress)?;
    failpoint::hit("publisher.before_commit");
    loop {
        match producer.commit_transaction(CALL_TIMEOUT) {
            Ok(()) => break,
            // The same call again is what librdkafka asks for: it knows whether the brokers have answered.
            Err(RdError::Transaction(error)) if error.is_retriable() && !stop.is_cancelled() => {
                tracing::debug!(%error, "committing again");
            }
            Err(error) => return Err(error),
        }
    }
    failpoint::hit("publisher.after_commit");
    Ok(progress)
}

fn progress_of(records: &[Record]) -> Progress {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Named {
        event_id: String,
    }
    let last = records.last();
    let named = last.and_then(|record| serde_json::from_slice::<Named>(&record.payload).ok());
    Progress { position: last.map_or(0, |record| record.offset), event_id: named.map(|event| event.event_id) }
}

fn send(producer: &TransactionalProducer, record: &Record) -> Result<(), RdError> {
    let event_type =
        record.headers.get("eventType").and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default();
    let mut headers = OwnedHeaders::new_with_capacity(5);
    for (key, value) in record.headers.iter() {
        headers = headers.insert(Header { key, value: Some(value) });
    }
    let mut message = BaseRecord::<str, [u8]>::to(topic_for(event_type)).payload(&record.payload).headers(headers);
    if let Some(key) = &record.key {
        message = message.key(&**key);
    }
    if let Some(recorded_at) = record.recorded_at {
        message = message.timestamp(recorded_at.as_millis());
    }
    enqueue(producer, message)
}

fn send_progress(producer: &TransactionalProducer, event_store: &str, progress: &Progress) -> Result<(), RdError> {
    let payload = serde_json::to_vec(progress).unwrap_or_default();
    enqueue(producer, BaseRecord::<str, [u8]>::to(PROGRESS_TOPIC).key(event_store).payload(&payload))
}
