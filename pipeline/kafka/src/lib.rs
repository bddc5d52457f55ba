//! Kafka: topics, the publisher that fills them from the event store, and the source that lanes read them through.

mod chunk;
mod client;
mod decoder;
mod ends;
mod error;
mod handover;
mod log;
mod mirror;
mod poll;
mod producer;
mod progress;
mod publisher;
mod record_headers;
mod source;
mod stale;
mod tap;
mod too_large;
mod topic_ids;
mod topic_partition;
mod topics;

pub use client::KafkaOptions;
pub use error::KafkaError;
pub use log::TopicLog;
pub use mirror::dead_letter_topic;
pub use progress::{PROGRESS_TOPIC, Progress};
pub use publisher::{PublisherOptions, publish, recover};
pub use source::KafkaSource;
pub use tap::KafkaTap;
pub use topics::{Change, TopicSpec, Topics};
