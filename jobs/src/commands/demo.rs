//! `weir demo`: everything in one process, driven by made-up learners, on one screen.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::{Instant, MissedTickBehavior};
use weir_engine::BoxError;
use weir_model::TenantId;
use weir_postgres::metric_totals::MetricTotals;
use weir_postgres::tokens::{self, Scope};
use weir_postgres::{Caller, CommandRequest, CommandService, Expected};

use super::{told_to_stop, verify};
use crate::instance::{Instance, Place};
use crate::output::{Format, complain, say};

mod learners;

use learners::Learners;

/// Commands on their way at once, at most.
const IN_FLIGHT_MAX: usize = 256;

const REFRESH: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Stop after this many events, and print the verify table
    #[arg(long)]
    events: Option<u64>,
    /// Commands a second [default: demo.events_per_second, 200]
    #[arg(long)]
    rate: Option<f64>,
}

pub(crate) async fn run(mut place: Place, args: Args, format: Format) -> Result<ExitCode, BoxError> {
    // Two demos on one machine should not quarrel about a port; whoever names one gets it.
    if !place.set.iter().any(|flag| flag.starts_with("api.listen=")) {
        place.set.insert(0, "api.listen=127.0.0.1:0".to_owned());
    }
    let told = told_to_stop();
    tokio::pin!(told);
    complain("starting …");
    let mut instance = tokio::select! {
        started = Box::pin(Instance::start(&place)) => started?,
        stopped = &mut told => { stopped?; return Ok(ExitCode::SUCCESS) }
    };
    let rate = args.rate.unwrap_or(instance.attached.settings.demo.events_per_second).clamp(0.1, 1e6);
    let token_file = write_token(&instance).await?;
    let appended = Arc::new(AtomicU64::new(0));
    let driving = drive(instance.commands.clone(), appended.clone(), rate, args.events);
    tokio::pin!(driving);
    let mut screen = Screen::new(&instance, &token_file);
    let mut refresh = tokio::time::interval(REFRESH);
    let (mut driven, mut finished) = (false, false);
    let failure = loop {
        tokio::select! {
            stopped = &mut told => { stopped?; break None }
            error = instance.failed() => break Some(error),
            done = &mut driving, if !driven => { done?; driven = true }
            _ = refresh.tick() => {
                screen.show(&instance, appended.load(Ordering::Relaxed)).await;
                if driven && instance.is_caught_up().await? {
                    finished = true;
                    break None;
                }
            }
        }
    };
    screen.close();
    let attached = instance.stop().await?;
    if let Some(error) = failure {
        return Err(error);
    }
    let equal = if finished { verify::show(&attached, format).await } else { Ok(true) };
    attached.detach().await?;
    Ok(if equal? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// For the curl line; the secret stays in a file of the data directory that only its owner reads.
async fn write_token(instance: &Instance) -> Result<std::path::PathBuf, BoxError> {
    let path = instance.attached.dir.join("demo.token.json");
    let client = instance.attached.database.get().await?;
    for old in tokens::list(&**client).await?.into_iter().filter(|t| t.name == "demo" && t.revoked_at.is_none()) {
        tokens::revoke(&**client, &old.id).await?;
    }
    let token = tokens::create(&**client, &TenantId::default(), "demo", &[Scope::Command, Scope::Read]).await?;
    let header = path.with_file_name("demo.header");
    crate::data_dir::write_durably(&path, &serde_json::json!({"token": token}), 0o600)?;
    std::fs::write(&header, format!("Authorization: Bearer {token}\n"))?;
    std::fs::set_permissions(&header, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(header)
}

/// Sends commands at a steady rate; each learner's own commands one after the other.
async fn drive(
    commands: CommandService,
    appended: Arc<AtomicU64>,
    rate: f64,
    events: Option<u64>,
) -> Result<(), BoxError> {
    let mut learners = Learners::new(rand::random());
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate.min(1000.0)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let started = Instant::now();
    let mut in_flight = tokio::task::JoinSet::new();
    let mut sent = 0_u64;
    while events.is_none_or(|events| sent < events) {
        ticks.tick().await;
        // Above a thousand a second each tick stands for several commands.
        while u64_as_f64(sent) < started.elapsed().as_secs_f64() * rate && events.is_none_or(|events| sent < events) {
            while in_flight.len() >= IN_FLIGHT_MAX {
                finish(in_flight.join_next().await, &appended)?;
            }
            let (command, data) = learners.next();
            let caller = Caller {
                tenant: TenantId::default(),
                source: "demo".to_owned(),
                metadata: weir_model::Metadata {
                    correlation_id: Some(format!("demo-{}", learners.run())),
                    ..Default::default()
                },
                idempotency_key: None,
            };
            let commands = commands.clone();
            let request = CommandRequest { caller, command, data, expected: Expected::Any };
            in_flight.spawn(async move { Box::pin(commands.execute(request)).await });
            sent += 1;
        }
    }
    while !in_flight.is_empty() {
        finish(in_flight.join_next().await, &appended)?;
    }
    Ok(())
}

type Executed = Result<Result<weir_postgres::Answer, weir_postgres::CommandError>, tokio::task::JoinError>;

/// A command that fails while the database is away is lost to the demo, not to its books: it was never acknowledged.
fn finish(executed: Option<Executed>, appended: &AtomicU64) -> Result<(), BoxError> {
    match executed.transpose()? {
        Some(Ok(_)) => {
            appended.fetch_add(1, Ordering::Relaxed);
        }
        Some(Err(error)) => tracing::warn!(error = weir_engine::retry::chain(&error), "a command failed"),
        None => {}
    }
    Ok(())
}

#[allow(clippy::as_conversions, reason = "a count of commands, far below 2^53")]
fn u64_as_f64(n: u64) -> f64 {
    n as f64
}

/// One screen that updates in place, or plain lines where there is no terminal.
struct Screen {
    lines: Option<(MultiProgress, Vec<ProgressBar>)>,
    last: (Instant, u64, Vec<i64>),
    shown: Instant,
    footer: Vec<String>,
}

impl Screen {
    fn new(instance: &Instance, token_file: &std::path::Path) -> Self {
        let api = &instance.api;
        let dir = instance.attached.dir.path().display();
        let footer = vec![
            format!(
                "try    curl -H @{} -H 'Content-Type: application/json' {api}/v1/commands/StartLearningSession -d \
                 '{{\"sessionId\":\"mine\",\"userId\":\"me\",\"learningPathId\":\"algebra\",\"moduleId\":\"m1\"}}'",
                token_file.display()
            ),
            format!(
                "query  weir sql --data-dir {dir} 'SELECT event_type, count(*) FROM events GROUP BY 1 ORDER BY 2 DESC'"
            ),
            format!("check  weir verify --data-dir {dir}     metrics {api}/metrics     Ctrl-C drains and ends"),
        ];
        let lines = std::io::stderr().is_terminal().then(|| {
            let screen = MultiProgress::new();
            let style = ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
            let bars = (0..10).map(|_| screen.add(ProgressBar::new_spinner().with_style(style.clone()))).collect();
            (screen, bars)
        });
        if lines.is_none() {
            for line in &footer {
                complain(line);
            }
        }
        let long_ago = Instant::now().checked_sub(Duration::from_secs(60)).unwrap_or_else(Instant::now);
        Self { lines, last: (Instant::now(), 0, Vec::new()), shown: long_ago, footer }
    }

    async fn show(&mut self, instance: &Instance, appended: u64) {
        let interval = if self.lines.is_some() { REFRESH } else { Duration::from_secs(2) };
        if self.shown.elapsed() + Duration::from_millis(50) < interval {
            return;
        }
        self.shown = Instant::now();
        let seconds = self.last.0.elapsed().as_secs_f64().max(0.001);
        let rate = u64_as_f64(appended.saturating_sub(self.last.1)) / seconds;
        let mut lines = vec![format!("events appended {appended:>9}   {rate:>7.0}/s")];
        let lanes = instance.board.read();
        let mut offsets = Vec::new();
        for (index, (name, lane)) in lanes.iter().enumerate() {
            let before = self.last.2.get(index).copied().unwrap_or(lane.next_offset);
            let rate = u64_as_f64(u64::try_from(lane.next_offset - before).unwrap_or(0)) / seconds;
            let trouble = lane.trouble.as_ref().map(|t| format!("   {t}")).unwrap_or_default();
            lines.push(format!(
                "{name:<12} offset {:>9}   {rate:>7.0}/s   lag {:>7}{trouble}",
                lane.next_offset,
                lane.lag()
            ));
            offsets.push(lane.next_offset);
        }
        lines.push(counters(instance).await);
        self.last = (Instant::now(), appended, offsets);
        let Some((_, bars)) = &self.lines else {
            drop(say(&lines.join(" | ")));
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

async fn counters(instance: &Instance) -> String {
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
