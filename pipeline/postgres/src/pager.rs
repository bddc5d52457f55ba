//! Pages of the event store, each made while the reader works on the one before: while a page's rows are converted, Postgres is at
//! work on the rows of the next one, and no further.

use std::sync::Arc;

use tokio::task::JoinError;
use tokio_postgres::Row;
use tokio_util::task::AbortOnDropHandle;

use crate::database::Database;
use crate::error::{DbError, During, ErrorKind};
use crate::event_store::bounded;

pub(crate) const TAILING: &str = "tailing the event store";

type Rows = AbortOnDropHandle<Result<Vec<Row>, DbError>>;
type Convert<T> = Arc<dyn Fn(&Row) -> Result<T, DbError> + Send + Sync>;

/// Reads pages, one after the other.
pub(crate) struct Pager<T> {
    database: Database,
    bytes_max: i64,
    convert: Convert<T>,
    ahead: Option<Ahead<T>>,
}

/// A page on the way, or waiting to be taken.
struct Ahead<T> {
    from: i64,
    limit: i64,
    page: AbortOnDropHandle<Result<Page<T>, DbError>>,
}

struct Page<T> {
    items: Vec<T>,
    /// The position of the last row.
    last: Option<i64>,
    further: Option<Rows>,
}

pub(crate) fn gone(error: JoinError) -> DbError {
    DbError::new(TAILING, ErrorKind::Unavailable, error)
}

fn fetch(database: &Database, from: i64, limit: i64, bytes_max: i64) -> Rows {
    let database = database.clone();
    AbortOnDropHandle::new(tokio::spawn(async move { rows_from(&database, from, limit, bytes_max).await }))
}

/// A page of events from a position on, bounded in rows and bytes; at least one event if there is any.
pub(crate) async fn rows_from(database: &Database, from: i64, limit: i64, bytes_max: i64) -> Result<Vec<Row>, DbError> {
    let client = database.get().await?;
    let statement = client.prepare_cached(&bounded("id >= $3", "id", "")).await.during(TAILING)?;
    client.query(&statement, &[&limit, &bytes_max, &from]).await.during(TAILING)
}

/// Whether there is likely a row behind these: one of the page's limits was reached.
fn is_cut(rows: &[Row], limit: i64, bytes_max: i64) -> Result<bool, DbError> {
    if usize::try_from(limit).is_ok_and(|limit| rows.len() == limit) {
        return Ok(true);
    }
    let Some(last) = rows.last() else { return Ok(false) };
    let before: i64 = last.try_get("bytes_before").during(TAILING)?;
    // The row that did not fit is not known; one of the usual size would not have.
    Ok(before > bytes_max - bytes_max / 8)
}

impl<T: Send + 'static> Pager<T> {
    /// Pages hold at most so many bytes of data; `convert` runs on threads for blocking work.
    pub(crate) fn new(
        database: Database,
        bytes_max: i64,
        convert: impl Fn(&Row) -> Result<T, DbError> + Send + Sync + 'static,
    ) -> Self {
        Self { database, bytes_max, convert: Arc::new(convert), ahead: None }
    }

    /// Another one of the same.
    pub(crate) fn another(&self) -> Self {
        Self { database: self.database.clone(), bytes_max: self.bytes_max, convert: self.convert.clone(), ahead: None }
    }

    fn start(&self, rows: Rows, from: i64, limit: i64) -> Ahead<T> {
        let (database, convert, bytes_max) = (self.database.clone(), self.convert.clone(), self.bytes_max);
        let page = tokio::spawn(async move {
            let rows = rows.await.map_err(gone)??;
            let last = rows.last().map(|row| row.try_get::<_, i64>("id").during(TAILING)).transpose()?;
            let further = match last {
                // Positions are in commit order, so whatever this finds is what comes next, however late it is taken.
                Some(last) if is_cut(&rows, limit, bytes_max)? => Some(fetch(&database, last + 1, limit, bytes_max)),
                _ => None,
            };
            // On a thread of its own: here it would hold up the very task that was just started.
            let converting = move || rows.iter().map(|row| convert(row)).collect::<Result<_, _>>();
            let items = tokio::task::spawn_blocking(converting).await.map_err(gone)??;
            Ok(Page { items, last, further })
        });
        Ahead { from, limit, page: AbortOnDropHandle::new(page) }
    }

    /// The rows from a position on. A call that is dropped leaves its page on the way, and the next call takes it.
    pub(crate) async fn page(&mut self, from: i64, rows_max: usize) -> Result<Vec<T>, DbError> {
        let limit = i64::try_from(rows_max).unwrap_or(i64::MAX);
        if self.ahead.as_ref().is_none_or(|ahead| (ahead.from, ahead.limit) != (from, limit)) {
            let rows = fetch(&self.database, from, limit, self.bytes_max);
            self.ahead = Some(self.start(rows, from, limit));
        }
        let Some(ahead) = &mut self.ahead else { return Ok(Vec::new()) };
        let page = (&mut ahead.page).await;
        self.ahead = None;
        let Page { items, last, further } = page.map_err(gone)??;
        if let (Some(rows), Some(last)) = (further, last) {
            self.ahead = Some(self.start(rows, last + 1, limit));
        }
        Ok(items)
    }
}
