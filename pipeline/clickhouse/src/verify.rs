//! What is read from ClickHouse, as Arrow: each row of the view for `weir verify`, rebuilt into its event from its own columns, as
//! from history; and the answers to questions.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use tokio::sync::mpsc;
use weir_history::verify::{HistoryHashes, LeftOut, Place};

use crate::error::{ClickHouseError, During};
use crate::schema::columns;
use crate::server::{ClickHouse, quoted};

/// The format; texts, dates and dictionaries in it are as `server.rs` sets them.
const ARROW: &str = "ArrowStream";

impl ClickHouse {
    /// Hashes what the view shows. Rows without a place go to `left_out` instead.
    pub async fn hashes_at(
        &self,
        place: &impl Place,
        left_out: mpsc::Sender<LeftOut>,
    ) -> Result<HistoryHashes, ClickHouseError> {
        const ACTION: &str = "reading ClickHouse for verification";
        // As history names them.
        let list: Vec<String> =
            columns().iter().filter(|column| column.name != "is_other").map(|column| quoted(column.name)).collect();
        let sql = format!(
            "SELECT {}, formatDateTime(`timestamp`, '%Y-%m') AS event_month FROM {}.events \
             SETTINGS max_block_size = 8192",
            list.join(", "),
            self.database()
        );
        let mut answer = self.stream(ACTION, &sql, ARROW)?;
        let mut decoder = StreamDecoder::new();
        let mut hashes = HistoryHashes::default();
        let broken = |error: ArrowError| ClickHouseError::new(ACTION, error.to_string(), "");
        while let Some(bytes) = answer.next().await.during(ACTION)? {
            let mut buffer = Buffer::from(bytes.to_vec());
            while let Some(batch) = decoder.decode(&mut buffer).map_err(broken)? {
                hashes.add_batch(&batch, place, &left_out).await.map_err(broken)?;
            }
        }
        decoder.finish().map_err(broken)?;
        Ok(hashes)
    }

    /// A query's whole answer. Tables without a database are those of this lane.
    pub async fn table(&self, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>), ClickHouseError> {
        const ACTION: &str = "asking ClickHouse";
        let mut answer = self.stream(ACTION, sql, ARROW)?;
        let mut decoder = StreamDecoder::new();
        let mut batches = Vec::new();
        let broken = |error: ArrowError| ClickHouseError::new(ACTION, error.to_string(), "");
        while let Some(bytes) = answer.next().await.during(ACTION)? {
            let mut buffer = Buffer::from(bytes.to_vec());
            while let Some(batch) = decoder.decode(&mut buffer).map_err(broken)? {
                batches.push(batch);
            }
        }
        let schema = decoder.schema().unwrap_or_else(|| Arc::new(Schema::empty()));
        decoder.finish().map_err(broken)?;
        Ok((schema, batches))
    }
}
