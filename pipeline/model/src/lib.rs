//! What can happen on a learning platform, and nothing else: events, their contracts, the wire form, the pure
//! decisions of the command side and the pure projections of the read side. No I/O, no clock of its own.
//!
//! Reading order: [`event`] (what an event is) → [`contract`] (when one is valid) → [`wire`] (how it travels) →
//! [`decide`] (how commands become events) → [`project`] (what the events mean for those who read).

pub mod canonical;
pub mod cells;
pub mod clock;
pub mod columns;
pub mod contract;
pub mod data;
pub mod decide;
pub mod envelope;
pub mod event;
pub mod event_type;
pub mod ids;
pub mod other;
pub mod profile;
pub mod project;
pub mod upcast;
pub mod wire;

pub use bytestring::ByteString;
pub use clock::{Clock, Month, SystemClock, Timestamp};
pub use contract::{ContractViolation, Violation};
pub use data::{Data, FieldValue};
pub use envelope::{Envelope, Metadata};
pub use event::Event;
pub use event_type::{AggregateType, EventType};
pub use ids::{EventId, InvalidId, Position, StreamId, TenantId};
pub use other::{OTHER_EVENT, OtherEvent};

/// A JSON object; event data is always one.
pub type Object = serde_json::Map<String, serde_json::Value>;
