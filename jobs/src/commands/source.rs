//! `weir source switch kafka`: moves a used data directory from the event store's lanes to Kafka's, without one number
//! changing.

use std::process::ExitCode;

use weir_engine::BoxError;
use weir_kafka::Topics;
use weir_postgres::{EventStore, switching};

use crate::attached::{Attached, Target};
use crate::output::complain;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum SourceCommand {
    /// Let the lanes read another source from where they are
    Switch {
        /// The new source
        #[arg(value_parser = ["kafka"])]
        to: String,
    },
}

pub(crate) async fn run(target: &Target, command: SourceCommand) -> Result<ExitCode, BoxError> {
    let SourceCommand::Switch { to: _ } = command;
    let attached = target.attach().await?;
    let switched = switch(&attached).await;
    attached.detach().await?;
    switched.map(|()| ExitCode::SUCCESS)
}

async fn switch(attached: &Attached) -> Result<(), BoxError> {
    let kafka = attached.settings.kafka.required()?;
    let topics = Topics::open(&kafka, attached.settings.topic_specs())?;
    if let Some(missing) = topics.diff().await?.into_iter().find(|change| change.what == "topic") {
        return Err(format!("there is no topic {}; `weir topics apply` makes it", missing.topic).into());
    }
    // No lane may commit between the look at where they stand and the switch: they run inside an instance.
    let _lock = attached.dir.lock_instance()?;
    let head = EventStore::new(attached.database.clone()).head().await?;
    let position = switching::to_kafka(&attached.database, &attached.settings.lanes(), head).await?;
    complain(&format!(
        "switched at position {position}: later events go through Kafka; start with `weir up`, or `weir publish` and `weir run`"
    ));
    Ok(())
}
