//! `weir`: a learning platform's event stream, measured exactly once.

mod access;
mod attached;
mod commands;
mod cron;
mod data_dir;
mod instance;
mod lanes;
mod logging;
mod oulad;
mod output;
mod schedule;
mod server;
mod settings;
mod telling;

use std::process::ExitCode;

use clap::Parser;
use weir_engine::retry::chain;

/// The system's allocator keeps what short-lived threads freed: resident memory grew with each checkpoint of history's log.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    access::keep_private();
    access::raise_open_files();
    let cli = commands::Cli::parse();
    logging::start(cli.log_format, cli.command.is_quiet());
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    match runtime.block_on(Box::pin(commands::run(cli))) {
        Ok(code) => code,
        Err(error) => fail(error.as_ref()),
    }
}

fn fail(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    output::complain(&format!("error: {}", chain(error)));
    ExitCode::FAILURE
}
