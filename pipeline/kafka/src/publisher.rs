//! The publisher: the event store, in position order, into the topics, each event once (P3).
//!
//! One Kafka transaction holds a batch's events and the publisher's own progress, so both are there or neither. A new
//! publisher first takes the transactional id over, which fences the old one and ends its open transaction, and only then
//! reads the progress. After any error the outcome counts as unknown: everything begins again with taking over and reading.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError as RdError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, NoCustomPartitioner, Producer, ThreadedProducer};
use rdkafka::producer::{DeliveryResult, ProducerContext};
use tokio_util::sync::CancellationToken;
use weir_engine::retry::{Backoff, chain};
use weir_engine::{Record, Source as _, SourceError, SourceEvent, failpoint};
use weir_model::event::topic_for;
use weir_postgres::publishing::{Lead, Publishing};
use weir_postgres::{AppendSignal, Database, EventStoreSource};

use crate::client::{CALL_TIMEOUT, KafkaOptions, Quiet};
use crate::error::{During, KafkaError};
use crate::mirror::Mirror;
use crate::progress::{self, PROGRESS_TOPIC, Progress};

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

impl ProducerContext<NoCustomPartitioner> for Quiet {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

pub(crate) type TransactionalProducer = ThreadedProducer<Quiet>;

/// Publishes until `stop`. Brokers and database that are away are waited for; an error is one that a person has to mend.
pub async fn publish(
    options: &PublisherOptions,
    database: &Database,
    signal: &AppendSignal,
    stop: &CancellationToken,
) -> Result<(), KafkaError> {
    let mut backoff = Backoff::default();
    let mut troubled = false;
    while !stop.is_cancelled() {
        let error = match lead(options, database, signal, stop).await {
            Ok(Led::ToTheEnd) => return Ok(()),
            Ok(Led::UntilFenced) => {
                tracing::warn!("another publisher took over; standing by");
                backoff = Backoff::default();
                continue;
            }
            Err(error) if error.is_retriable() => error,
            Err(error) => return Err(error),
        };
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
    stop: &CancellationToken,
) -> Result<Led, KafkaError> {
    let publishing = Publishing::new(database.clone()).await.during(PUBLISHING)?;
    refuse_embedded(&publishing).await?;
    let Some(mut lead) = stand_by(options, &publishing, stop).await? else { return Ok(Led::ToTheEnd) };
    refuse_embedded(&publishing).await?;
    let producer = take_over(options).await?;
    failpoint::hit("publisher.after_take_over");
    let led = Box::pin(publish_with(&producer, options, &publishing, &mut lead, database, signal, stop)).await;
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

async fn publish_with(
    producer: &Arc<TransactionalProducer>,
    options: &PublisherOptions,
    publishing: &Publishing,
    lead: &mut Lead,
    database: &Database,
    signal: &AppendSignal,
    stop: &CancellationToken,
) -> Result<Led, KafkaError> {
    let progress = read_progress(options, publishing).await?;
    let mut source = EventStoreSource::open(database.clone(), signal.clone()).await.during(PUBLISHING)?.with_headers();
    let partition = source.identity().clone();
    source.start(&[(partition, Some(progress.position + 1))]).await.map_err(unreadable)?;
    tracing::info!(position = progress.position, "publishing");
    let event_store: Arc<str> = publishing.event_store().to_string().into();
    let mut published = progress;
    let mut sign_of_life = Instant::now();
    let mut mirror = options.mirror_dead_letters.then(|| Mirror::new(&options.kafka));
    while !stop.is_cancelled() {
        let event = tokio::select! {
            () = stop.cancelled() => break,
            event = source.next(options.records_max, SIGN_OF_LIFE) => event.map_err(unreadable)?,
        };
        if let SourceEvent::Records(records) = event {
            let started = Instant::now();
            let count = records.len();
            let (sender, event_store) = (producer.clone(), event_store.clone());
            let stopping = stop.clone();
            let sending = move || transaction(&sender, &event_store, &records, &stopping);
            match tokio::task::spawn_blocking(sending).await.map_err(|e| KafkaError::unavailable(PUBLISHING, e))? {
                Ok(progress) => published = progress,
                Err(error) if is_fenced(producer, &error) => return Ok(Led::UntilFenced),
                Err(error) => return Err(error).during(PUBLISHING),
            }
            metrics::counter!("weir_publisher_events_total").increment(u64::try_from(count).unwrap_or(0));
            metrics::histogram!("weir_publisher_transaction_seconds").record(started.elapsed().as_secs_f64());
        }
        metrics::gauge!("weir_publisher_position").set(position_gauge(published.position));
        if sign_of_life.elapsed() >= SIGN_OF_LIFE {
            sign_of_life = Instant::now();
            if !lead.note(published.position, published.event_id.as_deref()).await.during(PUBLISHING)? {
                return Ok(Led::UntilFenced);
            }
            if let Some(mirror) = &mut mirror {
                mirror.run(producer, database).await?;
            }
        }
    }
    lead.note(published.position, published.event_id.as_deref()).await.during(PUBLISHING)?;
    Ok(Led::ToTheEnd)
}

#[allow(clippy::as_conversions, reason = "a gauge is a double; positions below 2^53 are exact")]
fn position_gauge(position: i64) -> f64 {
    position as f64
}

fn unreadable(error: SourceError) -> KafkaError {
    match error {
        SourceError::Retry(error) => KafkaError::unavailable(PUBLISHING, error),
        SourceError::Fatal(error) => KafkaError::permanent(PUBLISHING, error),
    }
}

/// Waits until nobody else publishes; `None` when told to stop.
async fn stand_by(
    options: &PublisherOptions,
    publishing: &Publishing,
    stop: &CancellationToken,
) -> Result<Option<Lead>, KafkaError> {
    loop {
        if let Some(lead) = publishing.lead(options.takeover_after).await.during("looking for another publisher")? {
            return Ok(Some(lead));
        }
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
    let kafka = options.kafka.clone();
    let event_store = publishing.event_store().to_string();
    let reading = tokio::task::spawn_blocking(move || progress::last(&kafka, &event_store));
    let found = reading.await.map_err(|e| KafkaError::unavailable(ACTION, e))??;
    let bound = publishing.lower_bound().await.during(ACTION)?;
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
                 anew, and rebuild the sinks",
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

/// Waits while the producer's queue, which bounds its memory, is full.
pub(crate) fn enqueue(producer: &TransactionalProducer, mut message: BaseRecord<'_, str, [u8]>) -> Result<(), RdError> {
    loop {
        match producer.send(message) {
            Ok(()) => return Ok(()),
            Err((RdError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) => {
                message = returned;
                std::thread::sleep(Duration::from_millis(2));
            }
            Err((error, _)) => return Err(error),
        }
    }
}

/// Whether another publisher took our id over. After that every call of the producer fails as fatal.
fn is_fenced(producer: &TransactionalProducer, error: &RdError) -> bool {
    let fatal = || producer.client().fatal_error().map(|(code, _)| code);
    let code = match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::Fatal) => fatal(),
        code => code,
    };
    matches!(
        code,
        Some(RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch)
    )
}
