//! `weir ledger show|reset`

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde_json::json;
use weir_engine::{BoxError, LaneKind, Partition, UnknownLane};
use weir_kafka::TopicLog;
use weir_postgres::{EVENT_STORE_TOPIC, EventStore, EventStoreSource, Ledger};

use crate::attached::{Attached, Target};
use crate::output::{Format, Listing, complain};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum LedgerCommand {
    /// Every lane's progress: where it goes on, in which epoch, who claimed it when
    Show {
        /// Of this lane only
        #[arg(long)]
        lane: Option<String>,
    },
    /// Decide where a lane goes on in a partition that it cannot read from where it stands: records that were removed before
    /// it read them, or a topic that was made again. Forward only; clickhouse also back, to fill its table again, and history where
    /// its table was moved aside
    Reset(Reset),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Reset {
    /// Which lane
    lane: String,
    #[arg(long)]
    topic: String,
    /// All of the topic's without it
    #[arg(long)]
    partition: Option<i32>,
    /// earliest (the first record that is there), latest (the next one to come), or an offset
    #[arg(long, value_name = "earliest|latest|OFFSET")]
    to: String,
    /// What lies between is lost for this lane: yes
    #[arg(long)]
    yes: bool,
}

pub(crate) async fn run(target: &Target, command: LedgerCommand, format: Format) -> Result<ExitCode, BoxError> {
    let attached = target.attach().await?;
    let done = match command {
        LedgerCommand::Show { lane } => show(&attached, lane.as_deref(), format).await,
        LedgerCommand::Reset(reset) => self::reset(&attached, &reset).await,
    };
    attached.detach().await?;
    done.map(|()| ExitCode::SUCCESS)
}

async fn reset(attached: &Attached, reset: &Reset) -> Result<(), BoxError> {
    let ranges = ranges(attached, reset).await?;
    let wanted = ranges.iter().filter(|(partition, _)| reset.partition.is_none_or(|n| n == partition.number));
    let wanted: Vec<_> = wanted.collect();
    if wanted.is_empty() {
        let number = reset.partition.map_or_else(String::new, |number| format!("partition {number} of "));
        return Err(format!("there is no {number}{}", reset.topic).into());
    }
    let mut resets = Vec::new();
    for (partition, range) in wanted {
        resets.push((partition.clone(), offset_in(reset, partition, *range)?));
    }
    // The log first: where it is ahead of the ledger, the next claim moves the ledger up.
    let may_go_back = match kind_of(attached, &reset.lane)? {
        Some(LaneKind::History) => weir_history::reset(&attached.history, &reset.lane, &resets).await?,
        kind => vec![kind.is_some_and(LaneKind::takes_records_again); resets.len()],
    };
    for ((partition, offset), may_go_back) in resets.into_iter().zip(may_go_back) {
        Ledger::reset(&attached.database, &reset.lane, &partition, offset, may_go_back).await?;
        complain(&format!("{} goes on at {offset} of {partition}", reset.lane));
    }
    Ok(())
}

/// Which of weir's lanes it is; `None` for one of the program's own.
fn kind_of(attached: &Attached, lane: &str) -> Result<Option<LaneKind>, UnknownLane> {
    if attached.settings.own.get(lane).is_some() { Ok(None) } else { lane.parse().map(Some) }
}

/// What there is of the topic to read.
async fn ranges(attached: &Attached, reset: &Reset) -> Result<BTreeMap<Partition, (i64, i64)>, BoxError> {
    if reset.topic != EVENT_STORE_TOPIC {
        let log = TopicLog::open(&attached.settings.kafka.required()?, &[&reset.topic]).await?;
        return Ok(log.ranges().clone());
    }
    if !kind_of(attached, &reset.lane)?.is_some_and(LaneKind::takes_records_again) {
        return Err(format!(
            "nothing is ever removed from the event store: {} can read it from where it stands",
            reset.lane
        )
        .into());
    }
    if attached.settings.kafka.options().is_some() {
        return Err("with brokers the lanes read topics: name one of those".into());
    }
    let head = EventStore::new(attached.database.clone()).head().await?;
    Ok(BTreeMap::from([(EventStoreSource::partition(&attached.database).await?, (1, head.0 + 1))]))
}

fn offset_in(reset: &Reset, partition: &Partition, (low, high): (i64, i64)) -> Result<i64, BoxError> {
    let Reset { lane, to, yes, .. } = reset;
    let offset = match to.as_str() {
        "earliest" => low,
        "latest" => high,
        given => given.parse().map_err(|_| format!("--to {given}: write earliest, latest or an offset"))?,
    };
    if !(low..=high).contains(&offset) {
        return Err(format!("{partition} has records from {low} to {high}; {offset} is none of them").into());
    }
    if !yes {
        return Err(format!("{lane} would go on at {offset} of {partition}, and what it has not read before that is lost for it; say --yes").into());
    }
    Ok(offset)
}

async fn show(attached: &Attached, lane: Option<&str>, format: Format) -> Result<(), BoxError> {
    let columns = [
        "lane",
        "source",
        "topic",
        "partition",
        "next_offset",
        "epoch",
        "owner",
        "claimed_at",
        "advanced_at",
        "retired_at",
    ];
    let mut rows = Listing::new(&columns);
    let client = attached.database.get().await?;
    for row in Ledger::rows(&**client).await?.into_iter().filter(|row| lane.is_none_or(|lane| row.lane == lane)) {
        rows.rows.push(vec![
            json!(row.lane),
            json!(&*row.partition.source),
            json!(&*row.partition.topic),
            json!(row.partition.number),
            json!(row.next_offset),
            json!(row.epoch),
            json!(row.owner),
            json!(row.claimed_at.to_string()),
            json!(row.advanced_at.to_string()),
            json!(row.retired_at.map(|at| at.to_string())),
        ]);
    }
    Ok(rows.print(format)?)
}
