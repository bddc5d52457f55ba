//! `weir demo`: everything in one process, driven by made-up learners, on one screen.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use weir_engine::BoxError;
use weir_engine::retry::Backoff;
use weir_model::TenantId;
use weir_postgres::metric_totals::MetricTotals;
use weir_postgres::tokens::{self, Scope};
use weir_postgres::{Caller, CommandError, CommandRequest, CommandService, Expected};

use super::{end_at_second_signal, told_to_stop, verify};
use crate::attached::Target;
use crate::instance::{Instance, View};
use crate::output::{Format, complain};

mod clickhouse;
mod learners;

use learners::{Learners, Step};

/// Commands on their way at once, at most.
const IN_FLIGHT_MAX: usize = 256;

const REFRESH: Duration = Duration::from_millis(500);

/// Rates are means over this long: history commits every ten seconds.
const RATE_WINDOW: Duration = Duration::from_secs(11);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Stop after this many events, and print the verify table
    #[arg(long)]
    events: Option<u64>,
    /// Commands a second [default: demo.events_per_second, 200]
    #[arg(long)]
    rate: Option<f64>,
    /// With a ClickHouse of the demo's own, fetched at first use (under `cargo demo` only; elsewhere set clickhouse.url)
    #[arg(long)]
    clickhouse: bool,
}

pub(crate) async fn run(mut target: Target, args: Args, format: Format) -> Result<ExitCode, BoxError> {
    // Two demos on one machine should not quarrel about a port; one that is named is taken.
    if !target.set.iter().any(|flag| flag.starts_with("api.listen=")) {
        target.set.insert(0, "api.listen=127.0.0.1:0".to_owned());
    }
    let _clickhouse = match args.clickhouse {
        true => Some(clickhouse::ClickHouseServer::start(&mut target).await?),
        false => None,
    };
    let told = told_to_stop();
    tokio::pin!(told);
    complain("starting …");
    let mut instance = tokio::select! {
        started = Box::pin(Instance::start(&target)) => started?,
        stopped = &mut told => { stopped?; return Ok(ExitCode::SUCCESS) }
    };
    let rate = args.rate.unwrap_or(instance.view.attached.settings.demo.events_per_second).clamp(0.1, 1e6);
    let token_file = write_token(&instance.view).await?;
    let appended = Arc::new(AtomicU64::new(0));
    let driving = drive(instance.view.commands.clone(), appended.clone(), rate, args.events);
    tokio::pin!(driving);
    let mut screen = Screen::new(&instance.view, &token_file);
    let mut refresh = tokio::time::interval(REFRESH);
    let (mut driven, mut finished) = (false, false);
    let failure = {
        let failed = instance.watch.failed();
        tokio::pin!(failed);
        loop {
            tokio::select! {
                stopped = &mut told => { stopped?; break None }
                error = &mut failed => break Some(error),
                done = &mut driving, if !driven => match done {
                    Ok(()) => driven = true,
                    Err(error) => break Some(error),
                },
                _ = refresh.tick() => {
                    screen.show(&instance.view, appended.load(Ordering::Relaxed)).await;
                    if driven && instance.view.is_caught_up().await {
                        finished = true;
                        break None;
                    }
                }
            }
        }
    };
    screen.close();
    end_at_second_signal();
    let next = next_steps(&instance.view);
    let (attached, stopped) = instance.stop().await?;
    let failure = failure.or(stopped);
    let equal = if finished && failure.is_none() {
        verify::show(&attached, Duration::from_secs(60), format).await
    } else {
        Ok(true)
    };
    attached.detach().await?;
    if failure.is_none() {
        next.iter().for_each(|line| complain(line));
    }
    match failure {
        Some(error) => Err(error),
        None => Ok(if equal? { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
    }
}

/// What is worth trying on what a demo left, each to be pasted.
fn next_steps(instance: &View) -> [String; 4] {
    let dir = instance.attached.dir.path().display();
    let weir = std::env::current_exe().map_or_else(|_| "weir".to_owned(), |path| path.display().to_string());
    [
        "worth trying on what is left:".to_owned(),
        format!("  {weir} ask attempts_by_assessment --data-dir {dir}"),
        format!("  {weir} sql --data-dir {dir} 'SELECT event_type, count(*) FROM events GROUP BY 1 ORDER BY 2 DESC'"),
        format!("  {weir} status --data-dir {dir}"),
    ]
}

/// For the curl line; the secret stays in a file of the data directory that only its owner reads.
async fn write_token(instance: &View) -> Result<std::path::PathBuf, BoxError> {
    let header = instance.attached.dir.join("demo.header");
    let client = instance.attached.database.get().await?;
    for old in tokens::list(&**client).await?.into_iter().filter(|t| t.name == "demo" && t.revoked_at.is_none()) {
        tokens::revoke(&**client, &old.id).await?;
    }
    let token = tokens::create(&**client, &TenantId::default(), "demo", &[Scope::Command, Scope::Read]).await?;
    let line = format!("Authorization: Bearer {token}\n");
    crate::data_dir::write_bytes(&header, line.as_bytes(), |_| Ok(()))?;
    Ok(header)
}

/// Sends commands at a steady rate, until each of `events` is stored.
async fn drive(
    commands: CommandService,
    appended: Arc<AtomicU64>,
    rate: f64,
    events: Option<u64>,
) -> Result<(), BoxError> {
    let mut learners = Learners::new(rand::random());
    let run = learners.run().to_owned();
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate.min(1000.0)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let started = Instant::now();
    let mut in_flight: JoinSet<Result<Step, CommandError>> = JoinSet::new();
    let mut sent = 0_u64;
    let is_open = |sent| events.is_none_or(|events| sent < events);
    while is_open(sent) || !in_flight.is_empty() {
        let may_send = is_open(sent) && in_flight.len() < IN_FLIGHT_MAX;
        tokio::select! {
            Some(stored) = in_flight.join_next() => {
                appended.fetch_add(1, Ordering::Relaxed);
                learners.stored(stored??);
            }
            _ = ticks.tick(), if may_send => {
                // Above a thousand a second each tick stands for several commands.
                let due = started.elapsed().as_secs_f64() * rate;
                while u64_as_f64(sent) < due && is_open(sent) && in_flight.len() < IN_FLIGHT_MAX {
                    let key = format!("demo-{run}-{sent}");
                    in_flight.spawn(Box::pin(send(commands.clone(), learners.next(), key, run.clone())));
                    sent += 1;
                }
            }
        }
    }
    Ok(())
}

/// Repeats a command under its key until it is acknowledged, as a good client does.
async fn send(commands: CommandService, step: Step, key: String, run: String) -> Result<Step, CommandError> {
    let mut backoff = Backoff::default();
    loop {
        let correlation_id = Some(format!("demo-{run}").into());
        let caller = Caller {
            tenant: TenantId::default(),
            source: "demo".to_owned(),
            metadata: weir_model::Metadata { correlation_id, ..Default::default() },
            idempotency_key: Some(key.clone()),
        };
        let (command, data) = (step.command, step.data.clone());
        match commands.execute(CommandRequest { caller, command, data, expected: Expected::Any }).await {
            Ok(_) => return Ok(step),
            Err(error) if error.may_be_repeated() => {
                tracing::warn!(key, error = weir_engine::retry::chain(&error), "a command is repeated");
                backoff.wait(&CancellationToken::new()).await;
            }
            Err(error) => return Err(error),
        }
    }
}

#[allow(clippy::as_conversions, reason = "a count of commands, far below 2^53")]
fn u64_as_f64(n: u64) -> f64 {
    n as f64
}

/// One screen that updates in place, or plain lines where there is no terminal.
struct Screen {
    lines: Option<(MultiProgress, Vec<ProgressBar>)>,
    /// What was counted in the last seconds: when, events appended, each lane's offset.
    seen: VecDeque<(Instant, u64, Vec<i64>)>,
    shown: Instant,
    footer: Vec<String>,
}

impl Screen {
    fn new(instance: &View, token_file: &std::path::Path) -> Self {
        let api = &instance.api;
        let dir = instance.attached.dir.path().display();
        let weir = std::env::current_exe().map_or_else(|_| "weir".to_owned(), |path| path.display().to_string());
        let flags = instance.attached.settings.clickhouse.flags();
        let footer = vec![
            format!(
                "try    curl -H @{} -H 'Content-Type: application/json' {api}/v1/commands/StartLearningSession -d \
                 '{{\"sessionId\":\"mine\",\"userId\":\"me\",\"learningPathId\":\"algebra\",\"moduleId\":\"m1\"}}'",
                token_file.display()
            ),
            format!(
                "query  {weir} sql --data-dir {dir} 'SELECT event_type, count(*) FROM events GROUP BY 1 ORDER BY 2 DESC'"
            ),
            format!(
                "ask    {weir} ask attempts_by_assessment --data-dir {dir}     who takes what, how often, and passes when"
            ),
            format!(
                "check  {weir} verify --data-dir {dir}{flags}     metrics {api}/metrics     Ctrl-C drains and ends"
            ),
        ];
        let lines = std::io::stderr().is_terminal().then(|| {
            let screen = MultiProgress::new();
            let style = ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
            let bars = (0..11).map(|_| screen.add(ProgressBar::new_spinner().with_style(style.clone()))).collect();
            (screen, bars)
        });
        if lines.is_none() {
            for line in &footer {
                complain(line);
            }
        }
        let long_ago = Instant::now().checked_sub(Duration::from_secs(60)).unwrap_or_else(Instant::now);
        Self { lines, seen: VecDeque::new(), shown: long_ago, footer }
    }

    async fn show(&mut self, instance: &View, appended: u64) {
        let interval = if self.lines.is_some() { REFRESH } else { Duration::from_secs(2) };
        if self.shown.elapsed() + Duration::from_millis(50) < interval {
            return;
        }
        self.shown = Instant::now();
        let lanes = instance.board.lanes();
        let offsets: Vec<i64> = lanes.values().map(|lane| lane.next_offset).collect();
        while self.seen.front().is_some_and(|(at, ..)| at.elapsed() > RATE_WINDOW) {
            self.seen.pop_front();
        }
        self.seen.push_back((Instant::now(), appended, offsets));
        let Some((since, appended_then, offsets_then)) = self.seen.front() else { return };
        let seconds = since.elapsed().as_secs_f64().max(0.5);
        let rate = u64_as_f64(appended.saturating_sub(*appended_then)) / seconds;
        let mut lines = vec![format!("events appended {appended:>9}   {rate:>7.0}/s")];
        for (index, (name, lane)) in lanes.iter().enumerate() {
            // A lane that has not claimed yet stands at 0.
            let before = offsets_then.get(index).copied().filter(|offset| *offset > 0).unwrap_or(lane.next_offset);
            let rate = u64_as_f64(u64::try_from(lane.next_offset - before).unwrap_or(0)) / seconds;
            let trouble = lane.trouble.as_ref().map(|t| format!("   {t}")).unwrap_or_default();
            lines.push(format!(
                "{name:<12} offset {:>9}   {rate:>7.0}/s   lag {:>7}{trouble}",
                lane.next_offset,
                lane.lag()
            ));
        }
        lines.push(counters(instance).await);
        let Some((_, bars)) = &self.lines else {
            complain(&lines.join(" | "));
            return;
        };
        lines.push(String::new());
        lines.extend(self.footer.iter().cloned());
        for (bar, line) in bars.iter().zip(lines) {
            bar.set_message(line);
            bar.tick();
        }
    }

    fn close(&mut self) {
        if let Some((_, bars)) = &self.lines {
            bars.iter().for_each(ProgressBar::finish);
        }
    }
}

async fn counters(instance: &View) -> String {
    let totals = async {
        let client = instance.attached.database.get().await?;
        MetricTotals::read(&**client).await
    };
    let Ok(totals) = totals.await else { return "counters: the database is away".to_owned() };
    let sum = |name: &str| totals.counters.iter().filter(|((n, _), _)| n == name).map(|(_, v)| v).sum::<i64>();
    format!(
        "registered {}   uploads {}   sessions {}   tasks completed {}   events applied {}",
        sum("users_registered_total"),
        sum("content_uploads_total"),
        sum("learning_sessions_started_total"),
        sum("tasks_completed_total"),
        sum("events_applied_total"),
    )
}
