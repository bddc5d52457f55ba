//! Newtypes for every identifier, checked where they are made, so that no other code has to ask.

use std::fmt;
use std::str::FromStr;

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event_type::AggregateType;

/// Ids end in columns of this length in every store.
pub const ID_LENGTH_MAX: usize = 255;

/// Why a string is no identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// Nothing was given.
    #[error("{what} is empty")]
    Empty {
        /// Which identifier.
        what: &'static str,
    },
    /// More than [`ID_LENGTH_MAX`] characters.
    #[error("{what} has {length} characters; at most {ID_LENGTH_MAX} are allowed")]
    TooLong {
        /// Which identifier.
        what: &'static str,
        /// Characters given.
        length: usize,
    },
    /// A control character, which logs and databases would garble.
    #[error("{what} holds the control character {character:?}")]
    ControlCharacter {
        /// Which identifier.
        what: &'static str,
        /// The first one found.
        character: char,
    },
    /// Not of the form `AggregateType-id`.
    #[error("`{given}` is no stream: streams are named AggregateType-id, for example User-u42 ({types})")]
    NoStream {
        /// What was given.
        given: String,
        /// The types there are.
        types: String,
    },
}

fn check(what: &'static str, value: &str) -> Result<(), InvalidId> {
    if value.is_empty() {
        return Err(InvalidId::Empty { what });
    }
    // Most ids are short and plain ASCII: one look at the bytes decides.
    if value.len() <= ID_LENGTH_MAX && value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Ok(());
    }
    let length = value.chars().count();
    if length > ID_LENGTH_MAX {
        return Err(InvalidId::TooLong { what, length });
    }
    match value.chars().find(|c| c.is_control()) {
        Some(character) => Err(InvalidId::ControlCharacter { what, character }),
        None => Ok(()),
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(ByteString);

        impl $name {
            /// Checks length and characters.
            pub fn new(value: impl Into<ByteString>) -> Result<Self, InvalidId> {
                let value = value.into();
                check($what, &value)?;
                Ok(Self(value))
            }

            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(value: String) -> Result<Self, InvalidId> {
                Self::new(value)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// One customer of the platform; every row, token and answer belongs to exactly one.
    TenantId,
    "the tenant"
);
text_id!(
    /// An event's own id. Ours are version 5 UUIDs of the command; other services may use any text.
    EventId,
    "eventId"
);

impl Default for TenantId {
    /// Events that name no tenant belong to `default`.
    fn default() -> Self {
        Self(ByteString::from_static("default"))
    }
}

impl From<Uuid> for EventId {
    fn from(id: Uuid) -> Self {
        Self(id.hyphenated().to_string().into())
    }
}

/// One aggregate's events. Written `AggregateType-id`: the type is part of the name because platforms commonly number
/// users and tasks alike, and user 7 must not share versions with task 7.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    aggregate_type: AggregateType,
    aggregate_id: ByteString,
}

impl StreamId {
    /// A stream of `aggregate_type`; the id is checked.
    pub fn new(aggregate_type: AggregateType, aggregate_id: impl Into<ByteString>) -> Result<Self, InvalidId> {
        let aggregate_id = aggregate_id.into();
        check(aggregate_type.id_field(), &aggregate_id)?;
        Ok(Self { aggregate_type, aggregate_id })
    }

    /// One learner's takes of one assessment: `Assessment-<assessmentId>/<userId>`, with `%` and `/` percent-encoded in both.
    pub fn of_takes(assessment_id: &str, user_id: &str) -> Result<Self, InvalidId> {
        check("assessmentId", assessment_id)?;
        check("userId", user_id)?;
        Self::new(AggregateType::Assessment, takes_id(assessment_id, user_id))
    }

    /// What kind of thing the stream is about.
    #[must_use]
    pub fn aggregate_type(&self) -> AggregateType {
        self.aggregate_type
    }

    /// The id without its type: the Kafka key.
    #[must_use]
    pub fn aggregate_id(&self) -> &str {
        &self.aggregate_id
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.aggregate_type, self.aggregate_id)
    }
}

impl FromStr for StreamId {
    type Err = InvalidId;

    fn from_str(given: &str) -> Result<Self, InvalidId> {
        let no_stream = || InvalidId::NoStream {
            given: given.chars().take(ID_LENGTH_MAX).collect(),
            types: AggregateType::ALL.map(AggregateType::as_str).join(", "),
        };
        let (name, id) = given.split_once('-').ok_or_else(no_stream)?;
        Self::new(AggregateType::from_str(name).map_err(|_| no_stream())?, id)
    }
}

/// Separates shortened aggregate ids from every other use of version 5 UUIDs.
const SHORTENED_NAMESPACE: Uuid = Uuid::from_u128(0x5407_7e4e_8626_4c6e_9d1a_57e1_0a5c_1d5a);

/// `~` and a UUID, at the end of an id that was too long.
const SHORTENED_TAIL_LENGTH: usize = 37;

/// The aggregate id of one learner's takes of one assessment. No two pairs have the same, and none is longer than an id may be:
/// what would be ends in `~` and a version 5 UUID of the whole.
#[must_use]
pub fn takes_id(assessment_id: &str, user_id: &str) -> String {
    let encoded = |part: &str| part.replace('%', "%25").replace('/', "%2F");
    let whole = format!("{}/{}", encoded(assessment_id), encoded(user_id));
    let length = whole.chars().count();
    // One that only looks shortened must not be taken for one that is.
    let looks_shortened = || {
        let tail = whole.rsplit_once('~').map(|(_, tail)| tail);
        length == ID_LENGTH_MAX && tail.is_some_and(|tail| tail.len() == 36 && Uuid::try_parse(tail).is_ok())
    };
    if length <= ID_LENGTH_MAX && !looks_shortened() {
        return whole;
    }
    let head: String = whole.chars().take(ID_LENGTH_MAX - SHORTENED_TAIL_LENGTH).collect();
    format!("{head}~{}", Uuid::new_v5(&SHORTENED_NAMESPACE, whole.as_bytes()).hyphenated())
}

/// An event's place in the event store's total order, 1 for the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub i64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_named_by_type_and_id() {
        let stream: StreamId = "User-a-b-c".parse().expect("valid");
        assert_eq!((stream.aggregate_type(), stream.aggregate_id()), (AggregateType::User, "a-b-c"));
        assert_eq!(stream.to_string(), "User-a-b-c");
        for bad in ["", "User", "User-", "Nobody-1", "user-1", "User-a\u{0}b"] {
            assert!(bad.parse::<StreamId>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn takes_of_an_assessment_are_told_apart_by_learner() {
        let id = |assessment: &str, user: &str| takes_id(assessment, user);
        assert_eq!(id("final-exam", "u1"), "final-exam/u1");
        assert_eq!(id("50%", "a/b"), "50%25/a%2Fb");
        assert_ne!(id("a/b", "c"), id("a", "b/c"));
        assert_ne!(id("a%2Fb", "c"), id("a/b", "c"));
        assert_eq!(StreamId::of_takes("e", "u").expect("valid").to_string(), "Assessment-e/u");
        assert!(StreamId::of_takes("", "u").is_err() && StreamId::of_takes("e", "").is_err());
    }

    #[test]
    fn takes_of_long_ids_stay_within_bounds_and_apart() {
        let (long, emoji) = ("x".repeat(255), "🎓".repeat(255));
        for (assessment, user) in [(&*long, "u"), ("e", &*long), (&*long, &*long), (&*emoji, &*emoji)] {
            let stream = StreamId::of_takes(assessment, user).expect("valid");
            assert_eq!(stream.aggregate_id().chars().count(), ID_LENGTH_MAX);
            assert!(stream.to_string().chars().count() <= 300);
        }
        assert_ne!(takes_id(&long, "u1"), takes_id(&long, "u2"));
        // An id made to look like another one's shortened form is shortened itself.
        let shortened = takes_id(&long, "u1");
        let (assessment, user) = (&shortened[..100], &shortened[101..]);
        assert_ne!(takes_id(&format!("{assessment}x"), user), shortened);
        assert_eq!(takes_id("a", &"b".repeat(253)).len(), 255);
        assert!(!takes_id("a", &"b".repeat(253)).contains('~'));
    }

    #[test]
    fn ids_are_bounded_in_characters_not_bytes() {
        assert!(TenantId::new("é".repeat(255)).is_ok());
        assert_eq!(TenantId::new("é".repeat(256)), Err(InvalidId::TooLong { what: "the tenant", length: 256 }));
    }
}
