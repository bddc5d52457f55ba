//! Moves records from a [`Source`] to a [`Sink`], exactly once. Knows no Kafka and no database: what those must promise
//! stands on the two traits, and [`run_lane`] is the whole of the rest.

pub mod batch;
pub mod failpoint;
mod headers;
mod progress;
pub mod retry;
mod run;
mod sink;
mod source;
mod status;

pub use batch::{Batch, BatchLimits, DeadRecord, Located, LocatedOther};
pub use headers::Headers;
pub use run::{Lane, LaneError, run_lane};
pub use sink::{BoxError, Claim, Sink, SinkError};
pub use source::{Partition, Record, Source, SourceError, SourceEvent, Span, Started, ordering_key};
pub use status::{COMMANDS, LanePhase, LaneStatus, PUBLISHER, StatusBoard};
