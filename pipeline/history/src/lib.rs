//! History: one Delta table `events` of plain Parquet, exact to the record. See [`sink`] for the protocol.

mod compact;
mod kafka_record;
mod past;
mod places;
mod refill;
mod reset;
mod row_hash;
pub mod rows;
mod scan;
pub mod schema;
mod sink;
mod standing;
mod table;
mod tidy;
pub mod verify;
mod write;

pub use compact::{Compacted, Compaction, Group, Rewriter, Rewritten};
pub use kafka_record::{KafkaRecord, Kept};
pub use places::{Place, places};
pub use refill::{Held, Refill, Refilled};
pub use reset::reset;
pub use scan::{Filter, Stretch};
pub use sink::HistorySink;
pub use table::{HistoryError, HistoryRoot, HistoryTable, redrive_id, transaction_id};
