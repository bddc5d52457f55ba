//! Positions of a client that are from before their partitions were assigned again.
//!
//! Of a partition that is taken away and assigned again at an earlier offset, `position()` gives what it gave before, until the thread of the
//! partition's broker has come to it. Who believed it would take records that are still to be read for markers that lie behind the last one.

use std::collections::HashMap;
use std::sync::Arc;

use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::topic_partition::TopicPartition;

/// After so many looks a position of before is believed: behind the offset that was assigned there are markers alone, and it is the same.
/// Looks and no time, since a process that stood still has not given its threads any.
const LOOKS_MAX: u32 = 50;

/// What was said of a partition when it was assigned.
#[derive(Debug, Clone, Copy)]
struct Said {
    /// `None` where the client could not be asked: then nothing is believed.
    offset: Option<i64>,
    looks: u32,
}

/// The positions of before.
#[derive(Debug, Default)]
pub(crate) struct Stale(HashMap<Arc<str>, HashMap<i32, Said>>);

impl Stale {
    /// To be called right after partitions were assigned, with what the client says then.
    pub(crate) fn note<'a>(
        &mut self,
        assigned: impl Iterator<Item = &'a TopicPartition>,
        positions: Option<&TopicPartitionList>,
    ) {
        for (topic, number) in assigned {
            let said = positions.and_then(|positions| positions.find_partition(topic, *number));
            let offset = said.as_ref().and_then(|element| match element.offset() {
                Offset::Offset(offset) => Some(offset),
                Offset::Beginning | Offset::End | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_) => None,
            });
            if said.is_some() && offset.is_none() {
                // The client has come to it.
                self.forget(topic, *number);
                continue;
            }
            self.0.entry(topic.clone()).or_default().insert(*number, Said { offset, looks: 0 });
        }
    }

    /// Whether a position that the client says now is of before.
    pub(crate) fn hides(&mut self, topic: &str, number: i32, now: Offset) -> bool {
        let of_topic = self.0.get_mut(topic);
        let Some(said) = of_topic.and_then(|numbers| numbers.get_mut(&number)) else { return false };
        said.looks += 1;
        let is_same = said.offset.is_none_or(|offset| now == Offset::Offset(offset));
        if is_same && said.looks <= LOOKS_MAX {
            return true;
        }
        self.forget(topic, number);
        false
    }

    /// A record of the partition came: its position is of now.
    pub(crate) fn forget(&mut self, topic: &str, number: i32) {
        if let Some(numbers) = self.0.get_mut(topic) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.0.remove(topic);
            }
        }
    }

    /// Whether there is none: the usual case, in which no record is looked up.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(offset: Offset) -> Stale {
        let mut positions = TopicPartitionList::new();
        positions.add_partition_offset("t", 3, offset).expect("an offset");
        let mut stale = Stale::default();
        stale.note([(Arc::from("t"), 3)].iter(), Some(&positions));
        stale
    }

    #[test]
    fn a_position_of_before_is_not_believed_until_it_changes() {
        let mut stale = noted(Offset::Offset(4100));
        assert!(stale.hides("t", 3, Offset::Offset(4100)) && stale.hides("t", 3, Offset::Offset(4100)));
        assert!(!stale.hides("t", 4, Offset::Offset(4100)), "another partition");
        assert!(!stale.hides("t", 3, Offset::Invalid), "the client has come to it");
        assert!(!stale.hides("t", 3, Offset::Offset(4100)) && stale.is_empty(), "reached again, by reading");
        assert!(noted(Offset::Invalid).is_empty());
    }

    #[test]
    fn a_record_or_many_looks_end_it() {
        let mut stale = noted(Offset::Offset(7));
        stale.forget("t", 3);
        assert!(!stale.hides("t", 3, Offset::Offset(7)));
        let mut stale = noted(Offset::Offset(7));
        let hidden = (0..1000).take_while(|_| stale.hides("t", 3, Offset::Offset(7))).count();
        assert_eq!(hidden, usize::try_from(LOOKS_MAX).expect("few"));
    }

    #[test]
    fn a_client_that_cannot_be_asked_is_not_believed() {
        let mut stale = Stale::default();
        stale.note([(Arc::from("t"), 3)].iter(), None);
        assert!(stale.hides("t", 3, Offset::Offset(1)) && stale.hides("t", 3, Offset::Offset(2)));
    }
}
