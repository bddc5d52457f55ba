//! Why settings cannot be used.

use crate::access::AccessError;

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// A file that is named but cannot be read.
    #[error("the configuration file {path} cannot be read")]
    File { path: String, source: std::io::Error },
    /// A file that others may have written.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A flag of another form.
    #[error("`--set {given}`: write key=value, for example --set lanes.history.flush_interval_ms=500")]
    Flag { given: String },
    /// A key that does not exist.
    #[error("there is no setting `{key}` ({origin}){}; `weir config show` lists all of them", similar(suggestion.as_deref()))]
    Unknown { key: String, origin: String, suggestion: Option<String> },
    /// A key of an older version.
    #[error("there is no setting `{key}` any more ({origin}): {instead}")]
    Renamed { key: String, origin: String, instead: &'static str },
    /// A value of the wrong type; figment names key and place.
    #[error("a setting is wrong: {0}; `weir config show` lists all of them, jobs/default.toml explains them")]
    Wrong(#[from] Box<figment::Error>),
    /// A value that refers to something that is not there.
    #[error("the setting `{key}` refers to {reference}, which cannot be read: {reason}")]
    Reference { key: String, reference: String, reason: String },
    /// A value of the right type that means nothing.
    #[error("the setting `{key}` is wrong: {reason}")]
    Meaningless { key: &'static str, reason: String },
}

fn similar(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |key| format!("; did you mean `{key}`?"))
}
