//! The event store as Parquet files elsewhere, and back. README.md says what an archive is.

mod error;
mod load;
mod rows;
mod store;
mod write;

pub use error::ArchiveError;
pub use load::{StoreId, load};
pub use store::{Archive, Part};
pub use write::{Written, check, write};
