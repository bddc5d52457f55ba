//! What `weir verify` reads from history: each row rebuilt into its event, hashed with its coordinates, row group by row
//! group.

use std::collections::BTreeMap;

use deltalake_core::datafusion::execution::context::{SessionConfig, SessionContext};
use futures::StreamExt;
use weir_model::canonical::SetHash;
use weir_model::{Data, Event, contract, wire};

use crate::rows::{Coordinates, Rows};
use crate::table::{HistoryError, HistoryTable, during};

/// Count and hash by event type, and what could not be read as an event.
#[derive(Debug, Default)]
pub struct HistoryHashes {
    /// By event type.
    pub by_type: BTreeMap<String, SetHash>,
    /// Rows that are not what the lane wrote: the first few, in words.
    pub broken: Vec<String>,
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

impl HistoryTable {
    /// Hashes the snapshot at hand.
    pub async fn hashes(&self) -> Result<HistoryHashes, HistoryError> {
        const ACTION: &str = "reading history for verification";
        let context =
            SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1).with_batch_size(4096));
        let provider = self.delta().table_provider().await.map_err(during(ACTION))?;
        self.delta().update_datafusion_session(&context.state()).map_err(during(ACTION))?;
        let rows = context.read_table(provider).map_err(during(ACTION))?;
        let mut batches = rows.execute_stream().await.map_err(during(ACTION))?;
        let mut hashes = HistoryHashes::default();
        while let Some(batch) = batches.next().await {
            let rows = Rows::new(&batch.map_err(during(ACTION))?).map_err(during(ACTION))?;
            for row in 0..rows.len {
                match (rows.coordinates(row), rows.event(row)) {
                    (Ok(at), Ok(event)) => {
                        let event = lift(event);
                        let hash = hashes.by_type.entry(event.event_type.as_str().to_owned()).or_default();
                        add_record(hash, &at, &wire::canonical_document(&event));
                    }
                    (at, event) => {
                        hashes.by_type.entry("(broken rows)".to_owned()).or_default().add(&[b"broken"]);
                        if hashes.broken.len() < BROKEN_MAX {
                            let place = at.map_or_else(
                                |e| e.to_string(),
                                |at| format!("{}/{} offset {}", at.topic, at.partition, at.offset),
                            );
                            hashes
                                .broken
                                .push(format!("{place}: {}", event.err().map_or_else(String::new, |e| e.to_string())));
                        }
                    }
                }
            }
        }
        Ok(hashes)
    }
}
