//! `weir topics diff|apply`

use std::process::ExitCode;

use serde_json::json;
use weir_engine::{BoxError, Partition};
use weir_kafka::{Change, KafkaOptions, TopicLog, Topics};
use weir_postgres::publishing::Publishing;
use weir_postgres::{Ledger, dead_letters};

use crate::attached::{Attached, Target};
use crate::output::{Format, Listing, complain};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum TopicsCommand {
    /// Show what would change; exits 1 on a difference that cannot be applied
    Diff,
    /// Make topics, add partitions, change settings; never takes anything away
    Apply,
}

pub(crate) async fn run(target: &Target, command: TopicsCommand, format: Format) -> Result<ExitCode, BoxError> {
    let (_, settings) = target.open()?;
    let kafka = settings.kafka.required()?;
    let topics = Topics::open(&kafka, settings.topic_specs())?;
    for warning in &topics.warnings {
        complain(&format!("warning: {warning}"));
    }
    let changes = topics.diff().await?;
    let left = match command {
        TopicsCommand::Diff => {
            table(&changes).print(format)?;
            changes
        }
        TopicsCommand::Apply => {
            let changes = at_rest(target, &kafka, changes).await?;
            table(&changes).print(format)?;
            let mut left = topics.apply(&changes).await?;
            for change in &mut left {
                let same = changes.iter().find(|c| (&c.topic, &c.what) == (&change.topic, &change.what));
                change.obstacle = same.and_then(|same| same.obstacle.clone()).or(change.obstacle.take());
            }
            left
        }
    };
    let stuck: Vec<&Change> = left.iter().filter(|change| change.obstacle.is_some()).collect();
    for change in &stuck {
        let obstacle = change.obstacle.as_deref().unwrap_or_default();
        complain(&format!(
            "{}: {} is {} and should be {}: {obstacle}",
            change.topic, change.what, change.is, change.should_be
        ));
    }
    let failed = matches!(command, TopicsCommand::Apply) && !left.is_empty();
    Ok(if stuck.is_empty() && !failed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// More partitions move keys to other ones, where a later event could overtake an earlier one: a topic that has records grows
/// only while no process publishes and every lane has read all of them.
async fn at_rest(target: &Target, kafka: &KafkaOptions, mut changes: Vec<Change>) -> Result<Vec<Change>, BoxError> {
    let mut growing = Vec::new();
    for change in changes.iter_mut().filter(|change| change.what == "partitions" && change.obstacle.is_none()) {
        let log = TopicLog::open(kafka, &[&change.topic]).await?;
        if log.ranges().values().any(|(low, high)| low < high) {
            growing.push((change, log));
        }
    }
    if growing.is_empty() {
        return Ok(changes);
    }
    let attached = target.attach().await?;
    let looked = async {
        for (change, log) in growing {
            change.obstacle = obstacle(&attached, &change.topic, &log).await?;
        }
        Ok::<_, BoxError>(())
    };
    let looked = looked.await;
    attached.detach().await?;
    looked?;
    Ok(changes)
}

async fn obstacle(attached: &Attached, topic: &str, log: &TopicLog) -> Result<Option<String>, BoxError> {
    const WHY: &str = "keys would move, and later events of a key could overtake earlier ones";
    if let Some(owner) = Publishing::new(attached.database.clone())
        .await?
        .at_work(attached.settings.publisher_options()?.takeover_after)
        .await?
    {
        return Ok(Some(format!("{owner} publishes: stop it first, and let the lanes drain; {WHY}")));
    }
    let client = attached.database.get().await?;
    if dead_letters::any_parked(&**client, topic).await? {
        return Ok(Some(format!(
            "there are parked keys: `weir dead-letters list` shows them, redrive them first; {WHY}"
        )));
    }
    let rows = Ledger::rows(&**client).await?;
    for lane in attached.settings.lanes() {
        let from = |partition: &Partition, low: i64| {
            let row = rows.iter().find(|row| row.lane == lane && row.partition == *partition);
            row.and_then(|row| row.next_offset).unwrap_or(low)
        };
        let starts = log.ranges().iter().map(|(partition, (low, _))| (partition.clone(), from(partition, *low)));
        if let Some(partition) = log.first_unread(starts.collect()).await? {
            let cure = "run it until it has caught up";
            return Ok(Some(format!("the lane {lane} is behind in {partition}: {cure}; {WHY}")));
        }
    }
    Ok(None)
}

fn table(changes: &[Change]) -> Listing {
    let mut rows = Listing::new(&["topic", "what", "is", "should_be", "can_apply"]);
    for change in changes {
        rows.rows.push(vec![
            json!(change.topic),
            json!(change.what),
            json!(change.is),
            json!(change.should_be),
            json!(change.obstacle.is_none()),
        ]);
    }
    rows
}
