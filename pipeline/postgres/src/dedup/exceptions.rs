//! What one lane does otherwise than the index says. Places that it skipped, since it began behind them or was reset past them, are no copies
//! for it: of an event whose counted copy lies there it counts the next one.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::types::ToSql;
use tokio_postgres::{GenericClient, Row};
use weir_engine::Partition;

use super::candidate::Candidate;
use super::part::{ACTION, Part};
use crate::database::Database;
use crate::error::{DbError, During};
use crate::ledger::{columns, partition_of};
use crate::repeats::Places;

/// A lane, where it goes on.
#[derive(Debug, Default)]
pub(crate) struct LaneView {
    lane: String,
    /// From where to where it never read.
    skips: Vec<(Partition, i64, i64)>,
    /// The sources that it has read of a topic's partition: of one that was made again the earlier selves may be none of them.
    sources: HashMap<(Arc<str>, i32), Vec<Arc<str>>>,
    /// Places of its own verdict from where it goes on, and whether it counts them.
    own: HashMap<(Partition, i64), bool>,
}

/// A record of an event that came more than once.
#[derive(Debug, Clone)]
struct Copy {
    number: i64,
    /// Where it is; `None` when that is forgotten.
    place: Option<(Partition, i64)>,
}

impl LaneView {
    /// As the lane claims.
    pub(crate) async fn load(client: &impl GenericClient, lane: &str) -> Result<Self, DbError> {
        const SKIPS: &str = "SELECT source, topic, partition, from_offset, to_offset FROM lane_skips WHERE lane = $1";
        const OWN: &str = "SELECT r.source, r.topic, r.partition, r.\"offset\", r.is_counted FROM repeats r \
             JOIN ledger l ON l.lane = r.lane AND l.source = r.source AND l.topic = r.topic AND l.partition = r.partition \
             WHERE r.lane = $1 AND r.\"offset\" >= coalesce(l.next_offset, 0)";
        const SOURCES: &str = "SELECT source, topic, partition FROM ledger WHERE lane = $1";
        let mut view = Self { lane: lane.to_owned(), ..Self::default() };
        for row in client.query(SOURCES, &[&lane]).await.during(ACTION)? {
            let Partition { source, topic, number } = partition_of(&row)?;
            view.sources.entry((topic, number)).or_default().push(source);
        }
        for row in client.query(SKIPS, &[&lane]).await.during(ACTION)? {
            view.skips.push((partition_of(&row)?, row.try_get(3).during(ACTION)?, row.try_get(4).during(ACTION)?));
        }
        for row in client.query(OWN, &[&lane]).await.during(ACTION)? {
            view.own.insert((partition_of(&row)?, row.try_get(3).during(ACTION)?), row.try_get(4).during(ACTION)?);
        }
        Ok(view)
    }

    /// Whether the lane never read a place.
    pub(super) fn skipped(&self, partition: &Partition, offset: i64) -> bool {
        let sources = self.sources.get(&(partition.topic.clone(), partition.number));
        let is_strange = sources.is_some_and(|sources| !sources.contains(&partition.source));
        is_strange || self.skips.iter().any(|(of, from, to)| of == partition && (*from..*to).contains(&offset))
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.lane
    }

    /// Whether the lane counts a copy of this event all the same.
    pub(super) async fn counts_another(
        &self,
        client: &impl GenericClient,
        candidate: &Candidate<'_>,
    ) -> Result<bool, DbError> {
        const SQL: &str =
            "SELECT EXISTS (SELECT FROM repeats WHERE lane = $1 AND is_counted AND tenant = $2 AND event_id = $3)";
        let values: [&(dyn ToSql + Sync); 3] = [&self.lane, &candidate.tenant, &candidate.event_id];
        client.query_one(SQL, &values).await.during(ACTION)?.try_get(0).during(ACTION)
    }

    /// The lane's verdict on parts of a batch, from that of the index.
    pub(super) async fn of(
        &self,
        database: &Database,
        window: i64,
        parts: &[Part<'_>],
        repeats: Places,
    ) -> Result<Places, DbError> {
        let mut places = repeats;
        for ((partition, offset), is_counted) in &self.own {
            let is_in = |part: &Part<'_>| part.partition == *partition && part.candidates.contains_key(offset);
            if !parts.iter().any(is_in) {
                continue;
            }
            let place = (partition.clone(), *offset);
            if *is_counted {
                places.remove(&place)
            } else {
                places.insert(place)
            };
        }
        if places.is_empty() {
            return Ok(places);
        }
        let client = database.get().await?;
        for place in self.of_skipped(&**client, &places).await? {
            if !self.own.contains_key(&place) && self.counts(&**client, window, &place).await? {
                places.remove(&place);
            }
        }
        Ok(places)
    }

    /// Those of these repeats whose counted copy the lane skipped.
    async fn of_skipped(&self, client: &impl GenericClient, places: &Places) -> Result<Vec<(Partition, i64)>, DbError> {
        const SQL: &str = "SELECT r.source, r.topic, r.partition, r.\"offset\", r.first_source, r.first_topic, r.first_partition, \
             r.first_offset FROM unnest($1::text[], $2::text[], $3::int[], $4::bigint[]) AS p(source, topic, partition, place) \
             JOIN repeats r ON r.lane = '' AND r.source = p.source AND r.topic = p.topic AND r.partition = p.partition \
               AND r.\"offset\" = p.place WHERE r.first_source IS NOT NULL";
        let (sources, topics, numbers) = columns(places.iter().map(|(partition, _)| partition));
        let offsets: Vec<i64> = places.iter().map(|(_, offset)| *offset).collect();
        let values: [&(dyn ToSql + Sync); 4] = [&sources, &topics, &numbers, &offsets];
        let mut found = Vec::new();
        for row in client.query(SQL, &values).await.during(ACTION)? {
            let (first, at) = place_in(&row, 4)?;
            if self.skipped(&first, at) {
                found.push((partition_of(&row)?, row.try_get(3).during(ACTION)?));
            }
        }
        Ok(found)
    }

    /// Whether the lane counts a record that the index calls a repeat; if so, that is kept.
    async fn counts(
        &self,
        client: &impl GenericClient,
        window: i64,
        (partition, offset): &(Partition, i64),
    ) -> Result<bool, DbError> {
        const ALIKE: &str = "SELECT o.source, o.topic, o.partition, o.\"offset\", o.number, r.number, r.first_number, \
             r.first_source, r.first_topic, r.first_partition, r.first_offset FROM repeats r \
             JOIN repeats o ON o.lane = '' AND o.tenant = r.tenant AND o.event_id = r.event_id AND o.number <= r.number \
             WHERE r.lane = '' AND r.source = $1 AND r.topic = $2 AND r.partition = $3 AND r.\"offset\" = $4 ORDER BY o.number";
        const KEEP: &str = "INSERT INTO repeats (lane, source, topic, partition, \"offset\", tenant, event_id, number, first_number, is_counted) \
             SELECT $5, source, topic, partition, \"offset\", tenant, event_id, number, first_number, true FROM repeats \
             WHERE lane = '' AND source = $1 AND topic = $2 AND partition = $3 AND \"offset\" = $4 ON CONFLICT DO NOTHING";
        let (source, topic, number) = (&&*partition.source, &&*partition.topic, &partition.number);
        let values: [&(dyn ToSql + Sync); 4] = [source, topic, number, offset];
        let rows = client.query(ALIKE, &values).await.during(ACTION)?;
        let Some(last) = rows.last() else { return Ok(false) };
        let (this, first): (i64, i64) = (last.try_get(5).during(ACTION)?, last.try_get(6).during(ACTION)?);
        let mut copies = vec![Copy { number: first, place: Some(place_in(last, 7)?) }];
        for row in &rows {
            let place = Some((partition_of(row)?, row.try_get(3).during(ACTION)?));
            copies.push(Copy { number: row.try_get(4).during(ACTION)?, place });
        }
        copies.sort_by_key(|copy| copy.number);
        if !is_counted(&copies, this, window, |(of, at)| self.skipped(of, *at)) {
            return Ok(false);
        }
        let values: [&(dyn ToSql + Sync); 5] = [source, topic, number, offset, &self.lane];
        client.execute(KEEP, &values).await.during(ACTION)?;
        Ok(true)
    }
}

/// A place in four columns from this one on.
fn place_in(row: &Row, at: usize) -> Result<(Partition, i64), DbError> {
    let (source, topic): (&str, &str) = (row.try_get(at).during(ACTION)?, row.try_get(at + 1).during(ACTION)?);
    let number = row.try_get(at + 2).during(ACTION)?;
    Ok((Partition { source: source.into(), topic: topic.into(), number }, row.try_get(at + 3).during(ACTION)?))
}

/// Whether a lane counts the copy numbered `this`, of copies in their order, if those of skipped places are none.
fn is_counted(copies: &[Copy], this: i64, window: i64, skipped: impl Fn(&(Partition, i64)) -> bool) -> bool {
    let mut counted: Option<i64> = None;
    for copy in copies {
        if copy.place.as_ref().is_some_and(&skipped) {
            continue;
        }
        let is_first = counted.is_none_or(|counted| copy.number - counted > window);
        if copy.number == this {
            return is_first;
        }
        if is_first {
            counted = Some(copy.number);
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_that_a_lane_skipped_are_none_for_it() {
        let partition = Partition { source: "s".into(), topic: "t".into(), number: 0 };
        let copy = |number: i64| Copy { number, place: Some((partition.clone(), number)) };
        let copies = [copy(0), copy(50), copy(55), copy(120)];
        let skips_below = |end: i64| move |(_, offset): &(Partition, i64)| *offset < end;
        // The first is skipped: the second counts, and the third repeats it; the fourth is beyond the window.
        assert!(!is_counted(&copies, 50, 60, skips_below(0)));
        assert!(is_counted(&copies, 50, 60, skips_below(10)) && !is_counted(&copies, 55, 60, skips_below(10)));
        assert!(is_counted(&copies, 120, 60, skips_below(10)) && !is_counted(&copies, 120, 100, skips_below(10)));
        assert!(is_counted(&copies, 55, 60, skips_below(51)));
        // A copy whose place is forgotten was not skipped.
        let unknown = [Copy { number: 0, place: None }, copy(50)];
        assert!(!is_counted(&unknown, 50, 60, skips_below(10)));
    }
}
