//! What can go wrong, in words.

use weir_engine::BoxError;

/// Why an archive was not written, checked or loaded.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A file, an object store or Postgres.
    #[error("{action} failed")]
    Failed {
        /// What was under way.
        action: &'static str,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// It must not be done, and nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// A part is not what was written.
    #[error("{0}")]
    Broken(String),
}

/// Names the work that failed.
pub(crate) fn during<E: Into<BoxError>>(action: &'static str) -> impl Fn(E) -> ArchiveError {
    move |error| ArchiveError::Failed { action, source: error.into() }
}
