//! How far the lane `clickhouse` is: what it will see to itself, and what it could not insert.

use std::collections::{HashMap, HashSet};

use weir_engine::{BoxError, LaneKind, Partition};
use weir_history::Place;
use weir_postgres::{EVENT_STORE_TOPIC, EventStoreSource, Ledger, dead_letters};

use super::Work;

/// What the lane itself will see to, and what it could not insert.
pub(super) struct Lane {
    pub(super) next_offsets: HashMap<Partition, i64>,
    pub(super) epochs: HashMap<Partition, i64>,
    pub(super) dead: HashSet<Place>,
    /// Where events of the event store stand in for records that topics hold no longer, if the lane reads topics.
    stand_ins: Option<StandIns>,
}

struct StandIns {
    event_store: Partition,
    /// From this position on: below it the lanes read the event store itself.
    from: i64,
    /// Positions of events whose records are dead letters.
    dead: HashSet<i64>,
}

impl Lane {
    /// Whether the lane has been there, so that the row at a place is not its own to insert.
    pub(super) fn is_ours(&self, place: &Place) -> bool {
        self.next_offsets.get(&place.partition).is_some_and(|next| place.offset < *next) || self.is_stand_in(place)
    }

    /// Whether an event stands there in for a record.
    pub(super) fn is_stand_in(&self, place: &Place) -> bool {
        self.stand_ins.as_ref().is_some_and(|of| {
            place.partition == of.event_store && place.offset >= of.from && !of.dead.contains(&place.offset)
        })
    }

    /// Where the event of a position would stand in for its record.
    pub(super) fn stand_in(&self, position: i64) -> Option<Place> {
        let of = self.stand_ins.as_ref().filter(|of| position >= of.from)?;
        Some(Place { partition: of.event_store.clone(), offset: position })
    }
}

impl Work {
    pub(super) async fn clickhouse_lane(&self) -> Result<Lane, BoxError> {
        let event_store = EventStoreSource::partition(&self.database).await?;
        let client = self.database.get().await?;
        let name = LaneKind::ClickHouse.name();
        let (mut next_offsets, mut epochs, mut from) = (HashMap::new(), HashMap::new(), 0);
        for row in Ledger::rows(&**client).await? {
            if row.partition == event_store {
                from = from.max(row.next_offset.unwrap_or(0));
            }
            if row.lane != name {
                continue;
            }
            if let Some(next) = row.next_offset {
                next_offsets.insert(row.partition.clone(), next);
            }
            epochs.insert(row.partition, row.epoch);
        }
        let places = dead_letters::places(&**client, name).await?;
        let dead: HashSet<Place> = places.into_iter().map(|(partition, offset)| Place { partition, offset }).collect();
        let mut stand_ins = None;
        if next_offsets.keys().any(|partition| *partition.topic != *EVENT_STORE_TOPIC) {
            let mut positions = HashSet::new();
            for partition in next_offsets.keys() {
                let of_partition = dead.iter().filter(|place| place.partition == *partition);
                let offsets: Vec<i64> = of_partition.map(|place| place.offset).collect();
                positions.extend(dead_letters::positions(&**client, name, partition, &offsets).await?);
            }
            stand_ins = Some(StandIns { event_store, from, dead: positions });
        }
        Ok(Lane { next_offsets, epochs, dead, stand_ins })
    }
}
