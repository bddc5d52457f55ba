//! History: one Delta table `events` of plain Parquet, exact to the record. See [`sink`] for the protocol.

mod kafka_record;
mod past;
mod reset;
pub mod rows;
pub mod schema;
mod sink;
mod standing;
mod table;
pub mod verify;
mod write;

pub use kafka_record::{KafkaRecord, Kept};
pub use reset::reset;
pub use sink::HistorySink;
pub use table::{HistoryError, HistoryRoot, HistoryTable, redrive_id, transaction_id};
