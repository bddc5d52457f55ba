//! `weir status`

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};
use weir_engine::BoxError;
use weir_engine::retry::chain;
use weir_kafka::TopicLog;
use weir_model::event::TOPICS;
use weir_postgres::{EVENT_STORE_TOPIC, EventStore, Ledger, dead_letters};

use super::told_to_stop;
use crate::instance::{Attached, Place};
use crate::output::{Format, Rows, complain, say};

const WATCH_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show it anew every second, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

pub(crate) async fn run(place: &Place, args: Args, format: Format) -> Result<ExitCode, BoxError> {
    let attached = place.attach().await?;
    let shown = if args.watch { watch(&attached, format).await } else { show(&attached, format).await };
    attached.detach().await?;
    shown.map(|()| ExitCode::SUCCESS)
}

async fn watch(attached: &Attached, format: Format) -> Result<(), BoxError> {
    let told = told_to_stop();
    tokio::pin!(told);
    let in_place = format == Format::Table && std::io::stdout().is_terminal();
    loop {
        if in_place {
            // ECMA-48: erase the display, cursor to the top.
            say("\u{1b}[2J\u{1b}[H")?;
        }
        show(attached, format).await?;
        tokio::select! {
            stopped = &mut told => return Ok(stopped?),
            () = tokio::time::sleep(WATCH_INTERVAL) => {}
        }
    }
}

async fn show(attached: &Attached, format: Format) -> Result<(), BoxError> {
    let status = read(attached).await?;
    if format == Format::Json {
        return Ok(say(&serde_json::to_string_pretty(&status)?)?);
    }
    if format == Format::Table {
        for (name, value) in [
            ("data directory", &status["dataDir"]),
            ("running", &status["running"]),
            ("api", &status["addresses"]["api"]),
            ("metrics", &status["addresses"]["metrics"]),
            ("postgres (read-only)", &status["addresses"]["postgres"]),
            ("history", &status["addresses"]["history"]),
            ("events", &status["eventStore"]["head"]),
        ] {
            say(&format!("{name:>20}  {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)))?;
        }
    }
    let columns = ["lane", "topic", "partition", "nextOffset", "lag", "deadLetters", "epoch", "owner", "advancedAt"];
    let mut rows = Rows::new(&columns);
    for lane in status["lanes"].as_array().into_iter().flatten() {
        rows.rows.push(columns.iter().map(|column| lane[*column].clone()).collect());
    }
    Ok(rows.print(format)?)
}

async fn read(attached: &Attached) -> Result<Value, BoxError> {
    let running = attached.dir.is_running()?;
    let said = attached.dir.running().filter(|_| running);
    let store = EventStore::new(attached.database.clone());
    let (id, head) = (store.id().await?, store.head().await?.0);
    let client = attached.database.get().await?;
    let letters = dead_letters::counts(&**client).await?;
    let topics = match attached.settings.kafka.options() {
        // Everything else is worth knowing while the brokers are away.
        Some(kafka) => TopicLog::open(&kafka, &TOPICS)
            .await
            .inspect_err(|error| complain(&format!("no lag is shown: {}", chain(error))))
            .ok(),
        None => None,
    };
    let lanes: Vec<Value> = Ledger::rows(&**client)
        .await?
        .into_iter()
        .filter(|row| row.retired_at.is_none())
        .map(|row| {
            let in_topics = topics.as_ref().and_then(|topics| topics.ranges().get(&row.partition));
            let next = row.next_offset.unwrap_or_else(|| in_topics.map_or(1, |(low, _)| *low));
            // Of a topic: records and commit markers, as the ecosystem's tools count them.
            let end = match in_topics {
                Some((_, high)) => Some(*high),
                None => (*row.partition.topic == *EVENT_STORE_TOPIC).then_some(head + 1),
            };
            json!({
                "lane": row.lane,
                "source": &*row.partition.source,
                "topic": &*row.partition.topic,
                "partition": row.partition.number,
                "nextOffset": next,
                "lag": end.map(|end| (end - next).max(0)),
                "deadLetters": letters.get(&row.lane).copied().unwrap_or(0),
                "epoch": row.epoch,
                "owner": row.owner,
                "advancedAt": row.advanced_at.to_string(),
            })
        })
        .collect();
    // The server of a data directory where nothing runs stops again with this command: its address would be of no use.
    let postgres = match &attached.server {
        Some(server) => running.then(|| server.reader_url()),
        None => Some(attached.settings.postgres.reader_url.clone()).filter(|url| !url.is_empty()),
    };
    Ok(json!({
        "dataDir": attached.dir.path(),
        "running": running,
        "pid": said.as_ref().map(|s| s.pid),
        "addresses": {
            "api": said.as_ref().map(|s| s.api.clone()),
            "metrics": said.as_ref().map(|s| format!("{}/metrics", s.api)),
            "postgres": postgres,
            "history": attached.history.url.join("events")?.as_str(),
        },
        "eventStore": {"id": id, "head": head},
        "lanes": lanes,
    }))
}
