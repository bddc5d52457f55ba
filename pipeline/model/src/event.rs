//! An event after decoding.

use std::ops::{Deref, DerefMut};

use crate::data::Data;
use crate::envelope::{Envelope, Enveloped};
use crate::event_type::EventType;
use crate::ids::StreamId;

/// A decoded event: contract checked, upcast to the newest version of its type, ids and times typed. Its envelope's fields are its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What every event has; `schema_version` is that of the contract that `data` now fulfils.
    pub envelope: Envelope,
    /// What happened.
    pub event_type: EventType,
    /// The aggregate.
    pub stream: StreamId,
    /// The payload, unknown fields included.
    pub data: Data,
}

impl Deref for Event {
    type Target = Envelope;

    fn deref(&self) -> &Envelope {
        &self.envelope
    }
}

impl DerefMut for Event {
    fn deref_mut(&mut self) -> &mut Envelope {
        &mut self.envelope
    }
}

impl Event {
    /// Whom the event is about, else who acted.
    #[must_use]
    pub fn user_id(&self) -> Option<&str> {
        self.data.text("userId").or(self.metadata.user_id.as_deref())
    }

    /// A text field of the payload.
    #[must_use]
    pub fn text(&self, field: &str) -> Option<&str> {
        self.data.text(field)
    }

    /// A number of the payload.
    #[must_use]
    pub fn number(&self, field: &str) -> Option<f64> {
        self.data.number(field)
    }

    /// The payload in RFC 8785 form: what history keeps and hashes stand on.
    #[must_use]
    pub fn canonical_data(&self) -> &str {
        self.data.canonical()
    }

    /// As a row of the envelope's columns.
    #[must_use]
    pub fn enveloped(&self) -> Enveloped<'_> {
        Enveloped {
            event_type: self.event_type.as_str(),
            aggregate_type: self.stream.aggregate_type().as_str(),
            aggregate_id: self.stream.aggregate_id(),
            envelope: &self.envelope,
        }
    }
}
