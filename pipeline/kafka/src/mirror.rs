//! Copies of dead letters in topics of their own, for those who watch topics. The publisher makes them, in transactions of
//! their own; a crash between such a transaction and its note makes a copy twice. The dead letters themselves stay in Postgres.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError as RdError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer};
use weir_engine::retry::chain;
use weir_model::event_type::TOPICS;
use weir_postgres::Database;
use weir_postgres::dead_letters::{self, DeadLetter};

use crate::client::{self, CALL_TIMEOUT, KafkaOptions};
use crate::error::{During, KafkaError};
use crate::log::reader;
use crate::producer::{TransactionalProducer, enqueue};

const ACTION: &str = "mirroring dead letters";

/// Letters in one transaction: a payload may be as large as a record.
const LETTERS_MAX: i64 = 20;

/// A larger payload is left out of the copy, whose headers say where it is: decompressed it may be larger than any record.
const PAYLOAD_MAX: usize = 1 << 20;

/// After a failure nothing is tried for so long.
const REST: Duration = Duration::from_secs(60);

/// How often it is looked whether the topics are there.
const TOPICS_EVERY: Duration = Duration::from_secs(60);

/// The topic of a topic's dead letters.
#[must_use]
pub fn dead_letter_topic(topic: &str) -> String {
    format!("{topic}.dead_letters")
}

/// What is mirrored, and when that was last looked at.
pub(crate) struct Mirror {
    kafka: KafkaOptions,
    topics: Vec<&'static str>,
    topics_asked_at: Option<Instant>,
    failed_at: Option<Instant>,
}

impl Mirror {
    pub(crate) fn new(kafka: &KafkaOptions) -> Self {
        Self { kafka: kafka.clone(), topics: Vec::new(), topics_asked_at: None, failed_at: None }
    }

    /// Copies what has no copy yet. Whatever goes wrong with that, events are published all the same; an error means that the
    /// producer cannot go on.
    pub(crate) async fn run(
        &mut self,
        producer: &Arc<TransactionalProducer>,
        database: &Database,
    ) -> Result<(), KafkaError> {
        if self.failed_at.is_some_and(|at| at.elapsed() < REST) {
            return Ok(());
        }
        self.failed_at = None;
        let Err(error) = self.copy(producer, database).await else { return Ok(()) };
        tracing::warn!(error = chain(&error), "dead letters are not mirrored; tried again in a minute");
        self.failed_at = Some(Instant::now());
        let producer = producer.clone();
        let aborting = tokio::task::spawn_blocking(move || match producer.abort_transaction(CALL_TIMEOUT) {
            // None was open.
            Err(RdError::Transaction(error)) if error.code() == RDKafkaErrorCode::State => Ok(()),
            done => done,
        });
        let aborted = aborting.await.map_err(|e| KafkaError::unavailable(ACTION, e))?;
        aborted.map_err(|e| KafkaError::unavailable(ACTION, e))
    }

    async fn copy(&mut self, producer: &Arc<TransactionalProducer>, database: &Database) -> Result<(), KafkaError> {
        self.look_for_topics().await?;
        let client = database.get().await.during(ACTION)?;
        let letters = dead_letters::unmirrored(&**client, &self.topics, LETTERS_MAX).await.during(ACTION)?;
        drop(client);
        if letters.is_empty() {
            return Ok(());
        }
        let producer = producer.clone();
        let sending = tokio::task::spawn_blocking(move || send(&producer, &letters).map(|()| letters));
        let letters = sending.await.map_err(|e| KafkaError::unavailable(ACTION, e))?.during(ACTION)?;
        let client = database.get().await.during(ACTION)?;
        dead_letters::note_mirrored(&**client, &letters).await.during(ACTION)
    }

    /// A topic that is not there would hold the publisher up until its transaction times out.
    async fn look_for_topics(&mut self) -> Result<(), KafkaError> {
        if self.topics_asked_at.is_some_and(|at| at.elapsed() < TOPICS_EVERY) {
            return Ok(());
        }
        let kafka = self.kafka.clone();
        let asking = tokio::task::spawn_blocking(move || client::metadata(&reader(&kafka)?).during(ACTION));
        let metadata = asking.await.map_err(|e| KafkaError::unavailable(ACTION, e))??;
        let is_there = |topic: &&'static str| {
            let name = dead_letter_topic(topic);
            metadata.topics().iter().any(|topic| topic.name() == name && topic.error().is_none())
        };
        self.topics = TOPICS.into_iter().filter(is_there).collect();
        if self.topics.len() < TOPICS.len() {
            tracing::warn!("not all topics of dead letters are there; `weir topics apply` makes them");
        }
        self.topics_asked_at = Some(Instant::now());
        Ok(())
    }
}

fn send(producer: &TransactionalProducer, letters: &[DeadLetter]) -> Result<(), RdError> {
    producer.begin_transaction()?;
    for letter in letters {
        let (partition, offset) = (letter.partition.to_string(), letter.offset.to_string());
        let said = [
            ("weir-lane", letter.lane.as_str()),
            ("weir-reason", &letter.reason),
            ("weir-topic", &letter.topic),
            ("weir-partition", &partition),
            ("weir-offset", &offset),
        ];
        let record = dead_letters::to_record(letter);
        let (key, sent) = (record.key_bytes().unwrap_or_default(), record.headers.written());
        let is_whole = key.len() + sent.len() + letter.payload.len() <= PAYLOAD_MAX;
        let mut headers = OwnedHeaders::new_with_capacity(said.len());
        for (key, value) in record.headers.iter().filter(|_| is_whole) {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        for (key, value) in said {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let topic = dead_letter_topic(&letter.topic);
        let payload = if letter.payload.len() > PAYLOAD_MAX { &[][..] } else { &letter.payload };
        let mut message = BaseRecord::<[u8], [u8]>::to(&topic).payload(payload).headers(headers);
        if let Some(text) = &letter.key {
            // What stands for a key that finds no room tells it apart still.
            message = message.key(if is_whole { key } else { text.as_bytes() });
        }
        enqueue(producer, message)?;
    }
    producer.commit_transaction(CALL_TIMEOUT)
}
