//! The command line: a thin file per subcommand.

mod archive;
mod ask;
mod backfill;
mod clickhouse;
mod compact;
mod config;
mod dead_letters;
mod demo;
mod import;
mod jobs;
mod ledger;
mod publish;
mod questions;
mod rebuild;
mod run;
mod schedule;
mod source;
mod sql;
mod status;
mod tenant;
mod token;
mod topics;
mod trace;
mod up;
mod verify;
mod workflows;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use weir_engine::BoxError;
use weir_model::TenantId;

use crate::attached::Target;
use crate::data_dir;
use crate::logging::LogFormat;
use crate::output::{self, Format};
use crate::own::OwnLanes;

const EXIT_CODES: &str = "Exit codes: 0 done; 1 a refusal, a failure, a difference that `verify` found, or something that `status` finds not to be well (stderr says which); \
    2 a wrong command line; 130 told to stop twice; 137 killed.";

/// What to type first.
const BEGIN: &str = "Where to begin:
  weir demo                                everything in one process, driven by made-up learners; Ctrl-C ends it
  weir up                                  the same without learners: event store, lanes, HTTP side
  weir token create --scopes command,read  a token for the HTTP side; GET /v1/openapi.json says what that is
  weir sql                                 a prompt over the history; \\d lists its tables
  weir status                              what runs, and what is not well
  weir verify                              does every number agree?

";

/// A learning platform's event stream, measured exactly once.
#[derive(Debug, Parser)]
#[command(name = "weir", version, about, after_help = format!("{BEGIN}{EXIT_CODES}"))]
pub(crate) struct Cli {
    /// Where everything is kept [default: /var/lib/weir for root, ~/.local/share/weir for others; the demo's: weir-demo beside it]
    #[arg(long, global = true, env = "WEIR_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Settings, in TOML [default: weir.toml in the data directory, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting, for example --set lanes.history.flush_interval_ms=500
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// How data is printed
    #[arg(long, global = true, value_enum, default_value = "table")]
    format: Format,
    /// With --format csv: cells that begin with = + - @ get an apostrophe, so that no spreadsheet runs them
    #[arg(long, global = true)]
    csv_safe: bool,
    /// How log lines are printed, on stderr
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything: event store, lanes, HTTP side
    Up(up::Args),
    /// Run lanes on Kafka; any number of processes share the partitions
    Run(run::Args),
    /// Publish the event store to Kafka; of several publishers one works and the others stand by
    Publish(publish::Args),
    /// Run everything, drive it with commands, and show it
    Demo(demo::Args),
    /// Bring records of other systems in, through the command side
    #[command(subcommand)]
    Import(import::Import),
    /// Query the history
    Sql(sql::Args),
    /// One of the questions that come with weir, of history or of ClickHouse
    Ask(ask::Args),
    /// Prove that every sink of every enabled lane holds what the source says; exits 1 on any difference, and when one is not there
    Verify(verify::Args),
    /// What runs, where, and how far it is; exits 1 when something is not well
    Status(status::Args),
    /// One event's place in the event store, the ledger and every sink, with the times
    Trace(trace::Args),
    /// Progress of every lane
    #[command(subcommand)]
    Ledger(ledger::LedgerCommand),
    /// The topics: what would change, and changing it
    #[command(subcommand)]
    Topics(topics::TopicsCommand),
    /// The schema in ClickHouse
    #[command(subcommand)]
    Clickhouse(clickhouse::ClickHouseCommand),
    /// Where lanes read from
    #[command(subcommand)]
    Source(source::SourceCommand),
    /// Records that a lane could not apply
    #[command(subcommand)]
    DeadLetters(dead_letters::DeadLetters),
    /// Jobs and their runs: what runs by itself and when, how far it is, how it went
    #[command(subcommand)]
    Jobs(jobs::Jobs),
    /// The schedule of jobs alone; `up`, `run` and `publish` run it too, and of all processes one runs a job
    Schedule,
    /// Fill a sink with what it lacks, beside its live lane
    Backfill(backfill::Args),
    /// Make a lane's tables again from everything that it has read, while they serve
    Rebuild(rebuild::Args),
    /// The event store as Parquet files elsewhere, and back
    #[command(subcommand)]
    Archive(archive::ArchiveCommand),
    /// Tables that are computed out of the read models by a file of SQL each
    #[command(subcommand)]
    Workflows(workflows::Workflows),
    /// Make small files large
    #[command(subcommand)]
    Compact(compact::Compact),
    /// The settings: what they are, where they come from, whether they are right
    #[command(subcommand)]
    Config(config::Config),
    /// Completions for a shell, on stdout
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// The manual page, on stdout
    Man,
    /// Bearer tokens of the HTTP side, and logins of SQL over history
    #[command(subcommand)]
    Token(token::Token),
    /// Roles in Postgres that see one tenant's rows alone
    #[command(subcommand)]
    Tenant(tenant::Tenant),
}

impl Command {
    /// Whether log lines of everyday events would only disturb.
    pub(crate) fn is_quiet(&self) -> bool {
        !matches!(self, Self::Up(_) | Self::Run(_) | Self::Publish(_) | Self::Schedule)
    }
}

/// Runs a command; its exit code is 0, or 1 when it found what it was looking for to be wrong.
pub(crate) async fn run(cli: Cli, own: OwnLanes) -> Result<ExitCode, BoxError> {
    // Made-up learners stay out of real books, which are never trimmed.
    let default = if matches!(cli.command, Command::Demo(_)) { "weir-demo" } else { "weir" };
    let data_dir = cli.data_dir.unwrap_or_else(|| data_dir::default_path(default));
    let target = Target { data_dir, config: cli.config, set: cli.set, own };
    let format = cli.format;
    if cli.csv_safe {
        output::make_csv_safe();
    }
    match cli.command {
        Command::Up(args) => Box::pin(up::run(&target, args)).await,
        Command::Run(args) => Box::pin(run::run(&target, args)).await,
        Command::Publish(args) => Box::pin(publish::run(&target, args)).await,
        Command::Topics(command) => Box::pin(topics::run(&target, command, format)).await,
        Command::Clickhouse(command) => Box::pin(clickhouse::run(&target, command)).await,
        Command::Source(command) => Box::pin(source::run(&target, command)).await,
        Command::Demo(args) => Box::pin(demo::run(target, args, format)).await,
        Command::Import(import) => Box::pin(import::run(&target, import, format)).await,
        Command::Sql(args) => Box::pin(sql::run(&target, args, format)).await,
        Command::Ask(args) => Box::pin(ask::run(&target, args, format)).await,
        Command::Verify(args) => Box::pin(verify::run(&target, args, format)).await,
        Command::Status(args) => Box::pin(status::run(&target, args, format)).await,
        Command::Trace(args) => Box::pin(trace::run(&target, args, format)).await,
        Command::Ledger(command) => Box::pin(ledger::run(&target, command, format)).await,
        Command::DeadLetters(command) => Box::pin(dead_letters::run(&target, command, format)).await,
        Command::Jobs(command) => Box::pin(jobs::run(&target, command, format)).await,
        Command::Schedule => Box::pin(schedule::run(&target)).await,
        Command::Backfill(args) => Box::pin(backfill::run(&target, args, format)).await,
        Command::Rebuild(args) => Box::pin(rebuild::run(&target, args)).await,
        Command::Archive(command) => Box::pin(archive::run(&target, command)).await,
        Command::Workflows(command) => Box::pin(workflows::run(&target, command, format)).await,
        Command::Compact(command) => Box::pin(compact::run(&target, command, format)).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "weir", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Man => {
            clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Config(command) => config::run(&target, command, format),
        Command::Token(command) => Box::pin(token::run(&target, command, format)).await,
        Command::Tenant(command) => Box::pin(tenant::run(&target, command, format)).await,
    }
}

/// From here on SIGINT or SIGTERM ends the process at once: a second signal does not want to wait for the drain. The
/// next start goes on from the ledger, as after a crash.
pub(crate) fn end_at_second_signal() {
    tokio::spawn(async {
        if told_to_stop().await.is_ok() {
            std::process::exit(130);
        }
    });
}

/// Resolves at the first SIGINT or SIGTERM.
pub(crate) async fn told_to_stop() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// A tenant that someone names here. Records may name others, which are taken as they are.
fn new_tenant(name: String) -> Result<TenantId, BoxError> {
    if !output::is_plain_name(&name) {
        return Err(format!(
            "the tenant {name:?} has a space at an end, or a character that cannot be seen; name it by what one can read"
        )
        .into());
    }
    Ok(TenantId::new(name)?)
}
