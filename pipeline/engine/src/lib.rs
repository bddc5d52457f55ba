//! Moves records from a [`Source`] to a [`Sink`], exactly once. Knows no Kafka and no database: what those must promise
//! stands on the two traits, and [`run_lane`] is the whole of the rest.

pub mod batch;
mod chunk;
mod error;
pub mod failpoint;
mod headers;
mod lane_kind;
pub mod metric;
pub mod observed;
mod progress;
mod record;
pub mod retry;
mod run;
mod sink;
mod source;
mod status;
mod step;
pub mod tap;

pub use batch::{Batch, BatchLimits};
pub use chunk::{Chunk, DeadRecord, Located, Row, SharedEvent};
pub use error::{BoxError, SinkError, SourceError};
pub use headers::Headers;
pub use lane_kind::{LaneKind, UnknownLane};
pub use record::{Partition, Record, RecordHead, Span, ordering_key};
pub use run::{Lane, LaneError, run_lane};
pub use sink::{Claim, Sink};
pub use source::{Source, SourceEvent, Started};
pub use status::{COMMANDS, LanePhase, LaneStatus, NO_LANES, PUBLISHER, SQL, StatusBoard};
pub use tap::{Reader, Tap, TapLimits, TapSource};
