//! What is read beside the comparison, each on a task of its own: pages of the event store, and history.

use std::ops::Range;

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use weir_engine::{Partition, Record};
use weir_history::verify::{HistoryHashes, LeftOut, left_out};
use weir_history::{HistoryError, HistoryTable};
use weir_postgres::verify::reference_page;
use weir_postgres::{Database, DbError};

use crate::lost::Places;

/// Records of a page.
const PAGE: i64 = 2000;

/// The event store's records, in order; the next page is fetched while one is looked at.
pub(crate) struct Pages {
    pages: mpsc::Receiver<Result<Vec<Record>, DbError>>,
    _reading: AbortOnDropHandle<()>,
}

impl Pages {
    /// Of these offsets, to the end of the last page that begins below their end.
    pub(crate) fn of(database: &Database, partition: &Partition, offsets: Range<i64>) -> Self {
        let (sender, pages) = mpsc::channel(1);
        let (database, partition) = (database.clone(), partition.clone());
        let reading = async move {
            let mut from = offsets.start;
            while from < offsets.end {
                let page = reference_page(&database, &partition, from, PAGE).await;
                let last = page.as_ref().ok().and_then(|records| records.last()).map(|record| record.offset);
                let is_end = last.is_none() && page.is_ok();
                if is_end || sender.send(page).await.is_err() {
                    return;
                }
                // After an error there is none.
                let Some(last) = last else { return };
                from = last + 1;
            }
        };
        Self { pages, _reading: AbortOnDropHandle::new(tokio::spawn(reading)) }
    }

    /// The next page; `None` at the end, and after an error.
    pub(crate) async fn next(&mut self) -> Option<Result<Vec<Record>, DbError>> {
        self.pages.recv().await
    }
}

/// History, which is hashed while the sources are read.
pub(crate) struct Hashing {
    /// Rows that have no place there: the hashing waits until they are taken.
    pub(crate) left_out: mpsc::Receiver<LeftOut>,
    hashing: AbortOnDropHandle<Result<HistoryHashes, HistoryError>>,
}

impl Hashing {
    /// Begins.
    pub(crate) fn of(table: &HistoryTable, places: Places) -> Self {
        let (sender, left_out) = left_out();
        Self { left_out, hashing: AbortOnDropHandle::new(tokio::spawn(table.hashes_at(places, sender))) }
    }

    /// The hashes, after all that was left out was taken.
    pub(crate) async fn end(self) -> Result<HistoryHashes, HistoryError> {
        drop(self.left_out);
        match self.hashing.await {
            Ok(hashes) => hashes,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}
