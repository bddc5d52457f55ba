//! The rows that a lane should hold, out of event store and topics: for a sink that is filled without history.

use std::collections::{BTreeMap, HashMap};

use tokio::sync::mpsc;
use weir_engine::{LaneKind, Located, Partition, Row};
use weir_model::project::Units;
use weir_postgres::{EVENT_STORE_TOPIC, Ledger, dead_letters, repeats};

use crate::expected::{Expected, Walk, publishing};
use crate::fill_from::{FillFrom, Taker};
use crate::lost::{LetGo, Lost};
use crate::rebuild::RebuildError;
use crate::{Cut, Cuts, Sources, Stores};

/// What a lane has read, and where that can be read again.
pub struct LaneRows<'a> {
    stores: Stores<'a>,
    lane: &'static str,
    from: FillFrom,
    cuts: Cuts,
    sources: Sources,
    lost: Lost,
    stand_ins_from: i64,
}

impl<'a> LaneRows<'a> {
    /// Looks how far the lane is, and what its sources still hold.
    pub async fn open(stores: Stores<'a>, lane: &'static str, from: FillFrom) -> Result<Self, RebuildError> {
        let refused = |words: String| Err(RebuildError::Refused(words));
        let mut cuts = cuts(stores, lane).await?;
        if cuts.values().all(|cut| cut.below == 0) {
            return refused(format!(
                "the lane {lane} has read nothing yet, and would come to all of it: start it once (`weir up`, or `weir run {lane}`)"
            ));
        }
        let mut sources = Sources::open(stores, None).await?;
        if from == FillFrom::Topics && sources.topics.is_none() {
            return refused(
                "there are no topics to read: set `kafka.brokers`, or fill from the event store".to_owned(),
            );
        }
        let mut words = Vec::new();
        let mut lost = Lost::find(&cuts, &sources.event_store, sources.topics.as_ref(), &mut words);
        if !words.is_empty() {
            return refused(words.join("; "));
        }
        lost.is_read(&cuts).map_err(RebuildError::Refused)?;
        match lost.is_empty() {
            // The event store is read as far as the lane read it itself.
            true => sources.published = 0,
            false => lost.find_dead(&**stores.database.get().await?, &cuts).await?,
        }
        // Where lanes left it, whichever they are: from there on events were published.
        let others = Ledger::rows(&**stores.database.get().await?).await?.into_iter();
        for row in others.filter(|row| row.partition == sources.event_store) {
            if let Some(kind) = LaneKind::ALL.into_iter().find(|kind| kind.name() == row.lane && kind.name() != lane) {
                cuts.insert((kind.name(), row.partition.clone()), Cut::of(&row, HashMap::new(), HashMap::new()));
            }
        }
        let stand_ins_from = publishing(&sources, &cuts).start;
        Ok(Self { stores, lane, from, cuts, sources, lost, stand_ins_from })
    }

    /// Records at most that are read.
    #[must_use]
    pub fn total(&self) -> i64 {
        self.cuts.iter().filter(|((lane, _), _)| *lane == self.lane).map(|(_, cut)| cut.below).sum()
    }

    /// From this position on, an event of the event store stands in for a record of a topic, whose coordinates are not known.
    #[must_use]
    pub fn is_stand_in(&self, event: &Located) -> bool {
        *event.record.partition.topic == *EVENT_STORE_TOPIC && event.record.offset >= self.stand_ins_from
    }

    /// What cannot be had from these sources, in words.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let gone: BTreeMap<&Partition, i64> = self
            .cuts
            .iter()
            .map(|((_, partition), cut)| (partition, self.lost.gone_below(partition).min(cut.below)))
            .filter(|(_, below)| *below > 0)
            .collect();
        let list: Vec<String> = gone.iter().map(|(partition, below)| format!("{below} of {partition}")).collect();
        let reads_topics = self.cuts.keys().any(|(_, partition)| *partition.topic != *EVENT_STORE_TOPIC);
        let mut notes = Vec::new();
        if !list.is_empty() {
            notes.push(format!(
                "topics hold no longer what is below {}: weir's own events are in the event store, other services' in history alone",
                list.join(", ")
            ));
        }
        if self.from == FillFrom::EventStore && reads_topics {
            notes.push("what topics still hold is filled from them: --source kafka".to_owned());
        }
        notes
    }

    /// Hands on the rows, in the order of their sources; records that are no event to this build are given in words. Ends early if the
    /// receiver does.
    pub async fn read(&self, rows: mpsc::Sender<Row>) -> Result<Vec<String>, RebuildError> {
        let (starts, database) = (Cuts::new(), self.stores.database);
        let (sources, cuts, lost) = (&self.sources, &self.cuts, &self.lost);
        let walk = Walk { database, sources, cuts, starts: &starts, lost, table: None, units: Units::default() };
        let taker = Taker { lane: self.lane, from: self.from, rows };
        let walked = Box::pin(Expected::walk_for(walk, taker)).await?;
        let of_lane = format!("{}: ", self.lane);
        let undecodable = walked.undecodable.into_iter().filter(|words| words.starts_with(&of_lane));
        Ok(undecodable.chain(walked.let_go.iter().map(LetGo::note)).collect())
    }
}

/// How far the lane is, and what it left out below. The ledger is read first: a dead letter that was redriven since is in the sink.
async fn cuts(stores: Stores<'_>, lane: &'static str) -> Result<Cuts, RebuildError> {
    let client = stores.database.get().await?;
    let rows = Ledger::rows(&**client).await?;
    let mut dead = dead_letters::offsets(&**client, lane).await?;
    let mut left_out = repeats::left_out(&**client, lane).await?;
    let mut cuts = Cuts::new();
    for row in rows.into_iter().filter(|row| row.lane == lane) {
        let dead = dead.remove(&row.partition).unwrap_or_default();
        let cut = Cut::of(&row, dead, left_out.remove(&row.partition).unwrap_or_default());
        cuts.insert((lane, row.partition), cut);
    }
    Ok(cuts)
}
