//! Why bytes are no event.

use bytestring::ByteString;

use crate::contract::{ContractViolation, Violation};
use crate::event_type::UnknownName;
use crate::ids::ID_LENGTH_MAX;

/// Why bytes are no event. Every variant is final: the same bytes fail the same way for ever.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No value at all, as a compacted topic's tombstones have none.
    #[error("the record has no value: a tombstone means nothing in a log of events")]
    NoValue,
    /// The headers say something else than the body.
    #[error("the header {name} says `{header}`, the body says `{body}`")]
    Header {
        /// Which header.
        name: &'static str,
        /// What it says.
        header: String,
        /// What the body says.
        body: String,
    },
    /// Not JSON.
    #[error("the record is not JSON: {detail}")]
    NotJson {
        /// The parser's words, with line and column.
        detail: String,
    },
    /// JSON, but no IntegrationEvent.
    #[error("the envelope is broken: {0}")]
    Envelope(Violation),
    /// A type that this build has no contract for.
    #[error(transparent)]
    UnknownType(UnknownName),
    /// The data breaks its contract.
    #[error(transparent)]
    Contract(ContractViolation),
}

pub(crate) fn broken(pointer: impl Into<String>, reason: impl Into<String>) -> DecodeError {
    DecodeError::Envelope(Violation::new(pointer, reason))
}

/// Envelope text is free, but goes into databases, which hold no U+0000, and log lines, which hold no novel.
pub(super) fn clean(pointer: &str, text: &str) -> Result<(), DecodeError> {
    // Characters are never more than bytes, and count only where that does not decide.
    let is_long = text.len() > ID_LENGTH_MAX && text.chars().count() > ID_LENGTH_MAX;
    match is_long || text.contains('\0') {
        true => Err(broken(pointer, "holds U+0000 or more than 255 characters")),
        false => Ok(()),
    }
}

pub(crate) fn cleaned(pointer: &str, text: &str) -> Result<ByteString, DecodeError> {
    clean(pointer, text).map(|()| ByteString::from(text.to_owned()))
}
