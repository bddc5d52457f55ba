//! `weir status`

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};
use weir_engine::retry::chain;
use weir_engine::{BoxError, COMMANDS, LaneKind, PUBLISHER, SQL};
use weir_postgres::parts::{self, Part};
use weir_postgres::read_models;
use weir_postgres::repeats::{self, Reach};
use weir_postgres::{EventStore, Ledger, LedgerRow, dead_letters, job_runs};
use weir_verify::Stores;
use weir_verify::reach::{Ends, is_live, trouble};

use super::told_to_stop;
use crate::attached::{Attached, Target};
use crate::output::{Format, Listing, complain, say};
use crate::telling::is_gone;

const WATCH_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show it again every second, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// A line for each partition of each lane
    #[arg(long)]
    partitions: bool,
}

pub(crate) async fn run(target: &Target, args: Args, format: Format) -> Result<ExitCode, BoxError> {
    let attached = target.attach().await?;
    let shown = if args.watch { watch(&attached, &args, format).await } else { show(&attached, &args, format).await };
    attached.detach().await?;
    Ok(if shown? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn watch(attached: &Attached, args: &Args, format: Format) -> Result<bool, BoxError> {
    let told = told_to_stop();
    tokio::pin!(told);
    let in_place = format == Format::Table && std::io::stdout().is_terminal();
    loop {
        if in_place {
            // ECMA-48: erase the display, cursor to the top.
            say("\u{1b}[2J\u{1b}[H")?;
        }
        let is_well = show(attached, args, format).await?;
        tokio::select! {
            stopped = &mut told => { stopped?; return Ok(is_well) }
            () = tokio::time::sleep(WATCH_INTERVAL) => {}
        }
    }
}

/// Prints it; whether everything is well.
async fn show(attached: &Attached, args: &Args, format: Format) -> Result<bool, BoxError> {
    let status = read(attached).await?;
    let is_well = status["well"] == true;
    if format == Format::Json {
        say(&serde_json::to_string_pretty(&status)?)?;
        return Ok(is_well);
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
            ("repeats", &status["repeats"]["words"]),
        ] {
            if value.is_null() && name == "repeats" {
                continue;
            }
            say(&format!("{name:>20}  {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)))?;
        }
    }
    let (of, columns): (_, &[&str]) = match args.partitions {
        true => (
            "partitions",
            &["lane", "topic", "partition", "nextOffset", "lag", "epoch", "owner", "isOwned", "advancedAt"],
        ),
        false => ("parts", &["part", "state", "lag", "lagSeconds", "deadLetters", "processes", "partitions", "since"]),
    };
    let mut rows = Listing::new(columns);
    for row in status[of].as_array().into_iter().flatten() {
        rows.rows.push(columns.iter().map(|column| row[*column].clone()).collect());
    }
    rows.print(format)?;
    for part in status["parts"].as_array().into_iter().flatten() {
        if let (Some(name), Some(words)) = (part["part"].as_str(), part["trouble"].as_str()) {
            complain(&format!("{name}: {words}"));
        }
    }
    if let Some(words) = status["trouble"].as_str() {
        complain(words);
    }
    if !is_well {
        complain("not everything is well");
    }
    Ok(is_well)
}

/// What is known of one part from all that processes tell.
struct PartState<'a> {
    name: &'a str,
    rows: Vec<&'a Part>,
    orphans: usize,
    /// Whether any part is at work anywhere.
    anything_runs: bool,
    lag: Option<i64>,
    lag_seconds: Option<f64>,
}

impl PartState<'_> {
    /// One word for all of its processes.
    fn state(&self) -> &'static str {
        let live = || self.rows.iter().filter(|part| is_live(part));
        let any = |phase: &str| live().any(|part| part.phase == phase);
        if live().next().is_none() {
            return match (self.rows.iter().any(|part| part.phase == "stopped"), self.rows.first()) {
                (true, _) => "stopped",
                (false, Some(part)) if is_gone(part) => "killed",
                (false, Some(_)) => "silent",
                (false, None) => "not running",
            };
        }
        if any("waiting") {
            "waiting"
        } else if any("running") {
            "running"
        } else if any("starting") {
            "starting"
        } else {
            "standing by"
        }
    }

    fn trouble(&self) -> Option<String> {
        // At rest: nothing runs, and nothing is left to do.
        let is_done = self.lag == Some(0) || self.name == SQL;
        if self.rows.is_empty() && !self.anything_runs && is_done {
            return None;
        }
        let mut words: Vec<String> = trouble(self.name, &self.rows).into_iter().collect();
        if self.orphans > 0 && self.rows.iter().any(|part| is_live(part)) {
            words.push(format!(
                "{} partitions belong to no process that is at work; `weir status --partitions` names them",
                self.orphans
            ));
        }
        (!words.is_empty()).then(|| words.join("; "))
    }

    fn json(&self, dead_letters: i64) -> Value {
        let processes: Vec<Value> = self
            .rows
            .iter()
            .map(|part| json!({"told": part, "isSilent": part.is_silent(), "isGone": is_gone(part)}))
            .collect();
        let newest = self.rows.iter().filter(|part| is_live(part)).map(|part| &part.since).max();
        json!({
            "part": self.name,
            "state": self.state(),
            "lag": self.lag,
            "lagSeconds": self.lag_seconds.map(|seconds| (seconds * 10.0).round() / 10.0),
            "deadLetters": dead_letters,
            "processes": self.rows.iter().filter(|part| is_live(part)).count(),
            "partitions": self.rows.iter().filter(|part| is_live(part)).map(|part| part.partitions).sum::<i32>(),
            "since": newest.or_else(|| self.rows.first().map(|part| &part.since)),
            "trouble": self.trouble(),
            "told": processes,
        })
    }
}

async fn read(attached: &Attached) -> Result<Value, BoxError> {
    let running = attached.dir.is_running()?;
    let said = attached.dir.running().filter(|_| running);
    let store = EventStore::new(attached.database.clone());
    let (id, head) = (store.id().await?, store.head().await?.0);
    let client = attached.database.get().await?;
    let (letters, told) = (dead_letters::counts(&**client).await?, parts::list(&**client).await?);
    let reach = repeats::reach(&**client).await?;
    let (ledger, outdated) = (Ledger::rows(&**client).await?, read_models::are_outdated(&**client).await?);
    drop(client);
    let (kafka, clickhouse) = (attached.settings.kafka.options(), attached.settings.clickhouse.server());
    let stores = Stores {
        database: &attached.database,
        history: &attached.history,
        kafka: kafka.as_ref(),
        clickhouse: clickhouse.as_ref(),
    };
    // Everything else is worth knowing while the brokers are away.
    let (ends, away) = match Ends::now(stores).await {
        Ok(ends) => (Some(ends), None),
        Err(error) => (None, Some(format!("no lag is shown: {}", chain(&error)))),
    };
    let mut shown = Vec::new();
    for name in attached.settings.parts() {
        let state = part_state(name, &store, &told, &ledger, ends.as_ref()).await?;
        shown.push(state.json(letters.get(name).copied().unwrap_or(0)));
    }
    let pending = outdated.then(|| {
        let lane = LaneKind::ReadModels;
        format!("the read models are of an older layout; the lane {lane} rebuilds them before it goes on")
    });
    let refusing = told.iter().filter(|part| part.part == COMMANDS && is_live(part)).filter_map(|part| {
        let words = part.trouble.as_ref()?;
        Some(format!("{}:{} ({}) refuses commands: {words}", part.host, part.pid, part.command))
    });
    let jobs = trouble_of_jobs(attached).await?;
    let words: Vec<String> = away.into_iter().chain(pending).chain(refusing).chain(jobs).collect();
    let well = words.is_empty() && shown.iter().all(|part| part["trouble"].is_null());
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
        "repeats": (reach.records > 0).then(|| told_of(reach, attached.settings.dedup.window_records)),
        "well": well,
        "trouble": (!words.is_empty()).then(|| words.join("; ")),
        "parts": shown,
        "partitions": partitions(&ledger, &told, ends.as_ref()),
    }))
}

/// Jobs of the schedule whose last run did not go well, and those that it leaves out.
async fn trouble_of_jobs(attached: &Attached) -> Result<Vec<String>, BoxError> {
    let client = attached.database.get().await?;
    let is_scheduled =
        |job: &str| attached.settings.jobs.get(job).is_some_and(|settings| !settings.schedule.is_empty());
    let mut words = Vec::new();
    for run in job_runs::last(&**client).await?.into_iter().filter(|run| is_scheduled(&run.job)) {
        let outcome = run.outcome.unwrap_or_default();
        if ["failed", "different", "abandoned"].contains(&outcome.as_str()) {
            words.push(format!("the last run of the job {}, {}, is {outcome}: {}", run.job, run.id, run.detail));
        }
    }
    for (job, since, why) in job_runs::paused(&**client).await? {
        words.push(format!("the job {job} is paused since {since}: {why}"));
    }
    Ok(words)
}

/// The window in which repeats are recognised, in hours too.
fn told_of(reach: Reach, window: i64) -> Value {
    #[allow(clippy::as_conversions, reason = "for people: three digits of it are shown")]
    let hours = (reach.last_hour > 0).then(|| window as f64 / reach.last_hour as f64);
    let at_this_rate = hours.map_or_else(
        || "nothing came in the last hour".to_owned(),
        |hours| format!("{hours:.1} h at the rate of the last hour"),
    );
    json!({
        "windowRecords": window,
        "records": reach.records,
        "hours": hours,
        "words": format!("other services' are left out within {window} records: {at_this_rate}"),
    })
}

async fn part_state<'a>(
    name: &'a str,
    store: &EventStore,
    told: &'a [Part],
    ledger: &[LedgerRow],
    ends: Option<&Ends>,
) -> Result<PartState<'a>, BoxError> {
    let rows = told.iter().filter(|part| part.part == name).collect();
    let mut state =
        PartState { name, rows, orphans: 0, anything_runs: told.iter().any(is_live), lag: None, lag_seconds: None };
    // SQL reads what is there, and is behind nothing.
    let Some(ends) = ends.filter(|_| name != SQL) else { return Ok(state) };
    let next = if name == PUBLISHER {
        state.lag = ends.published.map(|published| (ends.head - published).max(0));
        ends.published.map(|published| published + 1)
    } else {
        let (reached, end) = ends.of_lane(name, ledger);
        state.lag = Some((end - reached).max(0));
        state.orphans = ends.orphans(name, ledger, told).len();
        // Offsets of topics are no positions.
        ends.published.is_none().then_some(reached)
    };
    if let Some(next) = next {
        state.lag_seconds =
            if state.lag == Some(0) { Some(0.0) } else { store.age_of(weir_model::Position(next)).await? };
    }
    Ok(state)
}

fn partitions(ledger: &[LedgerRow], told: &[Part], ends: Option<&Ends>) -> Vec<Value> {
    let current = ledger.iter().filter(|row| row.retired_at.is_none());
    current
        .map(|row| {
            let one = std::slice::from_ref(row);
            let end = ends.and_then(|ends| ends.of_partition(&row.partition));
            let is_owned = ends.is_some_and(|ends| ends.orphans(&row.lane, one, told).is_empty());
            json!({
                "lane": row.lane,
                "source": &*row.partition.source,
                "topic": &*row.partition.topic,
                "partition": row.partition.number,
                "nextOffset": row.next_offset,
                // Of a topic: records and commit markers, as the ecosystem's tools count them.
                "lag": end.map(|(low, end)| (end - row.next_offset.unwrap_or(low)).max(0)),
                "epoch": row.epoch,
                "owner": row.owner,
                "isOwned": is_owned,
                "advancedAt": row.advanced_at.to_string(),
            })
        })
        .collect()
}
