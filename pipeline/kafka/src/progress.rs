//! How far the publisher is: a record on a compacted topic, written in the same transaction as the events. Kafka itself is
//! the truth; Postgres keeps a lower bound, against a topic that was lost.

use std::collections::BTreeMap;

use rdkafka::message::Message;
use serde::{Deserialize, Serialize};
use weir_model::event_type::TOPICS;

use crate::client::KafkaOptions;
use crate::error::KafkaError;
use crate::log::TopicLog;

/// The compacted topic that holds it.
pub const PROGRESS_TOPIC: &str = "weir_progress";

/// Everything up to this event is in the topics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Its place in the event store; 0 before the first.
    pub position: i64,
    /// Its id, against an event store that was restored to another past.
    pub event_id: Option<String>,
}

impl Progress {
    /// The last progress in the topic; position 0 when there is none.
    pub async fn read(kafka: &KafkaOptions, event_store: &str) -> Result<Self, KafkaError> {
        let (kafka, event_store) = (kafka.clone(), event_store.to_owned());
        let reading = tokio::task::spawn_blocking(move || last(&kafka, &event_store));
        let found = reading.await.map_err(|e| KafkaError::unavailable("reading the publisher's progress", e))??;
        Ok(found.unwrap_or(Self { position: 0, event_id: None }))
    }
}

fn whole(log: &TopicLog) -> BTreeMap<weir_engine::Partition, i64> {
    log.ranges().iter().map(|(partition, (_, high))| (partition.clone(), *high)).collect()
}

/// The last progress record of an event store; `None` when there is none. Blocks.
pub(crate) fn last(kafka: &KafkaOptions, event_store: &str) -> Result<Option<Progress>, KafkaError> {
    const ACTION: &str = "reading the publisher's progress";
    let log = TopicLog::open_blocking(kafka.clone(), &[PROGRESS_TOPIC.to_owned()].into())?;
    if log.ranges().is_empty() {
        return Err(KafkaError::unavailable(
            ACTION,
            format!("there is no topic {PROGRESS_TOPIC}; `weir topics apply` makes it"),
        ));
    }
    let mut found = Ok(None);
    log.each(&whole(&log), |_, message| {
        if message.key() == Some(event_store.as_bytes()) {
            found = serde_json::from_slice(message.payload().unwrap_or_default()).map(Some);
        }
        found.is_ok()
    })?;
    found.map_err(|e| KafkaError::permanent(ACTION, e))
}

/// The last event of ours that the topics hold: the cure for progress that was lost. Blocks for as long as reading all topics
/// takes.
pub(crate) fn recover(kafka: &KafkaOptions) -> Result<Progress, KafkaError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Published {
        event_id: String,
        position: Option<i64>,
    }
    let mut progress = Progress { position: 0, event_id: None };
    let log = TopicLog::open_blocking(kafka.clone(), &TOPICS.map(str::to_owned).into())?;
    log.each(&whole(&log), |_, message| {
        // What is not ours has no position.
        if let Ok(event) = serde_json::from_slice::<Published>(message.payload().unwrap_or_default())
            && let Some(position) = event.position.filter(|position| *position > progress.position)
        {
            progress = Progress { position, event_id: Some(event.event_id) };
        }
        true
    })?;
    Ok(progress)
}
