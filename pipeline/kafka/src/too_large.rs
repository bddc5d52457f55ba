//! Events that are larger than a topic takes. What the door lets in fits; what was let in before the door had its rule may not, and
//! positions in topics have no holes: the topic is made to take it, or the publisher waits and says what would help.

use std::collections::BTreeMap;

use rdkafka::error::KafkaError as RdError;
use weir_engine::Record;
use weir_engine::retry::chain;
use weir_model::event_type::topic_for;

use crate::client::KafkaOptions;
use crate::error::KafkaError;
use crate::topics;

/// Bytes that are added to the largest payload for the record's key and headers and for the batch around it; generous.
const OVERHEAD: usize = 64 << 10;

/// Raises the limits of the topics that these records need; what is left of the error is a reason to wait.
pub(crate) async fn make_room(kafka: &KafkaOptions, records: &[Record], error: RdError) -> KafkaError {
    const ACTION: &str = "publishing events";
    let mut needed: BTreeMap<&str, usize> = BTreeMap::new();
    for record in records {
        let event_type = record.headers.get("eventType").and_then(|name| std::str::from_utf8(name).ok());
        let topic = needed.entry(topic_for(event_type.unwrap_or_default())).or_default();
        *topic = (*topic).max(record.payload.len() + OVERHEAD);
    }
    let mut refusals = Vec::new();
    for (topic, bytes) in needed {
        match topics::raise_size(kafka, topic, bytes).await {
            Ok(true) => {
                tracing::warn!(topic, bytes, "an event is larger than the topic took: its max.message.bytes was raised")
            }
            Ok(false) => {}
            Err(refused) => refusals.push(format!(
                "{topic} ({}): `weir topics apply --set kafka.topics.{topic}.bytes_max={bytes}`",
                chain(&refused)
            )),
        }
    }
    let cure = match refusals.is_empty() {
        true => {
            "the topics' max.message.bytes is high enough now; if this stays, raise message.max.bytes of the brokers"
                .to_owned()
        }
        false => format!(
            "an event is larger than its topic takes, and its max.message.bytes could not be raised; someone who may has to: {}",
            refusals.join("; ")
        ),
    };
    KafkaError::unavailable(ACTION, format!("{}: {cure}", chain(&error)))
}
