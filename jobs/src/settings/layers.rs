//! The layers that settings come from, and what is wrong with them.

use std::path::Path;

use figment::Figment;
use figment::providers::{Env, Format, Toml};
use figment::value::{Dict, Value};

use super::error::SettingsError;
use super::{DEFAULTS, Settings, references};
use crate::job::Job;
use crate::own::OwnLanes;
use crate::{access, cron};

/// Environment variables of ours that are no settings.
const NOT_SETTINGS: &[&str] = &["failpoint", "log", "crash_rounds", "seed", "data_dir", "oulad"];

/// Settings that there were once, and what stands in their place.
const RENAMED: [(&str, &str); 4] = [
    (
        "dead_letters.repeats_window_s",
        "how long repeats are recognised is counted in records now, `dedup.window_records`; `weir status` shows how many hours that is",
    ),
    ("jobs.verify.cron", "it is `jobs.verify.schedule` now, beside `time_zone`"),
    ("jobs.rebuild-read-models.cron", "it is `jobs.rebuild-read-models.schedule` now, beside `time_zone`"),
    ("jobs.rebuild-metrics.cron", "it is `jobs.rebuild-metrics.schedule` now, beside `time_zone`"),
];

/// Bytes of a compacted file: with less every read opens too many, with more none can be read beside others.
const COMPACTED_BYTES: std::ops::RangeInclusive<u64> = 100_000..=536_870_912;

/// Prefixes of keys that are passed on to Postgres, the object store, ClickHouse or librdkafka: any name may follow.
const PASSED: [&str; 6] = [
    "postgres.session.",
    "history.storage.",
    "clickhouse.settings.",
    "kafka.client.",
    "kafka.consumer.",
    "kafka.producer.",
];

/// Settings whose names say that they are secrets.
const SECRETS: [&str; 8] =
    ["secret", "password", "token", "access_key", "account_key", "key.pem", "credentials", "sas_key"];

/// Names of the layers, as people see them.
const DEFAULT: &str = "default";
const ENVIRONMENT: &str = "environment";
const FLAG: &str = "flag";

/// A setting, for people.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) key: String,
    pub(crate) value: serde_json::Value,
    pub(crate) origin: String,
}

/// All layers, merged.
pub(crate) struct Layers {
    defaults: Figment,
    figment: Figment,
}

/// What lanes of a program's own begin with.
fn defaults_of(lane: &str) -> String {
    format!(
        "[lanes.{lane}]\nenabled = true\nrecords_max = 4000\nbytes_max = 8388608\nflush_interval_ms = 200\npoll_records_max = 2000\n"
    )
}

impl Layers {
    /// Reads them; unknown keys are refused.
    pub(crate) fn read(
        data_dir: &Path,
        file: Option<&Path>,
        flags: &[String],
        environment: bool,
        own: &OwnLanes,
    ) -> Result<Self, SettingsError> {
        let mut defaults = Figment::new().merge(named(DEFAULT, &Toml::string(DEFAULTS))?);
        for lane in own.names() {
            defaults = defaults.merge(named(DEFAULT, &Toml::string(&defaults_of(lane)))?);
        }
        let mut figment = defaults.clone();
        let usual = data_dir.join("weir.toml");
        let file = file.or_else(|| usual.is_file().then_some(usual.as_path()));
        if let Some(path) = file {
            let name = path.display().to_string();
            if path.exists() {
                access::check(path)?;
            }
            let text =
                std::fs::read_to_string(path).map_err(|source| SettingsError::File { path: name.clone(), source })?;
            figment = figment.merge(named(&name, &Toml::string(&text))?);
        }
        if environment {
            // A shell's variables have no hyphens.
            let jobs = Job::ALL.into_iter().map(Job::name).filter(|name| name.contains('-'));
            let words = jobs.chain(["read-models"]).chain(own.names());
            let words: Vec<(String, &str)> = words.map(|word| (word.replace('-', "_"), word)).collect();
            let env = Env::prefixed("WEIR_").ignore(NOT_SETTINGS).map(move |key| {
                let key = key.as_str().to_ascii_lowercase().replace("__", ".");
                words.iter().fold(key, |key, (variable, word)| key.replace(variable, word)).into()
            });
            figment = figment.merge(named(ENVIRONMENT, &env)?);
        }
        for flag in flags {
            let (key, value) = flag.split_once('=').ok_or_else(|| SettingsError::Flag { given: flag.clone() })?;
            // TOML where it is TOML (numbers, lists), else text.
            let typed = format!("{key} = {value}");
            let is_toml = Figment::from(Toml::string(&typed)).extract::<Dict>().is_ok();
            let line = if is_toml { typed } else { format!("{key} = {value:?}") };
            figment = figment.merge(named(FLAG, &Toml::string(&line))?);
        }
        let layers = Self { defaults, figment };
        layers.refuse_unknown()?;
        Ok(layers)
    }

    /// The settings, checked.
    pub(crate) fn settings(&self) -> Result<Settings, SettingsError> {
        let settings: Settings = self.resolved()?.extract().map_err(Box::new)?;
        let meaningless = |key, reason: String| Err(SettingsError::Meaningless { key, reason });
        if settings.api.listen.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
            return meaningless("api.listen", "it is no address and port, such as 127.0.0.1:8626".to_owned());
        }
        if let Some((key, reason)) = settings.api.meaningless() {
            return meaningless(key, reason);
        }
        for (key, url) in [
            ("postgres.url", &settings.postgres.url),
            ("history.url", &settings.history.url),
            ("clickhouse.url", &settings.clickhouse.url),
            ("archive.url", &settings.archive.url),
        ] {
            if let Some(error) = Some(url).filter(|url| !url.is_empty()).and_then(|url| url::Url::parse(url).err()) {
                return meaningless(key, format!("it is no URL: {error}"));
            }
        }
        for (name, job) in &settings.jobs {
            let schedule = Some(&job.schedule).filter(|schedule| !schedule.is_empty());
            if let Some(error) = schedule.and_then(|schedule| cron::parse(schedule).err()) {
                let reason =
                    format!("jobs.{name}.schedule = {:?}: {error}; write minute hour day month weekday", job.schedule);
                return meaningless("jobs", reason);
            }
            if let Err(error) = cron::zone(&job.time_zone) {
                let reason =
                    format!("jobs.{name}.time_zone = {:?}: {error}; write UTC or Europe/Berlin", job.time_zone);
                return meaningless("jobs", reason);
            }
        }
        let is_http = |url: &str| url.starts_with("http://") || url.starts_with("https://");
        if !settings.clickhouse.url.is_empty() && !is_http(&settings.clickhouse.url) {
            return meaningless("clickhouse.url", "it is no http:// or https:// address".to_owned());
        }
        for name in settings.postgres.session.keys() {
            if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.') {
                return meaningless("postgres.session", format!("`{name}` is no name of a Postgres setting"));
            }
        }
        if !COMPACTED_BYTES.contains(&settings.maintenance.compaction_target_bytes) {
            let reason = format!("it must be from {} to {}", COMPACTED_BYTES.start(), COMPACTED_BYTES.end());
            return meaningless("maintenance.compaction_target_bytes", reason);
        }
        if settings.dedup.window_records < 1 {
            return meaningless("dedup.window_records", "it must be more than 0".to_owned());
        }
        if settings.demo.events_per_second.is_nan() || settings.demo.events_per_second <= 0.0 {
            return meaningless("demo.events_per_second", "it must be more than 0".to_owned());
        }
        Ok(settings)
    }

    /// Every setting, in order of its name.
    pub(crate) fn values(&self) -> Result<Vec<Shown>, SettingsError> {
        let mut shown = Vec::new();
        for (key, value) in leaves(&self.figment.extract::<Dict>().map_err(Box::new)?) {
            let value = serde_json::to_value(&value).unwrap_or_default();
            let is_secret = SECRETS.iter().any(|word| key.to_lowercase().contains(word));
            let hidden = is_secret && value != "";
            let value = if hidden { "***".into() } else { redact(value) };
            shown.push(Shown { origin: self.origin(&key), value, key });
        }
        Ok(shown)
    }

    /// With what the values refer to in their place. Only here, so that it is never shown.
    fn resolved(&self) -> Result<Figment, SettingsError> {
        let mut figment = self.figment.clone();
        for (key, value) in leaves(&self.figment.extract::<Dict>().map_err(Box::new)?) {
            if let Some(text) = value.as_str()
                && let Some(resolved) = references::resolve(&key, text)?
            {
                let path: Vec<&str> = key.split('.').collect();
                figment = figment.merge(Named { name: self.origin(&key), data: nested(&path, resolved.into()) });
            }
        }
        Ok(figment)
    }

    fn origin(&self, key: &str) -> String {
        self.figment.find_metadata(key).map_or_else(String::new, |metadata| metadata.name.to_string())
    }

    fn refuse_unknown(&self) -> Result<(), SettingsError> {
        let defaults = self.defaults.extract::<Dict>().map_err(Box::new)?;
        let known: Vec<String> = leaves(&defaults).into_iter().map(|(key, _)| key).collect();
        let given = leaves(&self.figment.extract::<Dict>().map_err(Box::new)?);
        let is_known = |key: &String| known.contains(key) || PASSED.iter().any(|prefix| key.starts_with(prefix));
        let Some((key, _)) = given.into_iter().find(|(key, _)| !is_known(key)) else { return Ok(()) };
        if let Some((_, instead)) = RENAMED.iter().find(|(old, _)| *old == key) {
            return Err(SettingsError::Renamed { origin: self.origin(&key), key, instead });
        }
        let likeness = |other: &String| strsim::jaro_winkler(&key, other);
        let best = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        let suggestion = best.filter(|best| likeness(best) > 0.8).cloned();
        Err(SettingsError::Unknown { origin: self.origin(&key), key, suggestion })
    }
}

/// A layer under the name that people know it by.
fn named(name: &str, provider: &impl figment::Provider) -> Result<Named, SettingsError> {
    let data = provider.data().map_err(|e| {
        let mut error = e;
        error.metadata = Some(figment::Metadata::named(name.to_owned()));
        Box::new(error)
    })?;
    Ok(Named { name: name.to_owned(), data })
}

/// One value at its place.
fn nested(path: &[&str], value: Value) -> figment::value::Map<figment::Profile, Dict> {
    let value = path.iter().skip(1).rev().fold(value, |inner, name| Dict::from([((*name).to_owned(), inner)]).into());
    let name = path.first().copied().unwrap_or_default().to_owned();
    [(figment::Profile::Default, Dict::from([(name, value)]))].into()
}

struct Named {
    name: String,
    data: figment::value::Map<figment::Profile, Dict>,
}

impl figment::Provider for Named {
    fn metadata(&self) -> figment::Metadata {
        figment::Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<figment::value::Map<figment::Profile, Dict>, figment::Error> {
        Ok(self.data.clone())
    }
}

fn leaves(dict: &Dict) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for (name, value) in dict {
        match value.as_dict() {
            Some(inner) => found.extend(leaves(inner).into_iter().map(|(key, value)| (format!("{name}.{key}"), value))),
            None => found.push((name.clone(), value.clone())),
        }
    }
    found
}

/// Of a URL, the password, wherever it stands.
fn redact(value: serde_json::Value) -> serde_json::Value {
    let Some(mut url) = value.as_str().and_then(|text| url::Url::parse(text).ok()) else { return value };
    let is_secret = |name: &str| SECRETS.iter().any(|secret| name.to_ascii_lowercase().contains(secret));
    let in_query = url.query_pairs().any(|(name, _)| is_secret(&name));
    if url.password().is_none() && !in_query {
        return value;
    }
    if url.password().is_some() && url.set_password(Some("***")).is_err() {
        return serde_json::Value::String("***".to_owned());
    }
    if in_query {
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let shown =
            pairs.iter().map(|(name, value)| (name.as_str(), if is_secret(name) { "***" } else { value.as_str() }));
        url.query_pairs_mut().clear().extend_pairs(shown);
    }
    serde_json::Value::String(url.to_string())
}
