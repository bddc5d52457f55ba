//! The ten event types, the five kinds of aggregate, and where on Kafka each type's events are.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A name that stands for no known type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is no {what}; known are {known}")]
pub struct UnknownName {
    /// `event type`, `aggregate type` …
    pub what: &'static str,
    /// What was given.
    pub name: String,
    /// What would have been right.
    pub known: String,
}

macro_rules! named_enum {
    ($(#[$doc:meta])* $name:ident, $what:literal, { $($(#[$vdoc:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every variant, in the specification's order.
            pub const ALL: [Self; [$(Self::$variant),+].len()] = [$(Self::$variant),+];

            /// Its place in [`Self::ALL`].
            #[must_use]
            #[allow(clippy::as_conversions, reason = "a fieldless enum's number")]
            pub fn index(self) -> usize {
                self as usize
            }

            /// The name on the wire.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant)),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownName;
            fn from_str(name: &str) -> Result<Self, UnknownName> {
                Self::ALL.into_iter().find(|v| v.as_str() == name).ok_or_else(|| UnknownName {
                    what: $what,
                    name: name.chars().take(100).collect(),
                    known: Self::ALL.map(Self::as_str).join(", "),
                })
            }
        }
    };
}

named_enum!(
    /// What can happen.
    EventType, "event type", {
        /// An account came into being.
        UserRegistered,
        /// Parts of a profile changed.
        UserProfileUpdated,
        /// An account was closed.
        UserDeactivated,
        /// A file arrived.
        ContentUploaded,
        /// Work on a file began.
        ContentProcessingStarted,
        /// Work on a file ended, well or not.
        ContentProcessingCompleted,
        /// A learner began a session.
        LearningSessionStarted,
        /// A learner finished an assessment.
        AssessmentCompleted,
        /// An agent was given a task.
        TaskAssigned,
        /// The agent is done with it.
        TaskCompleted,
    }
);

named_enum!(
    /// What events are about.
    AggregateType, "aggregate type", {
        /// An account.
        User,
        /// An uploaded file.
        Content,
        /// One learning session.
        LearningSession,
        /// One learner's take of an assessment.
        Assessment,
        /// An agent's task.
        Task,
    }
);

impl AggregateType {
    /// The data field that names the aggregate.
    #[must_use]
    pub fn id_field(self) -> &'static str {
        match self {
            Self::User => "userId",
            Self::Content => "contentId",
            Self::LearningSession => "sessionId",
            Self::Assessment => "assessmentId",
            Self::Task => "taskId",
        }
    }
}

impl EventType {
    /// Whose stream the event belongs to.
    #[must_use]
    pub fn aggregate_type(self) -> AggregateType {
        match self {
            Self::UserRegistered | Self::UserProfileUpdated | Self::UserDeactivated => AggregateType::User,
            Self::ContentUploaded | Self::ContentProcessingStarted | Self::ContentProcessingCompleted => {
                AggregateType::Content
            }
            Self::LearningSessionStarted => AggregateType::LearningSession,
            Self::AssessmentCompleted => AggregateType::Assessment,
            Self::TaskAssigned | Self::TaskCompleted => AggregateType::Task,
        }
    }
}

/// The Kafka topics that events are in.
pub const TOPICS: [&str; 5] = ["user_events", "content_events", "learning_events", "agent_events", "general_events"];

/// The Kafka topic of an event type, known or not: a new service's types are routed before this build knows them.
#[must_use]
pub fn topic_for(event_type: &str) -> &'static str {
    const ROUTES: [(&str, &str); 6] = [
        ("User", "user_events"),
        ("Content", "content_events"),
        ("Learning", "learning_events"),
        ("Assessment", "learning_events"),
        ("Task", "agent_events"),
        ("Agent", "agent_events"),
    ];
    ROUTES.iter().find(|(prefix, _)| event_type.starts_with(prefix)).map_or("general_events", |(_, topic)| topic)
}

/// The partition of a key, as Kafka's own clients choose it by default (murmur2, its sign bit cleared).
#[must_use]
pub fn partition_for(key: &str, partitions: usize) -> usize {
    let hash = murmur2::murmur2(key.as_bytes(), murmur2::KAFKA_SEED) & 0x7fff_ffff;
    usize::try_from(hash).unwrap_or(0) % partitions.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_follow_the_specification() {
        let expected = [
            ("UserRegistered", "user_events"),
            ("ContentUploaded", "content_events"),
            ("LearningSessionStarted", "learning_events"),
            ("AssessmentCompleted", "learning_events"),
            ("TaskAssigned", "agent_events"),
            ("AgentRetired", "agent_events"),
            ("CertificateIssued", "general_events"),
            ("", "general_events"),
        ];
        for (event_type, topic) in expected {
            assert_eq!(topic_for(event_type), topic, "{event_type}");
        }
        assert!(EventType::ALL.iter().all(|t| topic_for(t.as_str()) != "general_events"));
    }
}
