//! Where partitions end, as the brokers last told a consumer.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::statistics::Statistics;

use crate::topic_partition::TopicPartition;

/// A partition's ends.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct End {
    /// The last stable offset: where reading ends for a consumer that reads committed records only.
    pub(crate) stable: i64,
    /// The offset at which the consumer last came to the partition's end; negative before the first time.
    pub(crate) fetched: i64,
}

/// The ends of a consumer's partitions.
#[derive(Default)]
pub(crate) struct Ends(Mutex<HashMap<TopicPartition, End>>);

impl Ends {
    fn table(&self) -> MutexGuard<'_, HashMap<TopicPartition, End>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the end was when the partition was started.
    pub(crate) fn starts_with(&self, place: &TopicPartition, stable: i64) {
        self.table().insert(place.clone(), End { stable, fetched: -1 });
    }

    /// The ends of a partition.
    pub(crate) fn get(&self, place: &TopicPartition) -> Option<End> {
        self.table().get(place).copied()
    }

    /// Takes up what a consumer says of itself.
    pub(crate) fn take(&self, statistics: Statistics) {
        let mut ends = self.table();
        for (name, topic) in statistics.topics {
            let name = name.into();
            let place = |number| TopicPartition::from((std::sync::Arc::clone(&name), number));
            for (number, partition) in topic.partitions {
                if partition.desired && number >= 0 {
                    let stable = if partition.ls_offset >= 0 { partition.ls_offset } else { partition.hi_offset };
                    // Nothing was fetched yet: what is known from elsewhere is better.
                    if stable >= 0 {
                        ends.insert(place(number), End { stable, fetched: partition.eof_offset });
                    }
                }
            }
        }
    }
}
