//! The lane `clickhouse`: every record once in ClickHouse, by its coordinates in the sort key of a ReplacingMergeTree. See
//! [`sink`] for the protocol; `sql/clickhouse` has the schema.

mod backfill;
mod carry;
mod copies;
mod error;
mod migrate;
mod rebuild;
mod rollups;
mod rows;
mod schema;
mod server;
mod sift;
mod sink;
mod tenants;
mod uncounted;
mod verify;

pub use backfill::Insertion;
pub use copies::{CopyColumn, TableCopy};
pub use error::ClickHouseError;
pub use rebuild::{Compared, Rebuild};
pub use rollups::RollupCheck;
pub use rows::Block;
pub use server::{ClickHouse, ClickHouseOptions, Found};
pub use sink::ClickHouseSink;
pub use tenants::{Policy, ROLE};
