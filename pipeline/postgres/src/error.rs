//! What Postgres's errors mean for the caller: wait, try again, blame the data, or give up.

use std::error::Error;
use std::sync::Arc;

use tokio_postgres::error::SqlState;
use weir_engine::{BoxError, SinkError, SourceError};

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Away, overloaded, or the outcome is unknown: the same again, later.
    Unavailable,
    /// The data is at fault: SQLSTATE classes 22 and 23, and 54, what is beyond a limit of Postgres (an index entry, a row, jsonb).
    Data,
    /// Trying again cannot help.
    Permanent,
}

/// A failed piece of work in Postgres.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{action} failed")]
pub struct DbError {
    action: &'static str,
    kind: ErrorKind,
    // Shared, because several callers may wait for one piece of work.
    #[source]
    source: Arc<dyn Error + Send + Sync>,
}

impl DbError {
    /// An error of our own making, such as a row that cannot be.
    pub fn new(action: &'static str, kind: ErrorKind, source: impl Into<BoxError>) -> Self {
        Self { action, kind, source: Arc::from(source.into()) }
    }

    /// Of Postgres'.
    pub(crate) fn of(action: &'static str, error: tokio_postgres::Error) -> Self {
        Self { action, kind: kind_of(&error), source: Arc::new(error) }
    }

    /// What to do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// Names the work that failed.
pub trait During<T> {
    /// `action` completes "… failed".
    fn during(self, action: &'static str) -> Result<T, DbError>;
}

impl<T> During<T> for Result<T, tokio_postgres::Error> {
    fn during(self, action: &'static str) -> Result<T, DbError> {
        self.map_err(|e| DbError::of(action, e))
    }
}

impl<T> During<T> for Result<T, deadpool_postgres::PoolError> {
    fn during(self, action: &'static str) -> Result<T, DbError> {
        self.map_err(|e| {
            let kind = match &e {
                deadpool_postgres::PoolError::Backend(e) => kind_of(e),
                deadpool_postgres::PoolError::Timeout(_)
                | deadpool_postgres::PoolError::Closed
                | deadpool_postgres::PoolError::NoRuntimeSpecified
                | deadpool_postgres::PoolError::PostCreateHook(_) => ErrorKind::Unavailable,
            };
            DbError { action, kind, source: Arc::new(e) }
        })
    }
}

/// What an error of a library over Postgres' client stands for: its cause tells.
pub(crate) fn kind_of_cause(error: &(dyn Error + 'static)) -> ErrorKind {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<tokio_postgres::Error>() {
            return kind_of(error);
        }
        cause = error.source();
    }
    ErrorKind::Permanent
}

fn kind_of(error: &tokio_postgres::Error) -> ErrorKind {
    match error.code() {
        Some(code) => kind_of_state(code),
        None if error.is_closed() => ErrorKind::Unavailable,
        // A certificate that is not trusted now is not trusted later; a handshake that was cut off may succeed.
        None if error.to_string().starts_with("error performing TLS handshake") => {
            match weir_engine::retry::chain(error).contains("certificate") {
                true => ErrorKind::Permanent,
                false => ErrorKind::Unavailable,
            }
        }
        None => match error.source().is_some_and(|cause| cause.is::<std::io::Error>()) {
            true => ErrorKind::Unavailable,
            // A parameter that does not fit its type is data; it never reached the server.
            false if error.to_string().starts_with("error serializing") => ErrorKind::Data,
            false => ErrorKind::Permanent,
        },
    }
}

fn kind_of_state(state: &SqlState) -> ErrorKind {
    match state.code().get(..2).unwrap_or_default() {
        "22" | "23" | "54" => ErrorKind::Data,
        // Connection, rollback (serialization, deadlock), lock timeout, resources (disk full), operator, system, internal.
        "08" | "40" | "53" | "55" | "57" | "58" | "XX" => ErrorKind::Unavailable,
        "25" if *state == SqlState::READ_ONLY_SQL_TRANSACTION => ErrorKind::Unavailable,
        _ => ErrorKind::Permanent,
    }
}

impl From<DbError> for SinkError {
    fn from(error: DbError) -> Self {
        match error.kind {
            ErrorKind::Unavailable => Self::Retry(error.into()),
            ErrorKind::Data | ErrorKind::Permanent => Self::Fatal(error.into()),
        }
    }
}

impl From<DbError> for SourceError {
    fn from(error: DbError) -> Self {
        match error.kind {
            ErrorKind::Unavailable => Self::Retry(error.into()),
            ErrorKind::Data | ErrorKind::Permanent => Self::Fatal(error.into()),
        }
    }
}
