//! weir as a library: its whole command line, with lanes of your own beside weir's.
//!
//! ```no_run
//! # use std::process::ExitCode;
//! # use std::sync::Arc;
//! # use weir_model::EventType;
//! # use weir_postgres::{Handler, Handlers};
//! fn run(congratulate: Arc<dyn Handler>) -> ExitCode {
//!     let handlers = Handlers::default().subscribe(EventType::AssessmentCompleted, congratulate);
//!     weir::Program::default().lane(weir::OwnLane::of_handlers("congratulations", handlers)).run()
//! }
//! ```

mod access;
mod attached;
mod commands;
mod cron;
mod data_dir;
mod door;
mod instance;
mod job;
mod lanes;
mod logging;
mod oulad;
mod output;
mod own;
mod runner;
mod schedule;
mod self_signed;
mod server;
mod settings;
mod show;
mod sql_server;
mod telling;
mod work;

use std::process::ExitCode;

use clap::Parser;
use weir_engine::retry::chain;

pub use own::OwnLane;

/// The command line `weir`.
#[derive(Debug, Default)]
pub struct Program {
    lanes: Vec<OwnLane>,
}

impl Program {
    /// Adds a lane of your own.
    #[must_use]
    pub fn lane(mut self, lane: OwnLane) -> Self {
        self.lanes.push(lane);
        self
    }

    /// Does what the command line says. Gives 0; 1 for a refusal, a failure or a difference found; 2 for a wrong command line.
    #[must_use]
    pub fn run(self) -> ExitCode {
        access::keep_private();
        access::raise_open_files();
        let own = match own::OwnLanes::new(self.lanes) {
            Ok(own) => own,
            Err(words) => {
                output::complain(&format!("error: {words}"));
                return ExitCode::from(2);
            }
        };
        let cli = commands::Cli::parse();
        logging::start(cli.log_format, cli.command.is_quiet());
        let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return fail(&error),
        };
        match runtime.block_on(Box::pin(commands::run(cli, own))) {
            Ok(code) => code,
            Err(error) => fail(error.as_ref()),
        }
    }
}

fn fail(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    output::complain(&format!("error: {}", chain(error)));
    ExitCode::FAILURE
}
