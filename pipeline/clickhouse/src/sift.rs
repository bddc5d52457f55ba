//! What ClickHouse refuses for what it holds (a constraint that someone added, a materialized view that fails on it) is found record by
//! record: the lane goes on without it, and it becomes a dead letter.

use std::time::Duration;

use weir_engine::{Located, Partition, Record, RecordHead};
use weir_model::OtherEvent;
use weir_model::envelope::Enveloped;
use weir_postgres::dead_letters::Refused;

use crate::error::ClickHouseError;
use crate::rows::Block;
use crate::schema::TABLE;
use crate::server::{ClickHouse, literal};

/// An event of a known type, or of another.
#[derive(Clone, Copy)]
enum Item<'a> {
    Event(&'a Located),
    Other(&'a Located<OtherEvent>),
}

impl<'a> Item<'a> {
    fn record(self) -> &'a RecordHead {
        match self {
            Self::Event(located) => &located.record,
            Self::Other(located) => &located.record,
        }
    }

    fn whole_record(self) -> Result<Record, ClickHouseError> {
        match self {
            Self::Event(located) => located.whole_record().map_err(|error| {
                ClickHouseError::new("keeping a dead letter", error.to_string(), "look at the event with `weir trace`")
            }),
            Self::Other(located) => Ok(located.whole_record()),
        }
    }

    fn enveloped(self) -> Enveloped<'a> {
        match self {
            Self::Event(located) => located.event.enveloped(),
            Self::Other(located) => located.event.enveloped(),
        }
    }
}

/// Inserts by halves what was refused as a whole, and gives what is refused alone, each time it is tried after these waits.
pub(crate) async fn insert(
    server: &ClickHouse,
    events: &[&Located],
    others: &[&Located<OtherEvent>],
    delays: &[Duration],
    epoch: &(dyn Fn(&Partition) -> i64 + Sync),
) -> Result<Vec<Refused>, ClickHouseError> {
    let events = events.iter().map(|located| Item::Event(located));
    let items: Vec<Item<'_>> = events.chain(others.iter().map(|located| Item::Other(located))).collect();
    let (mut open, mut refused) = (vec![&items[..]], Vec::new());
    while let Some(some) = open.pop() {
        match insert_items(server, some, epoch).await {
            Ok(()) => {}
            Err(error) if !error.is_about_data() => return Err(error),
            Err(error) => match some {
                [one] => refused.extend(alone(server, *one, error, delays, epoch).await?),
                some => {
                    let (left, right) = some.split_at(some.len() / 2);
                    open.extend([right, left]);
                }
            },
        }
    }
    Ok(refused)
}

async fn insert_items(
    server: &ClickHouse,
    items: &[Item<'_>],
    epoch: &(dyn Fn(&Partition) -> i64 + Sync),
) -> Result<(), ClickHouseError> {
    let (mut events, mut others) = (Vec::new(), Vec::new());
    for item in items {
        match item {
            Item::Event(located) => events.push(*located),
            Item::Other(located) => others.push(*located),
        }
    }
    server.insert(Block::of(&events, &others, epoch).pieces()).await
}

/// One that was refused, after it was tried again: the person who altered the table may be about to mend it.
async fn alone(
    server: &ClickHouse,
    item: Item<'_>,
    mut error: ClickHouseError,
    delays: &[Duration],
    epoch: &(dyn Fn(&Partition) -> i64 + Sync),
) -> Result<Option<Refused>, ClickHouseError> {
    for delay in delays {
        tokio::time::sleep(*delay).await;
        match insert_items(server, &[item], epoch).await {
            Ok(()) => return Ok(None),
            Err(again) if !again.is_about_data() => return Err(again),
            Err(again) => error = again,
        }
    }
    // A view that fails on a row may fail after the table took it.
    if holds(server, item.record()).await? {
        return Ok(None);
    }
    let about = item.enveloped();
    Ok(Some(Refused {
        record: item.whole_record()?,
        event_type: about.event_type.to_owned(),
        aggregate_type: about.aggregate_type.to_owned(),
        aggregate_id: about.aggregate_id.to_owned(),
        envelope: about.envelope.clone(),
        reason: error.to_string(),
        attempts: i32::try_from(delays.len()).unwrap_or(i32::MAX).saturating_add(1),
    }))
}

async fn holds(server: &ClickHouse, record: &RecordHead) -> Result<bool, ClickHouseError> {
    let partition = &record.partition;
    let sql = format!(
        "SELECT 1 FROM {}.{TABLE} WHERE source = {} AND topic = {} AND `partition` = {} AND `offset` = {} LIMIT 1",
        server.database(),
        literal(&partition.source),
        literal(&partition.topic),
        partition.number,
        record.offset
    );
    Ok(!server.rows("looking for a record in ClickHouse", &sql).await?.is_empty())
}
