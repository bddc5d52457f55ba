//! Statements under way, until their time is over or the client thinks better of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use datafusion_postgres::pgwire::api::results::Response;
use datafusion_postgres::pgwire::error::PgWireResult;
use datafusion_postgres::pgwire::messages::startup::SecretKey;
use futures::{Stream, StreamExt, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::errors::{self, refusal};
use super::seen::{self, Outcome, lock};

/// What a client knows that may cancel: number and secret. A request to cancel comes before its protocol's version is known, which
/// decides whether the secret counts as a number or as bytes, so bytes it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key(i32, Vec<u8>);

impl Key {
    pub(crate) fn new(pid: i32, secret: &SecretKey) -> Self {
        let bytes = match secret {
            SecretKey::I32(number) => number.to_be_bytes().to_vec(),
            SecretKey::Bytes(bytes) => bytes.to_vec(),
        };
        Self(pid, bytes)
    }
}

type Statements = Arc<Mutex<HashMap<Key, (u64, CancellationToken)>>>;

/// Statements under way, by what a client must know to cancel one.
#[derive(Default)]
pub(crate) struct Running {
    statements: Statements,
    number: AtomicU64,
}

impl Running {
    /// Ends the statement of a client that asks for it, by a connection of its own.
    pub(crate) fn cancel(&self, key: &Key) {
        if let Some((_, statement)) = lock(&self.statements).get(key) {
            statement.cancel();
        }
    }

    pub(crate) fn begin(&self, key: Key, longest: Duration, counted: Counted) -> Bounds {
        let (number, cancelled) = (self.number.fetch_add(1, Ordering::Relaxed), CancellationToken::new());
        lock(&self.statements).insert(key.clone(), (number, cancelled.clone()));
        let (statements, began) = (self.statements.clone(), Instant::now());
        let entry = Entry { statements, key, number, began, counted, outcome: Mutex::new(Outcome::Ok) };
        Bounds { until: began + longest, longest, cancelled, entry: entry.into() }
    }
}

/// Which of a statement's steps count as the statement: it is planned first, and executed later or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    Always,
    /// A plan that was not made is the statement's end.
    Failed,
}

/// What a statement under way is bounded by.
#[derive(Clone)]
pub(crate) struct Bounds {
    until: Instant,
    longest: Duration,
    cancelled: CancellationToken,
    /// Gone with the last of the statement.
    entry: Arc<Entry>,
}

struct Entry {
    statements: Statements,
    key: Key,
    number: u64,
    began: Instant,
    counted: Counted,
    outcome: Mutex<Outcome>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let outcome = *lock(&self.outcome);
        if self.counted == Counted::Always || outcome != Outcome::Ok {
            seen::statement(outcome, self.began);
        }
        let mut statements = lock(&self.statements);
        // A connection's next statement may have taken the place.
        if statements.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            statements.remove(&self.key);
        }
    }
}

impl Bounds {
    /// Work of a statement, as far as it is let.
    pub(crate) async fn within<T>(&self, work: impl Future<Output = PgWireResult<T>>) -> PgWireResult<T> {
        let done = self.bounded(work).await;
        if let Err(error) = &done {
            *lock(&self.entry.outcome) = Outcome::of_code(errors::code(error));
        }
        done
    }

    async fn bounded<T>(&self, work: impl Future<Output = PgWireResult<T>>) -> PgWireResult<T> {
        tokio::select! {
            biased;
            () = self.cancelled.cancelled() => Err(refusal("ERROR", "57014", "canceling statement due to user request")),
            () = tokio::time::sleep_until(self.until) => {
                let words = format!("canceling statement due to statement timeout ({} ms)", self.longest.as_millis());
                Err(refusal("ERROR", "57014", &words))
            }
            done = work => done,
        }
    }

    /// An answer whose rows come no longer than the statement may run.
    pub(crate) fn over(&self, mut response: Response) -> Response {
        if let Response::Query(answer) = &mut response {
            let rows = std::mem::replace(&mut answer.data_rows, Box::pin(stream::empty()));
            answer.data_rows = Box::pin(self.stream(rows));
        } else if let Response::CopyOut(answer) = &mut response {
            let rows = std::mem::replace(&mut answer.data_stream, Box::pin(stream::empty()));
            answer.data_stream = Box::pin(self.stream(rows));
        }
        response
    }

    fn stream<T, S>(&self, rows: S) -> impl Stream<Item = PgWireResult<T>> + Send + use<T, S>
    where
        T: Send + 'static,
        S: Stream<Item = PgWireResult<T>> + Unpin + Send + 'static,
    {
        stream::unfold(Some((rows, self.clone())), |left| async move {
            let (mut rows, bounds) = left?;
            let next = bounds.within(async { rows.next().await.transpose() }).await;
            match next {
                Ok(row) => row.map(|row| (Ok(row), Some((rows, bounds)))),
                Err(error) => Some((Err(error), None)),
            }
        })
    }
}
