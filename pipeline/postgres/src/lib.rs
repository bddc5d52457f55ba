//! Everything that lives in Postgres: the event store, the ledger, dead letters, the read models, the durable metrics
//! and the API's tokens.

mod append;
mod coalesce;
mod commands;
mod database;
pub mod dead_letters;
mod error;
mod event_store;
mod group_commit;
pub mod inspect;
pub mod job_runs;
mod ledger;
pub mod locks;
pub mod metric_totals;
mod notify;
pub mod owner;
pub mod parts;
mod projection;
mod projection_sink;
pub mod publishing;
pub mod read_models;
pub mod rebuild;
mod redrive;
pub mod repeats;
mod source;
pub mod switching;
mod tls;
pub mod tokens;
pub mod verify;

pub use append::{Append, Appended, Expected, NewStoredEvent};
pub use commands::{Answer, Caller, CommandError, CommandRequest, CommandService, StreamAppend};
pub use database::{Database, DatabaseOptions};
pub use dead_letters::RecordPolicy;
pub use error::{DbError, During, ErrorKind};
pub use event_store::{EventStore, Page, RecordedEvent, Snapshot};
pub use group_commit::{AppendError, GroupCommit, GroupCommitLimits};
pub use ledger::{Ledger, LedgerRow};
pub use metric_totals::MetricsProjection;
pub use notify::AppendSignal;
pub use owner::PartitionOwner;
pub use projection::{ApplyError, Handler, Handlers, Projection};
pub use projection_sink::ProjectionSink;
pub use read_models::ReadModelsProjection;
pub use source::{EVENT_STORE_TOPIC, EventStoreSource};
