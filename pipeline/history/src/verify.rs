//! What `weir verify` reads from history: each row rebuilt into its event, hashed with its coordinates, row group by row
//! group.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use deltalake_core::datafusion::execution::context::{SessionConfig, SessionContext};
use futures::StreamExt;
use tokio::sync::mpsc;
use weir_model::canonical::SetHash;
use weir_model::envelope::Enveloped;
use weir_model::wire::{self, Decoded};
use weir_model::{Data, Event, OTHER_EVENT, contract};

use crate::kafka_record::{KafkaRecord, Kept};
use crate::rows::{BatchRows, BrokenRow, Coordinates};
use crate::schema::KAFKA_RECORD;
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
    fn add(&mut self, at: &Coordinates, event: &Decoded, head: Option<&Head<'_>>) {
        match event {
            Decoded::Event(event) => {
                let hash = self.by_type.entry(event.event_type.as_str().to_owned()).or_default();
                add_record(hash, at, &wire::canonical_document(event), head);
            }
            Decoded::Other(event) => {
                add_record(self.by_type.entry(OTHER_EVENT.to_owned()).or_default(), at, &event.document, head);
            }
        }
    }

    /// Hashes each row of a batch with the columns of [`crate::schema`], and where `kept` says that they are there, with key and headers of
    /// their records. Rows without a place go to `left_out`.
    pub async fn add_batch(
        &mut self,
        batch: &RecordBatch,
        kept: &Kept,
        place: &impl Relocate,
        left_out: &mpsc::Sender<LeftOut>,
    ) -> Result<(), ArrowError> {
        let rows = BatchRows::new(batch)?;
        for row in 0..rows.len {
            let (at, event, record) = match read(&rows, row, kept) {
                Ok(read) => read,
                Err(error) => {
                    self.note_broken(rows.coordinates(row), &error);
                    continue;
                }
            };
            match place.of(at.clone(), &event) {
                Placed::At(at) => {
                    let is_kept = kept.has(&at.source, &at.topic, at.partition, at.offset);
                    let head = record.as_ref().filter(|_| is_kept);
                    let head = head.map(|record| (record.key.as_deref(), record.headers.written()));
                    self.add(&at, &event, head.as_ref());
                }
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

/// A record's key and headers, as they are written.
pub type Head<'a> = (Option<&'a [u8]>, &'a [u8]);

/// One record's contribution to a hash: coordinates, canonical document, and what the sink keeps of the record besides.
pub fn add_record(hash: &mut SetHash, at: &Coordinates, document: &str, head: Option<&Head<'_>>) {
    let (partition, offset) = (at.partition.to_le_bytes(), at.offset.to_le_bytes());
    let parts = [at.source.as_bytes(), at.topic.as_bytes(), &partition, &offset, document.as_bytes()];
    match head {
        None => hash.add(&parts),
        Some((key, headers)) => {
            let has_key = [u8::from(key.is_some())];
            let [source, topic, partition, offset, document] = parts;
            hash.add(&[source, topic, partition, offset, document, &has_key, key.unwrap_or_default(), headers]);
        }
    }
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

fn read(rows: &BatchRows, row: usize, kept: &Kept) -> Result<(Coordinates, Decoded, Option<KafkaRecord>), BrokenRow> {
    let at = rows.coordinates(row)?;
    let is_kept = kept.has(&at.source, &at.topic, at.partition, at.offset);
    let record = |event: &Enveloped<'_>| match rows.kafka_record(row, event)? {
        None if is_kept => Err(BrokenRow { column: KAFKA_RECORD.to_owned(), reason: "is null".to_owned() }),
        record => Ok(record),
    };
    if rows.is_other(row)? {
        let event = rows.other(row)?;
        let record = record(&event.enveloped())?;
        return Ok((at, Decoded::Other(event), record));
    }
    // Before it is lifted: the headers say the version as it was.
    let event = rows.event(row)?;
    let record = record(&event.enveloped())?;
    Ok((at, Decoded::Event(lift(event)), record))
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
pub trait Relocate: Send + Sync {
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
        self.hashes_at(AsItIs, left_out().0).await
    }

    /// Hashes the snapshot at hand, which the future takes along: it may run beside whatever else is read. Rows without a place go to
    /// `left_out` instead.
    pub fn hashes_at<R: Relocate>(
        &self,
        place: R,
        left_out: mpsc::Sender<LeftOut>,
    ) -> impl Future<Output = Result<HistoryHashes, HistoryError>> + Send + use<R> {
        const ACTION: &str = "reading history for verification";
        let (delta, kept) = (self.delta().clone(), self.kept());
        async move {
            let context =
                SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1).with_batch_size(4096));
            let provider = delta.table_provider().await.map_err(during(ACTION))?;
            delta.update_datafusion_session(&context.state()).map_err(during(ACTION))?;
            let rows = context.read_table(provider).map_err(during(ACTION))?;
            let mut batches = rows.execute_stream().await.map_err(during(ACTION))?;
            let (mut hashes, kept) = (HistoryHashes::default(), kept?);
            while let Some(batch) = batches.next().await {
                let batch = batch.map_err(during(ACTION))?;
                hashes.add_batch(&batch, &kept, &place, &left_out).await.map_err(during(ACTION))?;
            }
            Ok(hashes)
        }
    }
}
