//! What ClickHouse refuses, with what helps.

use clickhouse::error::Error;
use weir_engine::retry::chain;

/// Why ClickHouse did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[error("{action}: {reason}{cure}")]
pub struct ClickHouseError {
    action: &'static str,
    reason: String,
    cure: String,
    code: Option<u32>,
}

impl ClickHouseError {
    pub(crate) fn new(action: &'static str, reason: impl Into<String>, cure: &str) -> Self {
        let cure = if cure.is_empty() { String::new() } else { format!("; {cure}") };
        Self { action, reason: reason.into(), cure, code: None }
    }

    /// Whether a table or a database is not there.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self.code, Some(60 | 81))
    }

    /// Whether it is what the rows hold that was refused, by a constraint or a view of someone's own: waiting alone mends nothing.
    pub(crate) fn is_about_data(&self) -> bool {
        // CANNOT_PARSE_*, ARGUMENT_OUT_OF_BOUND, INCORRECT_DATA, TOO_LARGE_*, ILLEGAL_DIVISION, TOO_DEEP_RECURSION,
        // VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE, FUNCTION_THROW_IF_VALUE_IS_NON_ZERO, DECIMAL_OVERFLOW, VIOLATED_CONSTRAINT.
        matches!(self.code, Some(6 | 38 | 41 | 69 | 72 | 117 | 128 | 131 | 153 | 306 | 321 | 395 | 407 | 469))
    }

    pub(crate) fn of(action: &'static str, error: &Error) -> Self {
        let reason = words(error);
        let code = code(&reason);
        let cure = cure(code, &reason);
        Self { code, ..Self::new(action, reason, cure) }
    }
}

/// The causes on one line. A server shows a whole query, or a whole row, where a line does.
fn words(error: &Error) -> String {
    let mut words = chain(error);
    if let Some((end, _)) = words.char_indices().nth(600) {
        words.truncate(end);
        words.push('…');
    }
    words
}

fn code(reason: &str) -> Option<u32> {
    reason.split_once("Code: ").and_then(|(_, rest)| rest.split('.').next()?.trim().parse().ok())
}

const DISK_FULL: &str = "the server's disk is full: make room, the lane goes on by itself";

/// What helps, by ClickHouse's error codes (its `src/Common/ErrorCodes.cpp`).
fn cure(code: Option<u32>, reason: &str) -> &'static str {
    match code {
        Some(16 | 53 | 70) => "the table was altered by hand: `weir clickhouse migrate` says which column",
        Some(60 | 81) => "`weir clickhouse migrate` makes what is missing",
        Some(164) => "the user or the database is read-only: give clickhouse.user a profile with readonly = 0",
        Some(192..=194 | 516) => "check clickhouse.user and clickhouse.password",
        Some(241 | 202) => {
            "the server is short of memory or of query slots: lower lanes.clickhouse.records_max, or give it more"
        }
        Some(243) => DISK_FULL,
        Some(_) if reason.contains("No space left") => DISK_FULL,
        Some(252) => "merges cannot keep up: raise lanes.clickhouse.flush_interval_ms or clickhouse.insert_interval_ms",
        Some(495 | 514) => {
            "it keeps users in its file alone: give its user_directories a local_directory, or write the user and its row policies into that file"
        }
        Some(497) if reason.contains("USER") || reason.contains("ROLE") || reason.contains("POLICY") => {
            "grant clickhouse.user ACCESS MANAGEMENT, and SELECT on the database WITH GRANT OPTION"
        }
        Some(497) => "grant clickhouse.user SELECT, INSERT, CREATE and ALTER on the database",
        Some(_) => "",
        None if reason.contains("network error") => "is clickhouse.url right, and does the server run?",
        None => "",
    }
}

/// Names the action that failed.
pub(crate) trait During<T> {
    fn during(self, action: &'static str) -> Result<T, ClickHouseError>;
}

impl<T> During<T> for Result<T, Error> {
    fn during(self, action: &'static str) -> Result<T, ClickHouseError> {
        self.map_err(|error| ClickHouseError::of(action, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_cures() {
        let refused = |text: &str| {
            let error = Error::BadResponse(text.to_owned());
            ClickHouseError::of("inserting", &error).to_string()
        };
        let words = refused("Code: 516. DB::Exception: weir: Authentication failed");
        assert!(words.starts_with("inserting: ") && words.ends_with("check clickhouse.user and clickhouse.password"));
        assert!(refused("Code: 243. DB::Exception: Cannot reserve 1 MiB, not enough space").contains("make room"));
        assert!(refused("Code: 62. DB::Exception: Syntax error").ends_with("Syntax error"));
        assert!(refused(&"é".repeat(5000)).chars().count() < 700);
    }
}
