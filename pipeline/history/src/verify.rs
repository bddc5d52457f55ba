//! What `weir verify` reads from history: each row rebuilt into its event, hashed with its coordinates, row group by row
//! group.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use deltalake_core::datafusion::execution::context::{SessionConfig, SessionContext};
use futures::StreamExt;
use tokio::sync::mpsc;
use weir_model::canonical::SetHash;
use weir_model::wire::{self, Decoded};
use weir_model::{Data, Event, OTHER_EVENT, contract};

use crate::rows::{BatchRows, BrokenRow, Coordinates};
use crate::table::{HistoryError, HistoryTable, during};

/// Count and hash by event type, and what could not be read as an event.
#[derive(Debug, Default)]
pub struct HistoryHashes {
    /// By event type.
    pub by_type: BTreeMap<String, SetHash>,
    /// Rows that are not what the lane wrote: the first few, in words.
    pub broken: Vec<String>,
}

impl HistoryHashes {
    fn add(&mut self, at: &Coordinates, event: &Decoded) {
        match event {
            Decoded::Event(event) => {
                let hash = self.by_type.entry(event.event_type.as_str().to_owned()).or_default();
                add_record(hash, at, &wire::canonical_document(event));
            }
            Decoded::Other(event) => {
                add_record(self.by_type.entry(OTHER_EVENT.to_owned()).or_default(), at, &event.document);
            }
        }
    }

    /// Hashes each row of a batch with the columns of [`crate::schema`]. Rows without a place go to `left_out`.
    pub async fn add_batch(
        &mut self,
        batch: &RecordBatch,
        place: &impl Relocate,
        left_out: &mpsc::Sender<LeftOut>,
    ) -> Result<(), ArrowError> {
        let rows = BatchRows::new(batch)?;
        for row in 0..rows.len {
            let (at, event) = match read(&rows, row) {
                Ok(read) => read,
                Err(error) => {
                    self.note_broken(rows.coordinates(row), &error);
                    continue;
                }
            };
            match place.of(at.clone(), &event) {
                Placed::At(at) => self.add(&at, &event),
                // The receiver went away and takes no more.
                Placed::LeftOut => drop(left_out.send((at, event)).await),
                Placed::Skipped => {}
            }
        }
        Ok(())
    }

    fn note_broken(&mut self, at: Result<Coordinates, BrokenRow>, error: &BrokenRow) {
        self.by_type.entry("(broken rows)".to_owned()).or_default().add(&[b"broken"]);
        if self.broken.len() < BROKEN_MAX {
            let words = |at: Coordinates| format!("{}/{} offset {}: ", at.topic, at.partition, at.offset);
            self.broken.push(format!("{}{error}", at.map_or_else(|_| String::new(), words)));
        }
    }
}

/// Words kept about broken rows.
const BROKEN_MAX: usize = 10;

/// One record's contribution to a hash: coordinates and canonical document.
pub fn add_record(hash: &mut SetHash, at: &Coordinates, document: &str) {
    let (partition, offset) = (at.partition.to_le_bytes(), at.offset.to_le_bytes());
    hash.add(&[at.source.as_bytes(), at.topic.as_bytes(), &partition, &offset, document.as_bytes()]);
}

/// A row keeps the version that was the newest when it was written; the source is read by the newest of today.
fn lift(mut event: Event) -> Event {
    let Ok(contracts) = contract::standard() else { return event };
    if *event.schema_version != *contracts.newest(event.event_type)
        && let Ok(accepted) = contracts.accept(event.event_type, &event.schema_version, event.data.to_object())
    {
        event.data = Data::from_object(event.event_type, &accepted.data);
        event.schema_version = accepted.version.into();
    }
    event
}

fn read(rows: &BatchRows, row: usize) -> Result<(Coordinates, Decoded), BrokenRow> {
    let at = rows.coordinates(row)?;
    if rows.is_other(row)? {
        return Ok((at, Decoded::Other(rows.other(row)?)));
    }
    Ok((at, Decoded::Event(lift(rows.event(row)?))))
}

/// What becomes of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placed {
    /// Compared under these coordinates.
    At(Coordinates),
    /// Not compared here, but handed on.
    LeftOut,
    /// Not compared: it is not said yet that it should be there.
    Skipped,
}

/// Decides under which coordinates a row is compared.
pub trait Relocate: Sync {
    /// For one row.
    fn of(&self, at: Coordinates, event: &Decoded) -> Placed;
}

struct AsItIs;

impl Relocate for AsItIs {
    fn of(&self, at: Coordinates, _: &Decoded) -> Placed {
        Placed::At(at)
    }
}

/// A row that was left out of the hashes.
pub type LeftOut = (Coordinates, Decoded);

/// Rows left out that may wait for the receiver.
const LEFT_OUT_WAITING: usize = 1000;

/// A channel for rows that are left out.
#[must_use]
pub fn left_out() -> (mpsc::Sender<LeftOut>, mpsc::Receiver<LeftOut>) {
    mpsc::channel(LEFT_OUT_WAITING)
}

impl HistoryTable {
    /// Hashes the snapshot at hand, every row under its own coordinates.
    pub async fn hashes(&self) -> Result<HistoryHashes, HistoryError> {
        self.hashes_at(&AsItIs, left_out().0).await
    }

    /// Hashes the snapshot at hand. Rows without a place go to `left_out` instead.
    pub async fn hashes_at(
        &self,
        place: &impl Relocate,
        left_out: mpsc::Sender<LeftOut>,
    ) -> Result<HistoryHashes, HistoryError> {
        const ACTION: &str = "reading history for verification";
        let context =
            SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1).with_batch_size(4096));
        let provider = self.delta().table_provider().await.map_err(during(ACTION))?;
        self.delta().update_datafusion_session(&context.state()).map_err(during(ACTION))?;
        let rows = context.read_table(provider).map_err(during(ACTION))?;
        let mut batches = rows.execute_stream().await.map_err(during(ACTION))?;
        let mut hashes = HistoryHashes::default();
        while let Some(batch) = batches.next().await {
            hashes.add_batch(&batch.map_err(during(ACTION))?, place, &left_out).await.map_err(during(ACTION))?;
        }
        Ok(hashes)
    }
}
