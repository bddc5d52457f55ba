//! What is read from ClickHouse, as Arrow: each record's row for `weir verify`, rebuilt into its event from its own columns, as from
//! history; and the answers to questions.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use clickhouse::query::BytesCursor;
use tokio::sync::mpsc;
use weir_history::Kept;
use weir_history::verify::{HistoryHashes, LeftOut, Relocate};
use weir_model::OTHER_EVENT;

use crate::error::{ClickHouseError, During};
use crate::schema::event_columns;
use crate::server::{ClickHouse, in_time, quoted};

impl ClickHouse {
    /// Hashes each record once, as the views show them, but by its stored columns: theirs have `user_id` filled in. Rows without a place go to `left_out` instead.
    pub async fn hashes_at(
        &self,
        place: &impl Relocate,
        left_out: mpsc::Sender<LeftOut>,
    ) -> Result<HistoryHashes, ClickHouseError> {
        const ACTION: &str = "reading ClickHouse for verification";
        // As history names them.
        let list: Vec<String> = event_columns().iter().map(|column| quoted(column.name)).collect();
        let sql = format!(
            "SELECT {}, formatDateTime(`timestamp`, '%Y-%m') AS event_month \
             FROM (SELECT * REPLACE (if(is_other, '{OTHER_EVENT}', event_type) AS event_type) FROM {}.events_raw) \
             SETTINGS max_block_size = 8192",
            list.join(", "),
            self.database()
        );
        let mut batches = self.batches(ACTION, &sql)?;
        let mut hashes = HistoryHashes::default();
        while let Some(batch) = batches.next().await? {
            hashes.add_batch(&batch, &Kept::default(), place, &left_out).await.map_err(|e| broken(ACTION, &e))?;
        }
        Ok(hashes)
    }

    /// A query's whole answer. Tables without a database are those of this lane.
    pub async fn table(&self, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>), ClickHouseError> {
        const ACTION: &str = "asking ClickHouse";
        let mut answer = self.batches(ACTION, sql)?;
        let mut batches = Vec::new();
        while let Some(batch) = answer.next().await? {
            batches.push(batch);
        }
        Ok((answer.decoder.schema().unwrap_or_else(|| Arc::new(Schema::empty())), batches))
    }

    fn batches(&self, action: &'static str, sql: &str) -> Result<Batches, ClickHouseError> {
        let answer = self.stream(action, sql, "ArrowStream")?;
        Ok(Batches { action, answer, decoder: StreamDecoder::new(), buffer: Buffer::from(&[]) })
    }
}

/// An answer in Arrow's stream format; texts, dates and dictionaries in it are as `server.rs` sets them.
struct Batches {
    action: &'static str,
    answer: BytesCursor,
    decoder: StreamDecoder,
    buffer: Buffer,
}

impl Batches {
    async fn next(&mut self) -> Result<Option<RecordBatch>, ClickHouseError> {
        let action = self.action;
        loop {
            if let Some(batch) = self.decoder.decode(&mut self.buffer).map_err(|e| broken(action, &e))? {
                return Ok(Some(batch));
            }
            match in_time(action, async { self.answer.next().await.during(action) }).await? {
                Some(bytes) => self.buffer = Buffer::from(bytes),
                None => {
                    self.decoder.finish().map_err(|e| broken(action, &e))?;
                    return Ok(None);
                }
            }
        }
    }
}

fn broken(action: &'static str, error: &ArrowError) -> ClickHouseError {
    ClickHouseError::new(action, error.to_string(), "")
}
