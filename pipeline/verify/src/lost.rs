//! Records that lanes applied and topics hold no longer: removed by retention, or gone with a topic that was deleted. What came
//! from the event store is still there, and stands in for them; what other services sent is in history alone.

use std::collections::{BTreeMap, HashSet};

use weir_engine::Partition;
use weir_history::rows::Coordinates;
use weir_history::verify::{Placed, Relocate};
use weir_kafka::{KafkaError, TopicLog};
use weir_model::wire::Decoded;
use weir_model::{Envelope, Event};
use weir_postgres::{DbError, dead_letters};

use crate::Cuts;
use crate::fold::partition_of;

/// Stretches of partitions that are gone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lost {
    /// Records below this offset are gone; [`i64::MAX`] where the partition itself is gone.
    below: BTreeMap<Partition, i64>,
    /// Lanes that read topics.
    pub(crate) lanes: HashSet<&'static str>,
    /// Dead letters among what is gone, by lane and position in the event store.
    pub(crate) dead: HashSet<(&'static str, i64)>,
}

impl Lost {
    /// Looks for what is below the topics' beginnings, and adds to `words` what cannot be explained that way.
    pub(crate) fn find(
        cuts: &Cuts,
        event_store: &Partition,
        topics: Option<&TopicLog>,
        words: &mut Vec<String>,
    ) -> Self {
        let mut lost = Self::default();
        let mut unreadable = Vec::new();
        for ((lane, partition), cut) in cuts.iter().filter(|((_, p), cut)| cut.below > 0 && p != event_store) {
            lost.lanes.insert(lane);
            let Some(topics) = topics else {
                unreadable.push(format!("{lane}: holds records of {partition}; set `kafka.brokers` to compare them"));
                continue;
            };
            match topics.ranges().get(partition) {
                None => drop(lost.below.insert(partition.clone(), i64::MAX)),
                Some((_, high)) if cut.below > *high => unreadable.push(format!(
                    "{lane}: the ledger stands at {} of {partition}, which ends at {high}: the topic was truncated",
                    cut.below
                )),
                Some((low, _)) if *low > 0 => drop(lost.below.insert(partition.clone(), *low)),
                Some(_) => {}
            }
        }
        unreadable.sort();
        words.extend(unreadable);
        lost
    }

    /// Whether nothing is gone.
    pub(crate) fn is_empty(&self) -> bool {
        self.below.is_empty()
    }

    /// Below this offset everything of a partition is gone; 0 when nothing is.
    pub(crate) fn gone_below(&self, partition: &Partition) -> i64 {
        self.below.get(partition).copied().unwrap_or(0)
    }

    /// Refuses, in words, where records are gone that a lane has not read: the events that stand in for them could come to it twice. Of a partition
    /// that is gone with its topic it has what it read.
    pub(crate) fn is_read(&self, cuts: &Cuts) -> Result<(), String> {
        for ((lane, partition), cut) in cuts {
            let gone = self.gone_below(partition);
            if (cut.below + 1..i64::MAX).contains(&gone) {
                return Err(unread(lane, partition, cut.below, gone));
            }
        }
        Ok(())
    }

    /// Whether this record is gone.
    pub(crate) fn holds(&self, partition: &Partition, offset: i64) -> bool {
        self.below.get(partition).is_some_and(|below| offset < *below)
    }

    /// Where the dead letters among them are in the event store.
    pub(crate) async fn find_dead(
        &mut self,
        client: &impl tokio_postgres::GenericClient,
        cuts: &Cuts,
    ) -> Result<(), DbError> {
        // Of all, since topics may let go of more while they are read; what they still hold nothing stands in for.
        for ((lane, partition), cut) in cuts.iter().filter(|(_, cut)| !cut.dead.is_empty()) {
            let dead: Vec<i64> = cut.dead.iter().copied().collect();
            let positions = dead_letters::positions(client, lane, partition, &dead).await?;
            self.dead.extend(positions.into_iter().map(|position| (*lane, position)));
        }
        Ok(())
    }
}

/// What a topic let go of while it was read.
#[derive(Debug)]
pub(crate) struct LetGo {
    partition: Partition,
    /// Where it begins now; [`i64::MAX`] where it is gone.
    begins: i64,
}

impl LetGo {
    /// In words.
    pub(crate) fn words(&self) -> String {
        let Self { partition, begins } = self;
        match *begins {
            i64::MAX => format!("{partition} was removed while it was read"),
            _ => format!("records of {partition} below {begins} were removed while it was read"),
        }
    }

    /// For who filled a sink meanwhile.
    pub(crate) fn note(&self) -> String {
        format!("{}: the same command once more fills what it missed of them from the event store", self.words())
    }

    /// Whether the lane had read all of it; if not, in words.
    pub(crate) fn is_read(&self, lane: &str, cuts: &Cuts) -> Result<(), String> {
        let below = cuts.iter().find(|((of, partition), _)| *of == lane && *partition == self.partition);
        let below = below.map_or(0, |(_, cut)| cut.below);
        if self.begins <= below { Ok(()) } else { Err(unread(lane, &self.partition, below, self.begins)) }
    }
}

fn unread(lane: &str, partition: &Partition, below: i64, begins: i64) -> String {
    let begins = if begins == i64::MAX { "is gone".to_owned() } else { format!("begins at {begins}") };
    format!(
        "the lane {lane} is at {below} of {partition}, which {begins}: records that it has not read are gone. Decide about them first: \
         `weir ledger reset {lane} --topic {} --partition {} --to earliest --yes` goes on without them",
        partition.topic, partition.number
    )
}

/// Looks again where partitions begin, of which topics were read from these offsets on.
pub(crate) async fn let_go(topics: &TopicLog, starts: &BTreeMap<Partition, i64>) -> Result<Vec<LetGo>, KafkaError> {
    let now = topics.again().await?;
    let begins = |partition: &Partition| now.ranges().get(partition).map_or(i64::MAX, |(low, _)| *low);
    let start = |partition: &Partition, low: i64| starts.get(partition).copied().unwrap_or(low).max(low);
    let found =
        topics.ranges().iter().map(|(partition, (low, _))| (start(partition, *low), begins(partition), partition));
    let gone = found.filter(|(start, begins, _)| start < begins);
    Ok(gone.map(|(_, begins, partition)| LetGo { partition: partition.clone(), begins }).collect())
}

/// Under which coordinates a row is compared: its own, or its position in the event store where topics hold the record no longer.
pub(crate) struct Places {
    pub(crate) lost: Lost,
    pub(crate) event_store: Partition,
}

impl Relocate for Places {
    fn of(&self, at: Coordinates, event: &Decoded) -> Placed {
        if self.lost.is_empty() || !self.lost.holds(&partition_of(&at), at.offset) {
            return Placed::At(at);
        }
        let Decoded::Event(Event { envelope: Envelope { position: Some(position), .. }, .. }) = event else {
            return Placed::LeftOut;
        };
        Placed::At(Coordinates {
            source: self.event_store.source.to_string(),
            topic: self.event_store.topic.to_string(),
            partition: self.event_store.number.into(),
            offset: position.0,
        })
    }
}
