//! Cron expressions, in UTC.

use std::str::FromStr;

use croner::Cron;
use croner::errors::CronError;
use jiff::{Timestamp, tz::TimeZone};

/// A cron expression: minute, hour, day, month, weekday.
pub(crate) fn parse(cron: &str) -> Result<Cron, CronError> {
    Cron::from_str(cron)
}

/// The next moment after another, UTC.
pub(crate) fn next(cron: &Cron, after: Timestamp) -> Option<Timestamp> {
    cron.find_next_occurrence(&after.to_zoned(TimeZone::UTC), false).ok().map(|at| at.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_moment_is_the_expressions_in_utc() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        for (cron, after, due) in [
            ("17 3 * * *", "2026-02-28T03:17:00Z", "2026-03-01T03:17:00Z"),
            ("*/5 * * * *", "2026-02-28T23:59:59Z", "2026-03-01T00:00:00Z"),
            ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
        ] {
            assert_eq!(next(&parse(cron).expect("valid"), at(after)), Some(at(due)), "{cron}");
        }
        assert!(parse("every day").is_err() && parse("61 * * * *").is_err());
    }
}
