//! Logs go to stderr, data to stdout.

use std::io::{self, Write};

use clap::ValueEnum;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::{EnvFilter, fmt};

use crate::output::visible;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// `WEIR_LOG` chooses what is logged: a level for weir itself, or anything in the syntax of tracing's EnvFilter.
pub(crate) fn start(format: LogFormat, quiet: bool) {
    // Libraries report each lost connection once for each of its users; our own lines say what it means.
    const LOUD: &str = "info,deltalake_core=error,buoyant_kernel=error,delta_kernel=error,refinery_core=warn,\
        tokio_postgres=error,deadpool.postgres=error";
    const QUIET: &str = "warn,deltalake_core=error,buoyant_kernel=error,delta_kernel=error,refinery_core=error,\
        tokio_postgres=error,deadpool.postgres=error";
    let usual = if quiet { QUIET } else { LOUD };
    let filter = match std::env::var("WEIR_LOG") {
        // A level alone is for our own words: what libraries trace is a flood, and holds what was sent to servers, passwords too.
        Ok(level) if level.parse::<LevelFilter>().is_ok() => format!("{usual},weir={level}"),
        Ok(filter) => filter,
        Err(_) => usual.to_owned(),
    };
    let builder = fmt().with_env_filter(EnvFilter::new(filter));
    match format {
        LogFormat::Text => builder.with_ansi(false).with_writer(|| OneLine(io::stderr())).init(),
        LogFormat::Json => builder.with_writer(io::stderr).json().flatten_event(true).init(),
    }
}

/// An event is one line, whatever is in it: a name with a line break could pass for an event of ours, and one with an escape sequence
/// steers the terminal. So there are no colours either.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    /// Each event comes as a whole.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let (line, end) = text.strip_suffix('\n').map_or((&*text, ""), |line| (line, "\n"));
        self.0.write_all(format!("{}{end}", visible(line)).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
