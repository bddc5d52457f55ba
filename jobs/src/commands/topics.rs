//! `weir topics diff|apply`

use std::process::ExitCode;

use serde_json::json;
use weir_engine::BoxError;
use weir_kafka::{Change, Topics};

use crate::instance::Place;
use crate::output::{Format, Rows, complain};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum TopicsCommand {
    /// Show what would change; exits 1 on a difference that cannot be applied
    Diff,
    /// Make topics, add partitions, change settings; never takes anything away
    Apply,
}

pub(crate) async fn run(place: &Place, command: TopicsCommand, format: Format) -> Result<ExitCode, BoxError> {
    let (_, settings) = place.open()?;
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
            table(&changes).print(format)?;
            topics.apply(&changes).await?
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

fn table(changes: &[Change]) -> Rows {
    let mut rows = Rows::new(&["topic", "what", "is", "should_be", "can_apply"]);
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
