//! Settings of Kafka: brokers, topics, the publisher.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use weir_engine::BoxError;
use weir_kafka::{KafkaOptions, PublisherOptions, TopicSpec, dead_letter_topic};
use weir_model::event_type::TOPICS;

use super::{Passed, Settings};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kafka {
    pub(crate) brokers: String,
    pub(crate) group_prefix: String,
    client: BTreeMap<String, Nested>,
    consumer: BTreeMap<String, Nested>,
    producer: BTreeMap<String, Nested>,
    topics: BTreeMap<String, Topic>,
}

/// librdkafka's names have dots, which TOML takes for tables.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Nested {
    Value(Passed),
    Table(BTreeMap<String, Nested>),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Topic {
    partitions: i32,
    replication: i32,
    min_in_sync: i32,
    retention_ms: i64,
    cleanup: String,
    bytes_max: i64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Publisher {
    /// Address of the health and metrics of `weir publish`.
    pub(crate) listen: String,
    transactional_id: String,
    records_max: usize,
    transaction_timeout_ms: u64,
    takeover_after_ms: u64,
}

impl Kafka {
    /// How to reach the brokers; `None` in embedded mode.
    pub(crate) fn options(&self) -> Option<KafkaOptions> {
        (!self.brokers.is_empty()).then(|| KafkaOptions {
            brokers: self.brokers.clone(),
            client: flat(&self.client),
            consumer: flat(&self.consumer),
            producer: flat(&self.producer),
        })
    }

    /// The same for those who need brokers.
    pub(crate) fn required(&self) -> Result<KafkaOptions, BoxError> {
        self.options().ok_or_else(|| "kafka.brokers is empty: --set kafka.brokers=HOST:PORT".into())
    }
}

fn flat(options: &BTreeMap<String, Nested>) -> BTreeMap<String, String> {
    let mut flat = BTreeMap::new();
    let mut open: Vec<(String, &Nested)> = options.iter().map(|(name, value)| (name.clone(), value)).collect();
    while let Some((name, nested)) = open.pop() {
        match nested {
            Nested::Value(value) => drop(flat.insert(name, value.to_string())),
            Nested::Table(table) => {
                open.extend(table.iter().map(|(inner, nested)| (format!("{name}.{inner}"), nested)));
            }
        }
    }
    flat
}

impl Settings {
    /// How long topics keep records; those that keep them for ever are not here. Nothing without brokers.
    pub(crate) fn retention(&self) -> Vec<(String, Duration)> {
        let is_used = !self.kafka.brokers.is_empty();
        let kept = |(name, topic): (&String, &Topic)| {
            Some((name.clone(), Duration::from_millis(u64::try_from(topic.retention_ms).ok()?)))
        };
        self.kafka.topics.iter().filter(|_| is_used).filter_map(kept).collect()
    }

    /// What the topics should be.
    pub(crate) fn topic_specs(&self) -> Vec<TopicSpec> {
        let spec = |(name, topic): (&String, &Topic)| TopicSpec {
            name: name.clone(),
            partitions: topic.partitions.max(1),
            replication: topic.replication.max(1),
            config: [
                ("cleanup.policy", topic.cleanup.clone()),
                ("max.message.bytes", topic.bytes_max.to_string()),
                ("min.insync.replicas", topic.min_in_sync.max(1).to_string()),
                ("retention.ms", topic.retention_ms.to_string()),
            ]
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
        };
        let mut specs: Vec<TopicSpec> = self.kafka.topics.iter().map(spec).collect();
        if self.dead_letters.mirror {
            let of =
                |spec: &TopicSpec| TopicSpec { name: dead_letter_topic(&spec.name), partitions: 1, ..spec.clone() };
            let mirrors: Vec<TopicSpec> =
                specs.iter().filter(|spec| TOPICS.contains(&spec.name.as_str())).map(of).collect();
            specs.extend(mirrors);
        }
        specs
    }

    /// What the publisher needs to know.
    pub(crate) fn publisher_options(&self) -> Result<PublisherOptions, BoxError> {
        Ok(PublisherOptions {
            kafka: self.kafka.required()?,
            transactional_id: self.publisher.transactional_id.clone(),
            transaction_timeout: Duration::from_millis(self.publisher.transaction_timeout_ms),
            records_max: self.publisher.records_max.max(1),
            mirror_dead_letters: self.dead_letters.mirror,
            takeover_after: Duration::from_millis(self.publisher.takeover_after_ms),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use weir_kafka::PROGRESS_TOPIC;

    use super::*;

    #[test]
    fn the_names_of_librdkafka_pass_and_the_topics_are_the_specifications() {
        let flags = ["kafka.brokers=a:1", "kafka.client.security.protocol=SSL", "kafka.client.ssl.ca.location=/ca.pem"];
        let settings = Settings::read(
            Path::new("/nonexistent"),
            None,
            &flags.map(str::to_owned),
            &crate::own::OwnLanes::default(),
        )
        .expect("valid");
        let options = settings.kafka.options().expect("brokers");
        assert_eq!(options.client["security.protocol"], "SSL");
        assert_eq!(options.client["ssl.ca.location"], "/ca.pem");
        let specs = settings.topic_specs();
        let partitions: Vec<(&str, i32)> = specs.iter().map(|spec| (spec.name.as_str(), spec.partitions)).collect();
        let expected = [
            ("agent_events", 6),
            ("content_events", 24),
            ("general_events", 6),
            ("learning_events", 12),
            ("user_events", 12),
            (PROGRESS_TOPIC, 1),
        ];
        assert_eq!(partitions, expected);
    }
}
