//! What `weir verify` reads from ClickHouse: each row of the view, rebuilt into its event from its own columns, as from history.

use arrow::buffer::Buffer;
use arrow::ipc::reader::StreamDecoder;
use tokio::sync::mpsc;
use weir_history::verify::{HistoryHashes, LeftOut, Place};

use crate::error::{ClickHouseError, During};
use crate::schema::columns;
use crate::server::{ClickHouse, quoted};

impl ClickHouse {
    /// Hashes what the view shows. Rows without a place go to `left_out` instead.
    pub async fn hashes_at(
        &self,
        place: &impl Place,
        left_out: mpsc::Sender<LeftOut>,
    ) -> Result<HistoryHashes, ClickHouseError> {
        const ACTION: &str = "reading ClickHouse for verification";
        let list: Vec<String> = columns().iter().map(|column| quoted(column.name)).collect();
        let sql = format!(
            "SELECT {}, formatDateTime(`timestamp`, '%Y-%m') AS event_month FROM {}.analytics_events \
             SETTINGS output_format_arrow_string_as_string = 1, output_format_arrow_low_cardinality_as_dictionary = 0, \
             max_block_size = 8192",
            list.join(", "),
            self.database()
        );
        let mut answer = self.stream(ACTION, &sql, "ArrowStream")?;
        let mut decoder = StreamDecoder::new();
        let mut hashes = HistoryHashes::default();
        let broken = |error: arrow::error::ArrowError| ClickHouseError::new(ACTION, error.to_string(), "");
        while let Some(bytes) = answer.next().await.during(ACTION)? {
            let mut buffer = Buffer::from(bytes.to_vec());
            while let Some(batch) = decoder.decode(&mut buffer).map_err(broken)? {
                hashes.add_batch(&batch, place, &left_out).await.map_err(broken)?;
            }
        }
        decoder.finish().map_err(broken)?;
        Ok(hashes)
    }
}
