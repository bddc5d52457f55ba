//! Logs go to stderr, data to stdout.

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// `WEIR_LOG` chooses what is logged, in the syntax of tracing's EnvFilter.
pub(crate) fn start(format: LogFormat, quiet: bool) {
    // Libraries report each lost connection once for each of its users; our own lines say what it means.
    const LOUD: &str = "info,deltalake_core=error,buoyant_kernel=error,delta_kernel=error,refinery_core=warn,\
        tokio_postgres=error,deadpool.postgres=error";
    const QUIET: &str = "warn,deltalake_core=error,buoyant_kernel=error,delta_kernel=error,refinery_core=error,\
        tokio_postgres=error,deadpool.postgres=error";
    let filter = std::env::var("WEIR_LOG").unwrap_or_else(|_| if quiet { QUIET } else { LOUD }.to_owned());
    let builder = fmt().with_env_filter(EnvFilter::new(filter)).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
