//! The topics: what they should be, what they are, and how the one becomes the other. Nothing is ever shrunk or deleted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigEntry, ConfigSource, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::Metadata;

use crate::client::{self, CALL_TIMEOUT, KafkaOptions, Quiet};
use crate::error::{During, KafkaError};
use crate::log::reader;

/// What a topic should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// Partitions.
    pub partitions: i32,
    /// Replicas of each partition, where there are brokers enough.
    pub replication: i32,
    /// The topic's settings by Kafka's names.
    pub config: BTreeMap<String, String>,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Of which topic.
    pub topic: String,
    /// Of what: `topic`, `partitions`, `replication`, or a setting.
    pub what: String,
    /// As it is; empty for what is not there.
    pub is: String,
    /// As it should be.
    pub should_be: String,
    /// Whether `apply` can do it; if not, why.
    pub obstacle: Option<String>,
}

/// The topics of one cluster.
pub struct Topics {
    admin: AdminClient<Quiet>,
    specs: Vec<TopicSpec>,
    /// Things to know that are no differences.
    pub warnings: Vec<String>,
}

/// What changing a topic's settings is called in errors.
const ACTION: &str = "changing a topic's settings";

/// A change takes a moment to be known by each broker.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(CALL_TIMEOUT)).operation_timeout(Some(Duration::from_secs(30)))
}

impl Topics {
    /// Asks how many brokers there are, and fits the specifications to them.
    pub fn open(kafka: &KafkaOptions, mut specs: Vec<TopicSpec>) -> Result<Self, KafkaError> {
        let admin = AdminClient::from_config_and_context(&kafka.admin(), Quiet).during("connecting to Kafka")?;
        let metadata = client::metadata(&reader(kafka)?).during("asking Kafka for its brokers")?;
        let brokers = i32::try_from(metadata.brokers().len()).unwrap_or(i32::MAX).max(1);
        let mut warnings = Vec::new();
        for spec in &mut specs {
            if spec.replication > brokers {
                warnings.push(format!(
                    "{}: {} replicas are wanted, and there are {brokers} brokers: {brokers} it is; a broker that is lost may take \
                     events with it",
                    spec.name, spec.replication
                ));
                spec.replication = brokers;
            }
            if let Some(in_sync) = spec.config.get_mut("min.insync.replicas")
                && in_sync.parse::<i32>().is_ok_and(|n| n > brokers)
            {
                *in_sync = brokers.to_string();
            }
        }
        Ok(Self { admin, specs, warnings })
    }

    /// Everything that is not as it should be, topic by topic.
    pub async fn diff(&self) -> Result<Vec<Change>, KafkaError> {
        let metadata = self.metadata().await?;
        let present: Vec<&TopicSpec> =
            self.specs.iter().filter(|spec| partitions_of(&metadata, &spec.name).is_some()).collect();
        let settings = self.settings(&present).await?;
        let mut changes = Vec::new();
        for spec in &self.specs {
            match partitions_of(&metadata, &spec.name) {
                None => changes.push(Change {
                    topic: spec.name.clone(),
                    what: "topic".to_owned(),
                    is: String::new(),
                    should_be: format!("{} partitions, {} replicas", spec.partitions, spec.replication),
                    obstacle: None,
                }),
                Some((partitions, replicas)) => {
                    changes.extend(shape(spec, partitions, replicas));
                    changes.extend(setting_changes(spec, settings.get(&spec.name)));
                }
            }
        }
        Ok(changes)
    }

    /// Makes what [`Self::diff`] found possible; gives what is left.
    pub async fn apply(&self, changes: &[Change]) -> Result<Vec<Change>, KafkaError> {
        for spec in &self.specs {
            let of_topic = || changes.iter().filter(|c| c.topic == spec.name && c.obstacle.is_none());
            if of_topic().any(|c| c.what == "topic") {
                self.create(spec).await?;
                continue;
            }
            if of_topic().any(|c| c.what == "partitions") {
                self.grow(spec).await?;
            }
            let settings: Vec<&Change> = of_topic().filter(|c| spec.config.contains_key(&c.what)).collect();
            if !settings.is_empty() {
                self.alter(spec).await?;
            }
        }
        self.settled(changes).await
    }

    /// What was changed is not known to every broker at once, and each question goes to any of them: looked at until it was
    /// seen three times in a row, for half a minute at most.
    async fn settled(&self, changes: &[Change]) -> Result<Vec<Change>, KafkaError> {
        let applied = |left: &Change| {
            let same = |c: &Change| c.topic == left.topic && (c.what == left.what || c.what == "topic");
            changes.iter().any(|c| c.obstacle.is_none() && same(c))
        };
        let give_up = Instant::now() + Duration::from_secs(30);
        let mut seen = 0;
        loop {
            let left = self.diff().await;
            let is_there = matches!(&left, Ok(left) if !left.iter().any(applied));
            seen = if is_there { seen + 1 } else { 0 };
            if seen == 3 || Instant::now() > give_up {
                return left;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn metadata(&self) -> Result<Metadata, KafkaError> {
        const ACTION: &str = "asking Kafka for its topics";
        tokio::task::block_in_place(|| self.admin.inner().fetch_metadata(None, CALL_TIMEOUT)).during(ACTION)
    }

    async fn settings(&self, specs: &[&TopicSpec]) -> Result<BTreeMap<String, Settings>, KafkaError> {
        const ACTION: &str = "asking Kafka for topics' settings";
        let topics: Vec<_> = specs.iter().map(|spec| ResourceSpecifier::Topic(&spec.name)).collect();
        if topics.is_empty() {
            return Ok(BTreeMap::new());
        }
        let described = self.admin.describe_configs(&topics, &options()).await.during(ACTION)?;
        let mut settings = BTreeMap::new();
        for (spec, resource) in specs.iter().zip(described) {
            let resource = resource.map_err(|code| KafkaError::unavailable(ACTION, code))?;
            settings.insert(spec.name.clone(), Settings(resource.entries));
        }
        Ok(settings)
    }

    async fn create(&self, spec: &TopicSpec) -> Result<(), KafkaError> {
        let mut topic = NewTopic::new(&spec.name, spec.partitions, TopicReplication::Fixed(spec.replication));
        for (name, value) in &spec.config {
            topic = topic.set(name, value);
        }
        let created = self.admin.create_topics([&topic], &options()).await.during("creating topics")?;
        check("creating a topic", created, &[RDKafkaErrorCode::TopicAlreadyExists])
    }

    async fn grow(&self, spec: &TopicSpec) -> Result<(), KafkaError> {
        let count = usize::try_from(spec.partitions).unwrap_or_default();
        let partitions = NewPartitions::new(&spec.name, count);
        let grown = self.admin.create_partitions([&partitions], &options()).await.during("adding partitions")?;
        check("adding partitions", grown, &[])
    }

    /// Kafka's call replaces all settings of a topic, so those that others made are handed back as they are.
    async fn alter(&self, spec: &TopicSpec) -> Result<(), KafkaError> {
        let settings = self.settings(&[spec]).await?;
        let mut wanted: BTreeMap<&str, &str> = BTreeMap::new();
        for entry in settings.values().flat_map(|s| &s.0).filter(|e| e.source == ConfigSource::DynamicTopic) {
            if let Some(value) = &entry.value {
                wanted.insert(&entry.name, value);
            }
        }
        for (name, value) in &spec.config {
            if !wanted.get(name.as_str()).is_some_and(|is| is_enough(name, is, value)) {
                wanted.insert(name, value);
            }
        }
        let mut config = AlterConfig::new(ResourceSpecifier::Topic(&spec.name));
        for (name, value) in wanted {
            config = config.set(name, value);
        }
        let altered = self.admin.alter_configs([&config], &options()).await.during(ACTION)?;
        let of_topic = |result: Result<_, (_, _)>| match result {
            Ok(_) => Ok(spec.name.clone()),
            Err((_, code)) => Err((spec.name.clone(), code)),
        };
        check(ACTION, altered.into_iter().map(of_topic).collect(), &[])?;
        self.expect_altered(spec).await
    }

    /// rdkafka's `alter_configs` says yes for a topic whatever the brokers say about it, so they are asked what became of it.
    async fn expect_altered(&self, spec: &TopicSpec) -> Result<(), KafkaError> {
        let until = Instant::now() + SETTLE_TIMEOUT;
        loop {
            let settings = self.settings(&[spec]).await?;
            let open = setting_changes(spec, settings.get(&spec.name));
            let Some(change) = open.iter().find(|change| change.obstacle.is_none()) else { return Ok(()) };
            if Instant::now() >= until {
                let (what, is) = (&change.what, &change.is);
                let words = format!(
                    "{}: the brokers left {what} at {is}; may this user alter the topic's configuration?",
                    spec.name
                );
                return Err(KafkaError::unavailable(ACTION, words));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

struct Settings(Vec<ConfigEntry>);

/// Partitions and replicas of a topic that is there.
fn partitions_of(metadata: &Metadata, name: &str) -> Option<(i32, i32)> {
    let topic = metadata.topics().iter().find(|topic| topic.name() == name && topic.error().is_none())?;
    let replicas = topic.partitions().iter().map(|partition| partition.replicas().len()).min().unwrap_or(0);
    let partitions = i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX);
    (partitions > 0).then_some((partitions, i32::try_from(replicas).unwrap_or(i32::MAX)))
}

fn shape(spec: &TopicSpec, partitions: i32, replicas: i32) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut add = |what: &str, is: i32, should_be: i32, obstacle: Option<String>| {
        let (is, should_be) = (is.to_string(), should_be.to_string());
        changes.push(Change { topic: spec.name.clone(), what: what.to_owned(), is, should_be, obstacle });
    };
    if partitions != spec.partitions {
        let obstacle = (partitions > spec.partitions)
            .then(|| "Kafka cannot take partitions away; raise the setting, or move to a new topic".to_owned());
        add("partitions", partitions, spec.partitions, obstacle);
    }
    if replicas != spec.replication {
        let obstacle = "moving replicas is the work of kafka-reassign-partitions".to_owned();
        add("replication", replicas, spec.replication, Some(obstacle));
    }
    changes
}

fn setting_changes(spec: &TopicSpec, settings: Option<&Settings>) -> Vec<Change> {
    let entry = |name: &str| settings.and_then(|s| s.0.iter().find(|entry| entry.name == name));
    let mut changes = Vec::new();
    for (name, should_be) in &spec.config {
        let found = entry(name);
        let is = found.and_then(|entry| entry.value.clone()).unwrap_or_default();
        if is != *should_be && !is_enough(name, &is, should_be) {
            let obstacle = found.is_none().then(|| "Kafka knows no such setting".to_owned());
            changes.push(Change {
                topic: spec.name.clone(),
                what: name.clone(),
                is,
                should_be: should_be.clone(),
                obstacle,
            });
        }
    }
    changes
}

const SIZE: &str = "max.message.bytes";

/// A topic that was made to take a larger record goes on taking it: nothing is shrunk.
fn is_enough(name: &str, is: &str, should_be: &str) -> bool {
    let bytes = |text: &str| text.parse::<u64>().ok();
    name == SIZE && bytes(is).zip(bytes(should_be)).is_some_and(|(is, should_be)| is > should_be)
}

/// Makes a topic take records of this size; whether it did not before.
pub(crate) async fn raise_size(kafka: &KafkaOptions, topic: &str, bytes: usize) -> Result<bool, KafkaError> {
    const ACTION: &str = "raising a topic's max.message.bytes";
    let config = [(SIZE.to_owned(), bytes.to_string())].into();
    let spec = TopicSpec { name: topic.to_owned(), partitions: 1, replication: 1, config };
    let (kafka, specs) = (kafka.clone(), vec![spec.clone()]);
    let opening = tokio::task::spawn_blocking(move || Topics::open(&kafka, specs));
    let topics = opening.await.map_err(|e| KafkaError::unavailable(ACTION, e))??;
    let settings = topics.settings(&[&spec]).await?;
    if setting_changes(&spec, settings.get(topic)).is_empty() {
        return Ok(false);
    }
    topics.alter(&spec).await?;
    Ok(true)
}

fn check(
    action: &'static str,
    results: Vec<Result<String, (String, RDKafkaErrorCode)>>,
    fine: &[RDKafkaErrorCode],
) -> Result<(), KafkaError> {
    for result in results {
        if let Err((topic, code)) = result
            && !fine.contains(&code)
        {
            return Err(KafkaError::permanent(action, format!("{topic}: {code}")));
        }
    }
    Ok(())
}
