//! What Kafka's errors mean for the caller: wait, or give up.

use rdkafka::error::RDKafkaErrorCode;
use weir_engine::{BoxError, SourceError};
use weir_postgres::{DbError, ErrorKind};

/// A failed piece of work at the brokers.
#[derive(Debug, thiserror::Error)]
#[error("{action} failed")]
pub struct KafkaError {
    action: &'static str,
    retriable: bool,
    #[source]
    source: BoxError,
}

impl KafkaError {
    /// The brokers are away or busy, or the outcome is unknown: the same again, later.
    pub(crate) fn unavailable(action: &'static str, source: impl Into<BoxError>) -> Self {
        Self { action, retriable: true, source: source.into() }
    }

    /// Trying again cannot help.
    pub(crate) fn permanent(action: &'static str, source: impl Into<BoxError>) -> Self {
        Self { action, retriable: false, source: source.into() }
    }

    /// Whether the same may work later.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        self.retriable
    }
}

/// Names the work that failed.
pub(crate) trait During<T> {
    /// `action` completes "… failed".
    fn during(self, action: &'static str) -> Result<T, KafkaError>;
}

impl<T> During<T> for Result<T, rdkafka::error::KafkaError> {
    fn during(self, action: &'static str) -> Result<T, KafkaError> {
        self.map_err(|e| KafkaError { action, retriable: is_retriable(&e), source: e.into() })
    }
}

impl<T> During<T> for Result<T, DbError> {
    fn during(self, action: &'static str) -> Result<T, KafkaError> {
        self.map_err(|e| KafkaError { action, retriable: e.kind() == ErrorKind::Unavailable, source: e.into() })
    }
}

/// Only what a person has to mend is final; a broker that is away, moving or starting is waited for.
fn is_retriable(error: &rdkafka::error::KafkaError) -> bool {
    use rdkafka::error::KafkaError as E;
    if let E::ClientConfig(..) | E::ClientCreation(_) | E::Nul(_) = error {
        return false;
    }
    !matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::InvalidArgument
                | RDKafkaErrorCode::UnsupportedFeature
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
                | RDKafkaErrorCode::TransactionalIdAuthorizationFailed
        )
    )
}

impl From<KafkaError> for SourceError {
    fn from(error: KafkaError) -> Self {
        if error.retriable { Self::Retry(error.into()) } else { Self::Fatal(error.into()) }
    }
}
