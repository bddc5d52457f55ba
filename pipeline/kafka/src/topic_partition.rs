//! Partitions by name, as brokers and groups have them: which topic of that name it is, now or before, does not stand in it.

use std::sync::Arc;

/// A topic and a number.
pub(crate) type TopicPartition = (Arc<str>, i32);
