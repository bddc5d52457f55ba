//! The head of a workflow's file: what it is called, when it runs, over which windows, and which columns name a row.

use std::time::Duration;

use jiff::{Span, Timestamp as JiffTimestamp, tz::TimeZone};
use sha2::{Digest, Sha256};

/// When a workflow runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trigger {
    /// Whenever so much time has passed.
    Every(Duration),
    /// By a cron expression, UTC.
    Cron(String),
    /// When events of these types came, and none for so long.
    Events {
        /// Which.
        types: Vec<String>,
        /// How long it is waited for more.
        debounce: Duration,
    },
}

/// The unit of time that a row is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// A day, UTC.
    Day,
    /// From Monday.
    Week,
    /// A month.
    Month,
}

impl Window {
    /// As Postgres calls it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// So many days before a window; `None` without a bound.
    #[must_use]
    pub fn back(self, from: JiffTimestamp, days: Option<i32>) -> Option<JiffTimestamp> {
        from.to_zoned(TimeZone::UTC).checked_sub(Span::new().days(days?)).ok().map(|at| at.timestamp())
    }
}

/// A workflow, read from its file.
#[derive(Debug, Clone)]
pub struct Workflow {
    /// Its name, and its table's in the schema `workflows`.
    pub name: String,
    /// For people.
    pub about: String,
    /// When it runs.
    pub trigger: Trigger,
    /// The unit of time that a row is of, by its column `window_start`; without one the whole table is computed each time.
    pub window: Option<Window>,
    /// Late events revise windows that are no older than so many days before the newest one; without a bound, any.
    pub lookback_days: Option<i32>,
    /// The columns that name a row.
    pub keys: Vec<String>,
    /// Its rows are copied to ClickHouse too.
    pub to_clickhouse: bool,
    /// Panels that show it, for people.
    pub feeds: String,
    /// The file.
    pub sql: String,
    /// Of the file.
    pub fingerprint: String,
    /// Where it came from, for people.
    pub origin: String,
}

/// What is wrong with a head.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin} line {line}: {reason}")]
pub struct HeadError {
    origin: String,
    line: usize,
    reason: String,
}

const TRIGGERS: &str = "write `every 60 minutes`, `cron 20 4 * * *`, or `event TYPE, TYPE debounce 30 s`";

impl Workflow {
    /// What stands before the file's text in [`Self::query`].
    pub(super) const BEFORE: &str = "SELECT * FROM (\n";

    /// A query of the file's text, to which a condition may be added.
    pub(super) fn query(&self) -> String {
        format!("{}{}\n) q", Self::BEFORE, self.sql)
    }

    /// Reads a file.
    pub fn read(origin: &str, text: &str) -> Result<Self, HeadError> {
        let fail = |line: usize, reason: String| HeadError { origin: origin.to_owned(), line, reason };
        let mut workflow = Self {
            name: String::new(),
            about: String::new(),
            trigger: Trigger::Every(Duration::from_secs(3600)),
            window: None,
            lookback_days: None,
            keys: Vec::new(),
            to_clickhouse: false,
            feeds: String::new(),
            sql: text.trim_end().trim_end_matches(';').to_owned(),
            fingerprint: hex::encode(&Sha256::digest(text.as_bytes())[..16]),
            origin: origin.to_owned(),
        };
        let mut has_trigger = false;
        for (line, number) in text.lines().zip(1..).take_while(|(line, _)| line.starts_with("--")) {
            let Some((name, value)) = line.trim_start_matches('-').trim().split_once(':') else { continue };
            let value = value.trim();
            let taken = match name.trim() {
                "workflow" => is_name(value)
                    .then(|| value.clone_into(&mut workflow.name))
                    .ok_or_else(|| format!("{value:?} is no name: lower-case letters, digits and _, 50 at most")),
                "about" => {
                    value.clone_into(&mut workflow.about);
                    Ok(())
                }
                "feeds" => {
                    value.clone_into(&mut workflow.feeds);
                    Ok(())
                }
                "trigger" => trigger(value).map(|trigger| (workflow.trigger, has_trigger) = (trigger, true)),
                "window" => window(value).map(|window| workflow.window = window),
                "lookback" => days(value).map(|days| workflow.lookback_days = Some(days)),
                "target" => target(value).map(|is_clickhouse| workflow.to_clickhouse = is_clickhouse),
                "keys" => keys(value).map(|keys| workflow.keys = keys),
                other => Err(format!(
                    "there is no `{other}:`; there are workflow, about, trigger, window, lookback, keys, target and feeds"
                )),
            };
            taken.map_err(|reason| fail(number, reason))?;
        }
        for (is_missing, what) in [
            (workflow.name.is_empty(), "`-- workflow: NAME`"),
            (!has_trigger, "`-- trigger: …`"),
            (workflow.keys.is_empty(), "`-- keys: COLUMN, …`"),
        ] {
            if is_missing {
                return Err(fail(1, format!("its head has no {what}")));
            }
        }
        if workflow.window.is_some() && !workflow.keys.iter().any(|key| key == "window_start") {
            return Err(fail(1, "with a window, window_start is one of its keys".to_owned()));
        }
        Ok(workflow)
    }
}

fn is_name(text: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_lowercase() || c == '_';
    text.len() <= 50 && text.starts_with(is_letter) && text.chars().all(|c| is_letter(c) || c.is_ascii_digit())
}

fn keys(value: &str) -> Result<Vec<String>, String> {
    let keys: Vec<String> = value.split(',').map(|key| key.trim().to_owned()).collect();
    match keys.iter().find(|key| !is_name(key)) {
        Some(key) => Err(format!("{key:?} is no name of a column")),
        None => Ok(keys),
    }
}

fn target(value: &str) -> Result<bool, String> {
    match value {
        "postgres" => Ok(false),
        "clickhouse" => Ok(true),
        other => Err(format!("there is no target {other:?}: postgres, clickhouse")),
    }
}

fn window(value: &str) -> Result<Option<Window>, String> {
    match value {
        "none" => Ok(None),
        "day" => Ok(Some(Window::Day)),
        "week" => Ok(Some(Window::Week)),
        "month" => Ok(Some(Window::Month)),
        other => Err(format!("there is no window {other:?}: none, day, week, month")),
    }
}

fn days(value: &str) -> Result<i32, String> {
    let number = value.strip_suffix("days").or_else(|| value.strip_suffix("day")).map(str::trim);
    number.and_then(|n| n.parse().ok()).filter(|days| *days > 0).ok_or_else(|| format!("{value:?}: write `400 days`"))
}

fn trigger(value: &str) -> Result<Trigger, String> {
    let wrong = || format!("{value:?}: {TRIGGERS}");
    let (kind, rest) = value.split_once(' ').ok_or_else(wrong)?;
    let count = |text: &str, unit: &str| {
        text.trim().strip_suffix(unit).and_then(|n| n.trim().parse::<u64>().ok()).filter(|n| *n > 0)
    };
    match kind {
        "cron" => Ok(Trigger::Cron(rest.trim().to_owned())),
        "every" => {
            let minutes = count(rest, "minutes").or_else(|| count(rest, "minute")).ok_or_else(wrong)?;
            Ok(Trigger::Every(Duration::from_secs(minutes.saturating_mul(60))))
        }
        "event" => {
            let (types, debounce) = rest.split_once(" debounce ").ok_or_else(wrong)?;
            let seconds = count(debounce, "s").ok_or_else(wrong)?;
            let types: Vec<String> = types.split(',').map(|name| name.trim().to_owned()).collect();
            match types.iter().find(|name| name.parse::<weir_model::EventType>().is_err()) {
                Some(unknown) => Err(format!("there is no event type {unknown:?}")),
                None => Ok(Trigger::Events { types, debounce: Duration::from_secs(seconds) }),
            }
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "-- workflow: per_day\n-- trigger: event TaskCompleted debounce 5 s\n-- window: day\n-- lookback: 30 days\n-- keys: tenant, window_start\nSELECT 1;\n";

    #[test]
    fn a_head_says_name_trigger_window_and_keys() {
        let workflow = Workflow::read("per_day.sql", HEAD).expect("reads");
        assert_eq!(
            (workflow.name.as_str(), workflow.window, workflow.lookback_days),
            ("per_day", Some(Window::Day), Some(30))
        );
        let types = vec!["TaskCompleted".to_owned()];
        assert_eq!(workflow.trigger, Trigger::Events { types, debounce: Duration::from_secs(5) });
        assert_eq!(workflow.keys, ["tenant", "window_start"]);
        assert!(workflow.sql.ends_with("SELECT 1") && workflow.fingerprint.len() == 32);
    }

    #[test]
    fn what_is_wrong_has_its_line() {
        for (from, to, words) in [
            ("per_day", "Per Day", "per_day.sql line 1: \"Per Day\" is no name"),
            ("TaskCompleted", "Nothing", "line 2: there is no event type \"Nothing\""),
            ("event TaskCompleted debounce 5 s", "sometimes", "line 2: \"sometimes\": write `every 60 minutes`"),
            ("window: day", "window: fortnight", "line 3: there is no window"),
            ("30 days", "long", "line 4: \"long\": write `400 days`"),
            ("-- keys: tenant, window_start", "-- keys: tenant", "window_start is one of its keys"),
            ("window: day", "target: kafka", "line 3: there is no target \"kafka\": postgres, clickhouse"),
            ("-- lookback", "-- look", "line 4: there is no `look:`"),
            ("-- trigger: event TaskCompleted debounce 5 s\n", "", "its head has no `-- trigger: …`"),
        ] {
            let error = Workflow::read("per_day.sql", &HEAD.replace(from, to)).expect_err("refused");
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
