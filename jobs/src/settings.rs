//! Settings: `default.toml` < file < environment < flag. An unknown key is an error.

mod clickhouse;
mod error;
mod kafka;
mod layers;
mod references;
mod schema;

pub(crate) use error::SettingsError;
pub(crate) use layers::Layers;
pub(crate) use schema::schema;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;
use weir_api::{Front, Tls, TlsError};
use weir_engine::{BatchLimits, LaneKind, PUBLISHER, SQL, TapLimits};
use weir_model::decide::Rules;
use weir_model::project::Units;
use weir_postgres::{DedupIndex, GroupCommitLimits, RecordPolicy};

use crate::own::{OwnLane, OwnLanes};

/// An address stands for itself alone.
fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// Every setting with its default.
pub(crate) const DEFAULTS: &str = include_str!("../default.toml");

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) api: Api,
    pub(crate) postgres: Postgres,
    pub(crate) files: Files,
    pub(crate) history: History,
    pub(crate) clickhouse: clickhouse::Settings,
    pub(crate) kafka: kafka::Kafka,
    pub(crate) publisher: kafka::Publisher,
    pub(crate) run: Run,
    append: Append,
    assessments: Assessments,
    pub(crate) durations: Units,
    dead_letters: DeadLetters,
    pub(crate) dedup: Dedup,
    pub(crate) engine: Engine,
    lanes: BTreeMap<String, Lane>,
    pub(crate) jobs: BTreeMap<String, Job>,
    pub(crate) maintenance: Maintenance,
    pub(crate) archive: Archive,
    pub(crate) sql: Sql,
    pub(crate) demo: Demo,
    /// Lanes of the program's own.
    #[serde(skip)]
    pub(crate) own: OwnLanes,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Api {
    pub(crate) listen: String,
    plaintext_beyond_loopback: bool,
    trusted_proxies: Vec<String>,
    hosts: Vec<String>,
    tls: TlsFiles,
    requests_per_second: NonZeroU32,
    connections_max: usize,
    header_timeout_ms: u64,
    body_timeout_ms: u64,
    bodies_bytes_max: usize,
    body_bytes_per_second: usize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsFiles {
    certificate: PathBuf,
    key: PathBuf,
}

impl Api {
    /// Proxies, names and the certificate, which is read.
    pub(crate) fn front(&self) -> Result<Front, TlsError> {
        let TlsFiles { certificate, key } = &self.tls;
        let tls = match certificate.as_os_str().is_empty() {
            true => None,
            false => Some(Tls::read(certificate, key)?),
        };
        // Both were looked at when the settings were read.
        let proxies = self.trusted_proxies.iter().filter_map(|text| network(text)).collect();
        let hosts = self.hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        Ok(Front { tls, proxies, hosts, plaintext_beyond_loopback: self.plaintext_beyond_loopback })
    }

    /// The files of the certificate and of its key.
    pub(crate) fn certificate(&self) -> Option<(PathBuf, PathBuf)> {
        let TlsFiles { certificate, key } = &self.tls;
        (!certificate.as_os_str().is_empty()).then(|| (certificate.clone(), key.clone()))
    }

    /// The first entry that is no address or network, and what to do about it.
    fn meaningless(&self) -> Option<(&'static str, String)> {
        let TlsFiles { certificate, key } = &self.tls;
        if certificate.as_os_str().is_empty() != key.as_os_str().is_empty() {
            return Some(("api.tls", "certificate and key go together: set both, or neither".to_owned()));
        }
        let wrong = self.trusted_proxies.iter().find(|text| network(text).is_none())?;
        Some(("api.trusted_proxies", format!("`{wrong}` is no address or network, such as 10.0.0.7 or 10.0.0.0/8")))
    }

    pub(crate) fn limits(&self) -> weir_api::Limits {
        weir_api::Limits::new(
            self.requests_per_second,
            self.connections_max.max(1),
            Duration::from_millis(self.header_timeout_ms),
            Duration::from_millis(self.body_timeout_ms),
            self.bodies_bytes_max,
            self.body_bytes_per_second,
        )
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Postgres {
    pub(crate) url: String,
    pub(crate) reader_url: String,
    pub(crate) bin_dir: String,
    pub(crate) connections_max: usize,
    /// Further settings of each session.
    pub(crate) session: BTreeMap<String, Passed>,
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
pub(crate) struct Files {
    group: String,
}

impl Files {
    /// Who may read history besides the data directory's user.
    pub(crate) fn group(&self) -> Option<&str> {
        (!self.group.is_empty()).then_some(&self.group)
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct History {
    pub(crate) url: String,
    storage: BTreeMap<String, Passed>,
}

impl History {
    /// Options of the object store.
    pub(crate) fn storage(&self) -> BTreeMap<String, String> {
        self.storage.iter().map(|(name, value)| (name.clone(), value.to_string())).collect()
    }
}

/// A value that is passed on as it is.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Passed {
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Text(String),
}

impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(b) => b.fmt(f),
            Self::Integer(n) => n.fmt(f),
            Self::Float(n) => n.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Run {
    pub(crate) listen: String,
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
struct Assessments {
    max_attempts: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeadLetters {
    retry_delays_ms: Vec<u64>,
    parked_max: i64,
    mirror: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Dedup {
    pub(crate) window_records: i64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Engine {
    buffer_bytes: usize,
}

impl Engine {
    /// Of the reader that lanes of one process share.
    pub(crate) fn tap_limits(&self) -> TapLimits {
        let (buffer_bytes, held_up_max) = (self.buffer_bytes, Duration::from_secs(1));
        TapLimits { buffer_bytes, held_up_max, gather: Duration::ZERO, keeps_text: true }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lane {
    enabled: bool,
    records_max: usize,
    bytes_max: usize,
    flush_interval_ms: u64,
    poll_records_max: usize,
}

/// A job's schedule: see `default.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Job {
    pub(crate) schedule: String,
    pub(crate) time_zone: String,
    pub(crate) overlap: Overlap,
    pub(crate) catchup: Catchup,
    pub(crate) timeout_s: u64,
    pub(crate) retries: u32,
    pub(crate) pause_on_failure: bool,
}

/// What becomes of a moment that comes while the job still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Overlap {
    Refuse,
    Queue,
}

/// What becomes of moments that passed while no process was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Catchup {
    Skip,
    Once,
    All,
}

/// Where the event store is archived.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Archive {
    pub(crate) url: String,
}

/// What the jobs that keep things tidy go by.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Maintenance {
    pub(crate) compaction_target_bytes: u64,
    pub(crate) compaction_memory_bytes: usize,
    vacuum_retention_s: u64,
    pub(crate) keep_runs_days: u32,
    pub(crate) keep_versions_days: u32,
}

impl Maintenance {
    pub(crate) fn vacuum_retention(&self) -> Duration {
        Duration::from_secs(self.vacuum_retention_s)
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sql {
    pub(crate) memory_max_bytes: usize,
    pub(crate) listen: String,
    pub(crate) connections_max: usize,
    statement_timeout_seconds: u64,
}

impl Sql {
    /// How long a statement of a client may run.
    pub(crate) fn statement_max(&self) -> Duration {
        Duration::from_secs(self.statement_timeout_seconds)
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Demo {
    pub(crate) events_per_second: f64,
}

impl Settings {
    /// Reads all layers.
    pub(crate) fn read(
        data_dir: &Path,
        file: Option<&Path>,
        flags: &[String],
        own: &OwnLanes,
    ) -> Result<Self, SettingsError> {
        let settings = Layers::read(data_dir, file, flags, true, own)?.settings()?;
        Ok(Self { own: own.clone(), ..settings })
    }

    pub(crate) fn group_commit(&self) -> GroupCommitLimits {
        GroupCommitLimits {
            commands_max: self.append.commands_max,
            bytes_max: self.append.bytes_max,
            queue_max: self.append.queue_max,
            give_up_after: Duration::from_millis(self.append.give_up_after_ms),
        }
    }

    pub(crate) fn record_policy(&self) -> RecordPolicy {
        RecordPolicy {
            delays: self.dead_letters.retry_delays_ms.iter().copied().map(Duration::from_millis).collect(),
            parked_max: self.dead_letters.parked_max,
            repeats: Arc::new(DedupIndex::new(self.dedup.window_records)),
        }
    }

    /// What the command side holds commands to.
    pub(crate) fn rules(&self) -> Rules {
        Rules { max_attempts: NonZeroU32::new(self.assessments.max_attempts) }
    }

    /// The lanes that are enabled, and so compared.
    pub(crate) fn enabled_lanes(&self) -> Vec<&'static str> {
        let all = LaneKind::NAMES.into_iter().chain(self.own.names());
        all.filter(|lane| self.lanes.get(*lane).is_some_and(|lane| lane.enabled)).collect()
    }

    /// The lanes that run by themselves: those that are enabled, and have what they need.
    pub(crate) fn lanes(&self) -> Vec<&'static str> {
        let with_clickhouse = !self.clickhouse.url.is_empty();
        self.enabled_lanes()
            .into_iter()
            .filter(|lane| *lane != LaneKind::ClickHouse.name() || with_clickhouse)
            .collect()
    }

    /// What should be at work somewhere: the lanes, the publisher where there are brokers, and SQL where it listens.
    pub(crate) fn parts(&self) -> Vec<&'static str> {
        let publisher = self.kafka.options().map(|_| PUBLISHER);
        let sql = (!self.sql.listen.is_empty()).then_some(SQL);
        self.lanes().into_iter().chain(publisher).chain(sql).collect()
    }

    /// The lane of this name as the engine wants it.
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
            filter: self.own.get(name).and_then(OwnLane::filter),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(flags: &[&str]) -> Result<Settings, SettingsError> {
        let flags: Vec<String> = flags.iter().map(|f| (*f).to_owned()).collect();
        Settings::read(Path::new("/nonexistent"), None, &flags, &OwnLanes::default())
    }

    #[test]
    fn each_value_says_where_it_came_from_and_secrets_are_not_shown() {
        let flags = [
            "api.listen=127.0.0.1:0",
            "postgres.url=postgres://me:hush@localhost/weir",
            "clickhouse.password=hush",
            "kafka.client.sasl.password=12345",
            "kafka.client.ssl.key.pem=hush",
            "history.url=az://events?account_key=hush&region=west",
            "clickhouse.settings.max_threads=2",
        ]
        .map(str::to_owned);
        let layers = Layers::read(Path::new("/nonexistent"), None, &flags, false, &OwnLanes::default()).expect("valid");
        let values = layers.values().expect("values");
        let find = |key: &str| values.iter().find(|value| value.key == key).expect("there");
        assert_eq!(
            (find("api.listen").origin.as_str(), find("sql.memory_max_bytes").origin.as_str()),
            ("flag", "default")
        );
        // A password of digits is a number to TOML.
        assert_eq!(find("kafka.client.sasl.password").value, "***");
        assert_eq!(find("clickhouse.password").value, "***");
        assert_eq!(find("clickhouse.settings.max_threads").value, 2);
        assert_eq!(find("kafka.client.ssl.key.pem").value, "***");
        // Where a URL holds it among its parameters, the others stay to be seen.
        let url = find("history.url").value.to_string();
        assert!(!url.contains("hush") && url.contains("region=west"), "{url}");
        let url = find("postgres.url").value.to_string();
        assert!(!url.contains("hush") && url.contains("me:***@localhost"), "{url}");
    }

    #[test]
    fn the_schema_documents_every_setting() {
        let schema = schema().expect("a schema");
        let property = &schema["properties"]["lanes"]["properties"]["history"]["properties"]["flush_interval_ms"];
        assert_eq!((&property["type"], &property["default"]), (&"integer".into(), &10000.into()));
        let append = &schema["properties"]["append"]["properties"]["give_up_after_ms"]["description"];
        assert!(append.as_str().expect("words").contains("How long a command is tried again"));
        assert_eq!(schema["additionalProperties"], false);
    }

    #[test]
    fn flags_override_defaults_and_unknown_keys_are_refused() {
        let settings = read(&["lanes.history.flush_interval_ms=7", "api.listen=127.0.0.1:0", "durations.time_spent=s"])
            .expect("valid");
        assert_eq!(settings.lane("history").expect("a lane").limits.flush_interval, Duration::from_millis(7));
        assert_eq!(settings.api.listen, "127.0.0.1:0");
        assert_eq!(settings.durations.time_spent, weir_model::project::DurationUnit::Seconds);
        let refusal = read(&["lanes.history.flush_intervall_ms=7"]).expect_err("unknown").to_string();
        assert!(refusal.contains("did you mean `lanes.history.flush_interval_ms`"), "{refusal}");
        let refusal = read(&["lanes.history.records_max=many"]).expect_err("no number").to_string();
        assert!(refusal.contains("lanes.history.records_max"), "{refusal}");
        let refusal = read(&["api.listen=nowhere"]).expect_err("no address").to_string();
        assert!(refusal.contains("api.listen"), "{refusal}");
        assert!(read(&["nonsense"]).is_err());
    }
}
