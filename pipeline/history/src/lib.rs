//! History: one Delta table `events` of plain Parquet, exact to the record. See [`sink`] for the protocol.

mod past;
pub mod rows;
pub mod schema;
mod sink;
mod table;
pub mod verify;

pub use sink::{HistorySink, reset};
pub use table::{HistoryError, HistoryRoot, HistoryTable, redrive_id, transaction_id};
