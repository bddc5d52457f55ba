//! Whose records a lane gets of each partition: the tap's, or its own consumer's.

use tokio::sync::oneshot;
use weir_engine::tap::{Taken, count_read};
use weir_engine::{Partition, Record, Row, SourceError, SourceEvent, failpoint};

use super::{KafkaSource, ReadBy};
use crate::error::KafkaError;
use crate::poll::PollerCommand;

impl KafkaSource {
    /// What this lane's own consumer has read.
    pub(super) fn take_own(&mut self, generation: u64, mut records: Vec<Record>) -> Option<SourceEvent> {
        let mut read: Vec<Partition> = Vec::new();
        records.retain(|record| {
            // A record is looked up by its partition's coordinates, which change only with the partition.
            let Some(owned) = self.of(&record.partition) else { return false };
            let is_meant = owned.is_read_by_own_consumer_in(generation) && record.offset >= owned.next;
            if is_meant {
                owned.next = record.offset + 1;
                if read.last() != Some(&record.partition) {
                    read.push(record.partition.clone());
                }
            }
            is_meant
        });
        self.join(read);
        count_read(&self.lane, records.len());
        (!records.is_empty()).then_some(SourceEvent::Records(records))
    }

    /// Attaches this lane to the tap in those of the partitions in which its own consumer has come to where the tap is.
    pub(super) fn join(&mut self, partitions: Vec<Partition>) {
        let mut joined = Vec::new();
        for partition in partitions {
            let Some(owned) = self.of(&partition).filter(|owned| owned.read != ReadBy::Tap) else { continue };
            let next = owned.next;
            if self.tap.ring.ring().join(self.id, &partition, next, tokio::time::Instant::now()) {
                joined.push(Self::place(&partition));
            }
        }
        if joined.is_empty() {
            return;
        }
        failpoint::hit("tap.after_join");
        tracing::info!(lane = self.lane, partitions = joined.len(), "has caught up, and shares the reading again");
        for place in joined {
            if let Some(end) = self.shared.ends.get(&place)
                && self.tap.ends.get(&place).is_none_or(|known| known.stable < end.stable)
            {
                self.tap.ends.starts_with(&place, end.stable);
            }
            if let Some(owned) = self.owned.get_mut(&place) {
                owned.read = ReadBy::Tap;
            }
            self.to_stop.push(place);
        }
        self.tap.ring.room.send_replace(());
    }

    /// What there is for this lane in the tap.
    pub(super) fn take_shared(&mut self, records_max: usize) -> Result<Option<SourceEvent>, SourceError> {
        if !self.owned.values().any(|owned| owned.read == ReadBy::Tap) {
            return Ok(None);
        }
        let taken = self.tap.ring.ring().take(self.id, records_max, tokio::time::Instant::now());
        Ok(match taken {
            Taken::Nothing => None,
            Taken::Rows(chunk, rows) => {
                if let Some(last) = chunk.rows()[rows.clone()].last().map(Row::record)
                    && let Some(owned) = self.of(&last.partition)
                {
                    owned.next = last.offset + 1;
                }
                Some(SourceEvent::Rows(chunk, rows))
            }
            Taken::Passed(offsets) => {
                for (partition, offset) in &offsets {
                    if let Some(owned) = self.of(partition) {
                        owned.next = *offset;
                    }
                }
                Some(SourceEvent::Passed(offsets))
            }
            Taken::Full => Some(SourceEvent::Full),
            Taken::Trouble(error) => return Err(error),
            Taken::Detached(partitions) => {
                for partition in partitions {
                    if let Some(owned) = self.of(&partition) {
                        owned.read = ReadBy::None;
                        let (place, next) = (Self::place(&partition), owned.next);
                        // Until its own consumer has fetched: it would say that there is nothing more.
                        let end = self.tap.ends.get(&place).map_or(next, |end| end.stable.max(next));
                        self.shared.ends.starts_with(&place, end);
                        self.to_start.push(place);
                    }
                }
                Some(SourceEvent::Idle)
            }
            Taken::OutOfRange(partitions) => {
                self.ask_for_ids(std::time::Duration::ZERO)?;
                for partition in &partitions {
                    if let Some(owned) = self.of(partition) {
                        owned.read = ReadBy::None;
                    }
                }
                Some(SourceEvent::OutOfRange(partitions))
            }
        })
    }

    /// Tells the polling thread what it is to read. What is interrupted is done again.
    pub(super) async fn tell_poller(&mut self) -> Result<(), SourceError> {
        let gone = || KafkaError::permanent("starting partitions", "the polling thread ended");
        if !self.to_stop.is_empty() {
            let permit = self.asks.reserve().await.map_err(|_| gone())?;
            permit.send(PollerCommand::Stop(std::mem::take(&mut self.to_stop)));
        }
        let to_start = self.to_start.iter().filter_map(|place| self.owned.get_key_value(place));
        let starts: Vec<_> =
            to_start.map(|(place, owned)| (place.clone(), owned.partition.clone(), owned.next)).collect();
        if !starts.is_empty() {
            let (sender, answer) = oneshot::channel();
            self.asks.send(PollerCommand::Start(starts, sender)).await.map_err(|_| gone())?;
            let (generation, started) = answer.await.map_err(|_| gone())??;
            for place in started {
                if let Some(owned) = self.owned.get_mut(&place) {
                    owned.read = ReadBy::OwnConsumer(generation);
                }
            }
        }
        self.to_start.clear();
        Ok(())
    }
}
