//! Settings: `default.toml` < file < environment < flag. An unknown key is an error.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use figment::Figment;
use figment::providers::{Env, Format, Toml};
use serde::Deserialize;
use weir_engine::BatchLimits;
use weir_model::project::Units;
use weir_postgres::{GroupCommitLimits, RetryPolicy};

/// Every setting with its default.
pub(crate) const DEFAULTS: &str = include_str!("../default.toml");

/// Environment variables of ours that are no settings.
const NOT_SETTINGS: &[&str] = &["failpoint", "log", "crash_rounds", "seed", "data_dir", "oulad"];

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) api: Api,
    pub(crate) postgres: Postgres,
    pub(crate) history: History,
    append: Append,
    pub(crate) durations: Units,
    dead_letters: DeadLetters,
    lanes: BTreeMap<String, Lane>,
    pub(crate) sql: Sql,
    pub(crate) demo: Demo,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Api {
    pub(crate) listen: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Postgres {
    pub(crate) url: String,
    pub(crate) reader_url: String,
    pub(crate) bin_dir: String,
    pub(crate) connections_max: usize,
    statement_timeout_ms: u64,
    lock_timeout_ms: u64,
}

impl Postgres {
    pub(crate) fn statement_timeout(&self) -> Duration {
        Duration::from_millis(self.statement_timeout_ms)
    }

    pub(crate) fn lock_timeout(&self) -> Duration {
        Duration::from_millis(self.lock_timeout_ms)
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct History {
    pub(crate) url: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Append {
    commands_max: usize,
    bytes_max: usize,
    queue_max: usize,
    give_up_after_ms: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeadLetters {
    retry_delays_ms: Vec<u64>,
    parked_max: i64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lane {
    records_max: usize,
    bytes_max: usize,
    flush_interval_ms: u64,
    poll_records_max: usize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sql {
    pub(crate) memory_max_bytes: usize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Demo {
    pub(crate) events_per_second: f64,
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// A file that is named but cannot be read.
    #[error("the configuration file {path} cannot be read")]
    File { path: String, source: std::io::Error },
    /// A flag of another form.
    #[error("`--set {given}`: write key=value, for example --set lanes.history.flush_interval_ms=500")]
    Flag { given: String },
    /// Unknown keys, wrong types; figment names key and place.
    #[error("a setting is wrong: {0}; `jobs/default.toml` lists all of them")]
    Wrong(#[from] Box<figment::Error>),
}

impl Settings {
    /// Reads all layers.
    pub(crate) fn read(data_dir: &Path, file: Option<&Path>, flags: &[String]) -> Result<Self, SettingsError> {
        let mut figment = Figment::new().merge(Toml::string(DEFAULTS));
        let own = data_dir.join("weir.toml");
        if let Some(path) = file {
            std::fs::File::open(path)
                .map_err(|source| SettingsError::File { path: path.display().to_string(), source })?;
            figment = figment.merge(Toml::file_exact(path));
        } else if own.is_file() {
            figment = figment.merge(Toml::file_exact(own));
        }
        figment = figment.merge(Env::prefixed("WEIR_").ignore(NOT_SETTINGS).split("__"));
        for flag in flags {
            let (key, value) = flag.split_once('=').ok_or_else(|| SettingsError::Flag { given: flag.clone() })?;
            // TOML where it is TOML (numbers, lists), else text.
            let typed = format!("{key} = {value}");
            let is_toml = Figment::from(Toml::string(&typed)).extract::<figment::value::Dict>().is_ok();
            let line = if is_toml { typed } else { format!("{key} = {value:?}") };
            figment = figment.merge(Toml::string(&line));
        }
        figment.extract().map_err(|e| Box::new(e).into())
    }

    pub(crate) fn group_commit(&self) -> GroupCommitLimits {
        GroupCommitLimits {
            commands_max: self.append.commands_max,
            bytes_max: self.append.bytes_max,
            queue_max: self.append.queue_max,
            give_up_after: Duration::from_millis(self.append.give_up_after_ms),
        }
    }

    pub(crate) fn retry_policy(&self) -> RetryPolicy {
        RetryPolicy {
            delays: self.dead_letters.retry_delays_ms.iter().copied().map(Duration::from_millis).collect(),
            parked_max: self.dead_letters.parked_max,
        }
    }

    /// The lane of this name as the engine wants it; positions of the event store begin at 1.
    pub(crate) fn lane(&self, name: &str) -> Option<weir_engine::Lane> {
        let lane = self.lanes.get(name)?;
        Some(weir_engine::Lane {
            name: name.to_owned(),
            limits: BatchLimits {
                records_max: lane.records_max.max(1),
                bytes_max: lane.bytes_max.max(1),
                flush_interval: Duration::from_millis(lane.flush_interval_ms.max(1)),
            },
            poll_records_max: lane.poll_records_max.max(1),
            first_offset: 1,
            filter: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(flags: &[&str]) -> Result<Settings, SettingsError> {
        let flags: Vec<String> = flags.iter().map(|f| (*f).to_owned()).collect();
        Settings::read(Path::new("/nonexistent"), None, &flags)
    }

    #[test]
    fn flags_override_defaults_and_unknown_keys_are_refused() {
        let settings = read(&["lanes.history.flush_interval_ms=7", "api.listen=127.0.0.1:0", "durations.time_spent=s"])
            .expect("valid");
        assert_eq!(settings.lane("history").expect("a lane").limits.flush_interval, Duration::from_millis(7));
        assert_eq!(settings.api.listen, "127.0.0.1:0");
        assert_eq!(settings.durations.time_spent, weir_model::project::DurationUnit::Seconds);
        let refusal = read(&["lanes.history.flush_interval=7"]).expect_err("unknown").to_string();
        assert!(refusal.contains("flush_interval"), "{refusal}");
        assert!(read(&["nonsense"]).is_err());
    }
}
