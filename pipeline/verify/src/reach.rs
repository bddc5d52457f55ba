//! How far everything that is enabled is, and why not further: what `weir verify` waits for, and what `weir status` shows.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use weir_engine::{PUBLISHER, Partition};
use weir_kafka::{KafkaOptions, Progress, TopicLog};
use weir_model::event_type::TOPICS;
use weir_postgres::parts::{self, Part};
use weir_postgres::publishing::Publishing;
use weir_postgres::{Database, EventStore, EventStoreSource, Ledger, LedgerRow};

use crate::{Stores, VerifyError};

/// How often it is looked again.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Where the sources end.
#[derive(Debug, Clone)]
pub struct Ends {
    /// The last position of the event store.
    pub head: i64,
    /// Where lanes read the event store.
    event_store: Partition,
    /// First offset and end of each partition of the topics, where lanes read those.
    topics: Option<BTreeMap<Partition, (i64, i64)>>,
    /// Everything up to this position is in the topics.
    pub published: Option<i64>,
}

impl Ends {
    /// As they are now.
    pub async fn now(stores: Stores<'_>) -> Result<Self, VerifyError> {
        let head = EventStore::new(stores.database.clone()).head().await?.0;
        let event_store = EventStoreSource::partition(stores.database).await?;
        let (mut topics, mut published) = (None, None);
        if let Some(kafka) = stores.kafka {
            published = Some(self::published(stores.database, kafka, &event_store).await?);
            topics = Some(TopicLog::open(kafka, &TOPICS).await?.ranges().clone());
        }
        Ok(Self { head, event_store, topics, published })
    }

    /// What a lane reads, with the first offset and the end of each.
    fn ranges(&self) -> Vec<(&Partition, (i64, i64))> {
        match &self.topics {
            Some(topics) => topics.iter().map(|(partition, range)| (partition, *range)).collect(),
            None => vec![(&self.event_store, (1, self.head + 1))],
        }
    }

    /// First offset and end of a partition that lanes read.
    #[must_use]
    pub fn of_partition(&self, partition: &Partition) -> Option<(i64, i64)> {
        self.ranges().into_iter().find(|(known, _)| *known == partition).map(|(_, range)| range)
    }

    /// How far a lane is, and where it would be at the end; summed over its partitions.
    #[must_use]
    pub fn of_lane(&self, lane: &str, ledger: &[LedgerRow]) -> (i64, i64) {
        let mut sums = (0, 0);
        for (partition, (low, end)) in self.ranges() {
            let row = ledger.iter().find(|row| row.lane == lane && row.partition == *partition);
            let next = row.and_then(LedgerRow::done_below).unwrap_or(low);
            sums = (sums.0 + next.min(end), sums.1 + end);
        }
        sums
    }

    /// The partitions of a lane that belong to none of these processes.
    #[must_use]
    pub fn orphans<'a>(&self, lane: &str, ledger: &'a [LedgerRow], parts: &[Part]) -> Vec<&'a LedgerRow> {
        let ranges = self.ranges();
        let is_read = |row: &LedgerRow| ranges.iter().any(|(partition, _)| **partition == row.partition);
        let has_owner = |row: &LedgerRow| {
            parts.iter().any(|part| part.part == lane && part.process == row.owner && !part.is_silent())
        };
        ledger.iter().filter(|r| r.lane == lane && r.retired_at.is_none() && is_read(r) && !has_owner(r)).collect()
    }
}

/// Everything up to this position was published, or read by lanes before `weir source switch kafka`: until something is published after it, Postgres
/// alone says so.
pub async fn published(database: &Database, kafka: &KafkaOptions, event_store: &Partition) -> Result<i64, VerifyError> {
    let progress = Progress::read(kafka, &event_store.source).await?;
    if progress.position > 0 {
        return Ok(progress.position);
    }
    let bound = Publishing::new(database.clone()).await?.lower_bound().await?;
    Ok(if let (position, true) = bound { position } else { 0 })
}

/// Whether a process tells that it does a part's work.
#[must_use]
pub fn is_live(part: &Part) -> bool {
    !part.is_silent() && part.phase != "stopped"
}

/// Why a part does not go on, and what to do, in words; `None` when nothing speaks against it.
#[must_use]
pub fn trouble(name: &str, rows: &[&Part]) -> Option<String> {
    let mut words = Vec::new();
    for part in rows {
        let who = format!("{}:{} (weir {})", part.host, part.pid, part.command);
        if part.phase == "stopped" {
            let why = part.trouble.as_deref().unwrap_or("it ended");
            words.push(format!("stopped in {who} at {}: {why}; mend that and start it again", part.since));
        } else if part.is_silent() {
            words.push(format!(
                "{who} has said nothing for {:.0} s: it hangs, or was killed; end it and start it again",
                part.silent_seconds
            ));
        } else if let Some(why) = &part.trouble {
            words.push(format!("{} in {who} since {}: {why}", part.phase, part.since));
        }
    }
    if rows.is_empty() {
        let start = if name == PUBLISHER {
            "weir up or weir publish".to_owned()
        } else {
            format!("weir up or weir run {name}")
        };
        words.push(format!("no process runs it: start {start}"));
    }
    (!words.is_empty()).then(|| words.join("; "))
}

/// Something that is not where it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreached {
    /// A lane, or the publisher.
    pub part: String,
    /// How far it is.
    pub reached: i64,
    /// How far it should be.
    pub end: i64,
    /// Why, and what to do.
    pub words: String,
}

/// Waits until everything enabled has passed what is in the event store and the topics now; gives what did not, and why. Nothing is
/// waited for that no process works on.
pub(crate) async fn wait(
    stores: Stores<'_>,
    lanes: &[&str],
    patience: Duration,
) -> Result<Vec<Unreached>, VerifyError> {
    let until = Instant::now() + patience;
    let mut ends = Ends::now(stores).await?;
    let head = ends.head;
    while ends.published.is_some_and(|published| published < head) {
        let parts = tell(stores.database).await?;
        if Instant::now() >= until || !parts.iter().any(|part| part.part == PUBLISHER && is_live(part)) {
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
        ends = Ends { head, ..Ends::now(stores).await? };
    }
    loop {
        let (ledger, parts) = (ledger(stores.database).await?, tell(stores.database).await?);
        let behind = |lane: &str| {
            let (reached, end) = ends.of_lane(lane, &ledger);
            reached < end
        };
        let works = |lane: &str| parts.iter().any(|part| part.part == lane && is_live(part));
        if Instant::now() < until && lanes.iter().any(|lane| behind(lane) && works(lane)) {
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        }
        return Ok(unreached(&ends, lanes, &ledger, &parts));
    }
}

fn unreached(ends: &Ends, lanes: &[&str], ledger: &[LedgerRow], parts: &[Part]) -> Vec<Unreached> {
    let of = |name: &str| parts.iter().filter(|part| part.part == name).collect::<Vec<_>>();
    let anything_runs = parts.iter().any(is_live);
    let mut found = Vec::new();
    if let Some(published) = ends.published {
        let words = trouble(PUBLISHER, &of(PUBLISHER));
        let stands = !of(PUBLISHER).is_empty() && !of(PUBLISHER).iter().any(|part| is_live(part));
        if published < ends.head || stands {
            let words = words.unwrap_or_else(|| "it is at work, and was waited for".to_owned());
            found.push(Unreached { part: PUBLISHER.to_owned(), reached: published.max(0), end: ends.head, words });
        }
    }
    for lane in lanes {
        let (reached, end) = ends.of_lane(lane, ledger);
        let rows = of(lane);
        let orphans = ends.orphans(lane, ledger, parts);
        let is_dead = anything_runs && !rows.iter().any(|part| is_live(part));
        let words = match trouble(lane, &rows) {
            Some(words) => words,
            None if !orphans.is_empty() && anything_runs => {
                let first = orphans.first().map_or_else(String::new, |row| row.partition.to_string());
                format!("{} of its partitions ({first} …) belong to no process that is at work", orphans.len())
            }
            None => "it is at work, and was waited for".to_owned(),
        };
        if reached < end || is_dead || (anything_runs && !orphans.is_empty()) {
            let never = if ledger.iter().any(|row| row.lane == *lane) { "" } else { "it never ran; " };
            found.push(Unreached { part: (*lane).to_owned(), reached, end, words: format!("{never}{words}") });
        }
    }
    found
}

async fn ledger(database: &Database) -> Result<Vec<LedgerRow>, VerifyError> {
    Ok(Ledger::rows(&**database.get().await?).await?)
}

async fn tell(database: &Database) -> Result<Vec<Part>, VerifyError> {
    Ok(parts::list(&**database.get().await?).await?)
}
