//! `weir status`

use std::process::ExitCode;

use serde_json::{Value, json};
use weir_engine::BoxError;
use weir_postgres::{EventStore, Ledger, dead_letters};

use crate::instance::{Attached, Place};
use crate::output::{Format, Rows, say};

pub(crate) async fn run(place: &Place, format: Format) -> Result<ExitCode, BoxError> {
    let attached = place.attach().await?;
    let status = read(&attached).await;
    let status = match status {
        Ok(status) => status,
        Err(error) => {
            attached.detach().await?;
            return Err(error);
        }
    };
    attached.detach().await?;
    if format == Format::Json {
        say(&serde_json::to_string_pretty(&status)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if format == Format::Table {
        for (name, value) in [
            ("data directory", &status["dataDir"]),
            ("running", &status["running"]),
            ("api", &status["addresses"]["api"]),
            ("metrics", &status["addresses"]["metrics"]),
            ("postgres (read-only)", &status["addresses"]["postgres"]),
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
    rows.print(format)?;
    Ok(ExitCode::SUCCESS)
}

async fn read(attached: &Attached) -> Result<Value, BoxError> {
    let running = attached.dir.is_running()?;
    let said = attached.dir.running().filter(|_| running);
    let store = EventStore::new(attached.database.clone());
    let (id, head) = (store.id().await?, store.head().await?.0);
    let client = attached.database.get().await?;
    let letters = dead_letters::counts(&**client).await?;
    let lanes: Vec<Value> = Ledger::rows(&**client)
        .await?
        .into_iter()
        .map(|row| {
            let next = row.next_offset.unwrap_or(1);
            json!({
                "lane": row.lane,
                "source": &*row.partition.source,
                "topic": &*row.partition.topic,
                "partition": row.partition.number,
                "nextOffset": next,
                "lag": (head + 1 - next).max(0),
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
            "history": attached.history.join("events")?.as_str(),
        },
        "eventStore": {"id": id, "head": head},
        "lanes": lanes,
    }))
}
