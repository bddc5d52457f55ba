//! Cron expressions, in a time zone.

use std::str::FromStr;

use croner::Cron;
use croner::errors::CronError;
use jiff::{Timestamp, tz::TimeZone};

/// A cron expression: minute, hour, day, month, weekday.
pub(crate) fn parse(cron: &str) -> Result<Cron, CronError> {
    Cron::from_str(cron)
}

/// A time zone of the IANA database, by its name.
pub(crate) fn zone(name: &str) -> Result<TimeZone, jiff::Error> {
    TimeZone::get(name)
}

/// The next moment after another.
pub(crate) fn next(cron: &Cron, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
    cron.find_next_occurrence(&after.to_zoned(zone.clone()), false).ok().map(|at| at.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_moment_is_the_expressions_in_its_zone() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        for (cron, name, after, due) in [
            ("17 3 * * *", "UTC", "2026-02-28T03:17:00Z", "2026-03-01T03:17:00Z"),
            ("*/5 * * * *", "UTC", "2026-02-28T23:59:59Z", "2026-03-01T00:00:00Z"),
            ("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("17 3 * * *", "Asia/Kolkata", "2026-02-28T00:00:00Z", "2026-02-28T21:47:00Z"),
        ] {
            let zone = zone(name).expect("a zone");
            assert_eq!(next(&parse(cron).expect("valid"), &zone, at(after)), Some(at(due)), "{cron}");
        }
        assert!(parse("every day").is_err() && parse("61 * * * *").is_err() && zone("Mars/Olympus").is_err());
    }
}
