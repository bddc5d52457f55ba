//! What is seen of the server from outside: metrics, and its part of the process's status.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use weir_engine::metric::SQL_STATEMENTS;
use weir_engine::{LanePhase, SQL, StatusBoard, observed};

const CONNECTIONS: &str = "weir_sql_connections";
const REFUSED: &str = "weir_sql_connections_refused_total";

/// How often the number of connections is said: a gauge that was not set for a minute is not shown.
pub(crate) const SAID_EVERY: Duration = Duration::from_secs(10);

/// Why a connection was closed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Refused {
    Full,
    Slow,
}

/// How a statement ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    Error,
    Cancelled,
    OutOfMemory,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Ok, Self::Error, Self::Cancelled, Self::OutOfMemory];

    /// Of a statement that was refused with this code (Postgres' manual, appendix A).
    pub(crate) fn of_code(code: &str) -> Self {
        match code {
            "57014" => Self::Cancelled,
            "53200" => Self::OutOfMemory,
            _ => Self::Error,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Cancelled => "cancelled",
            Self::OutOfMemory => "out of memory",
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One server's.
#[derive(Debug)]
pub(crate) struct Seen {
    board: StatusBoard,
    connections: AtomicI64,
    /// What stands in the way, as it was told last.
    trouble: Mutex<Option<String>>,
}

impl Seen {
    pub(crate) fn new(board: StatusBoard) -> Self {
        board.announce(SQL);
        // There from the start: what begins with its first increment shows no increase.
        for outcome in Outcome::ALL {
            metrics::counter!(SQL_STATEMENTS, "outcome" => outcome.as_str()).increment(0);
        }
        for reason in ["full", "slow"] {
            metrics::counter!(REFUSED, "reason" => reason).increment(0);
        }
        Self { board, connections: AtomicI64::new(0), trouble: Mutex::default() }
    }

    /// Statements are answered again, or they are not, and why.
    pub(crate) fn is(&self, trouble: Option<&str>) {
        let mut told = lock(&self.trouble);
        let (phase, words) = match trouble {
            Some(words) => (LanePhase::Waiting, Some(words.to_owned())),
            None => (LanePhase::Running, None),
        };
        *told = words.clone();
        self.board.update(SQL, |status| (status.phase, status.trouble) = (phase, words));
    }

    pub(crate) fn is_in_trouble(&self) -> bool {
        lock(&self.trouble).is_some()
    }

    /// A statement found what it needs.
    pub(crate) fn is_well(&self) {
        if self.is_in_trouble() {
            self.is(None);
        }
    }

    /// It was told to end: what stood in its way until then is no trouble that stopped it.
    pub(crate) fn ended(&self) {
        self.board.update(SQL, |status| (status.phase, status.trouble) = (LanePhase::Stopped, None));
    }

    pub(crate) fn connected(&self, by: i64) {
        self.connections.fetch_add(by, Ordering::Relaxed);
        self.say();
    }

    pub(crate) fn say(&self) {
        let connections = i32::try_from(self.connections.load(Ordering::Relaxed)).unwrap_or(i32::MAX);
        metrics::gauge!(CONNECTIONS).set(f64::from(connections));
    }

    pub(crate) fn refused(&self, reason: Refused) {
        let reason = match reason {
            Refused::Full => "full",
            Refused::Slow => "slow",
        };
        metrics::counter!(REFUSED, "reason" => reason).increment(1);
    }
}

/// A statement is over.
pub(crate) fn statement(outcome: Outcome, began: Instant) {
    metrics::counter!(SQL_STATEMENTS, "outcome" => outcome.as_str()).increment(1);
    observed::statement(began.elapsed().as_secs_f64());
}
