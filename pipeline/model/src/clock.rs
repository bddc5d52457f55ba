//! Time in milliseconds, and the clock as a parameter, so that tests hold it in their hands.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// 2200-01-01T00:00:00Z, the first instant that is too late, in milliseconds of the Unix epoch.
const END_MS: i64 = 7_258_118_400_000;

/// A UTC instant in whole milliseconds, 1970 to 2199. Text form: `2024-01-15T10:30:00.000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(i64);

/// Why something is no timestamp.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTimestamp {
    /// Not RFC 3339.
    #[error("`{given}` is not an RFC 3339 date and time with an offset, such as 2024-01-15T10:30:00Z")]
    Malformed {
        /// The start of what was given.
        given: String,
    },
    /// Before 1970 or after 2199.
    #[error("the year is outside 1970 to 2199")]
    OutOfRange,
}

impl Timestamp {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub fn from_millis(ms: i64) -> Result<Self, InvalidTimestamp> {
        if (0..END_MS).contains(&ms) { Ok(Self(ms)) } else { Err(InvalidTimestamp::OutOfRange) }
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn as_millis(self) -> i64 {
        self.0
    }

    /// For libraries that speak jiff.
    #[must_use]
    pub fn to_jiff(self) -> jiff::Timestamp {
        jiff::Timestamp::from_millisecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }

    /// Finer digits are cut off, never rounded up into the future.
    pub fn from_jiff(at: jiff::Timestamp) -> Result<Self, InvalidTimestamp> {
        Self::from_millis(at.as_nanosecond().div_euclid(1_000_000).try_into().unwrap_or(i64::MAX))
    }

    /// Its month in UTC.
    #[must_use]
    pub fn month(self) -> Month {
        let at = jiff::tz::Offset::UTC.to_datetime(self.to_jiff());
        Month { year: at.year(), month: at.month() }
    }
}

/// A month, the unit by which history is partitioned. Text form: `YYYY-MM`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month {
    year: i16,
    month: i8,
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    fn from_str(given: &str) -> Result<Self, InvalidTimestamp> {
        if let Some(ms) = plain_form(given.as_bytes()) {
            return Self::from_millis(ms);
        }
        let malformed = || InvalidTimestamp::Malformed { given: given.chars().take(40).collect() };
        // jiff takes more than RFC 3339 (a space, a week date, a zone in brackets): other services would not.
        let plausible = given.len() >= 20
            && given.is_ascii()
            && given.as_bytes()[4] == b'-'
            && given.as_bytes()[7] == b'-'
            && given.as_bytes()[10] == b'T'
            && given.as_bytes()[13] == b':'
            && !given.contains('[');
        if !plausible {
            return Err(malformed());
        }
        // jiff ends within 9999; what lies beyond it is well-formed all the same.
        if given.get(..4).and_then(|year| year.parse::<u16>().ok()).is_some_and(|year| year > 2200) {
            return Err(InvalidTimestamp::OutOfRange);
        }
        let at: jiff::Timestamp = given.parse().map_err(|_| malformed())?;
        Self::from_jiff(at)
    }
}

/// Milliseconds of `2024-01-15T10:30:00.000Z` and `2024-01-15T10:30:00Z`, the forms in which nearly all times come; any other
/// is the library's. Three times an event, that is a tenth of its decoding.
fn plain_form(text: &[u8]) -> Option<i64> {
    let (seconds, millis) = match text {
        [seconds @ .., b'.', a, b, c, b'Z'] if seconds.len() == 19 => (seconds, digits(&[*a, *b, *c])?),
        [seconds @ .., b'Z'] if seconds.len() == 19 => (seconds, 0),
        _ => return None,
    };
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T', h1, h2, b':', n1, n2, b':', s1, s2] = *seconds else {
        return None;
    };
    let (year, month, day) = (digits(&[y1, y2, y3, y4])?, digits(&[m1, m2])?, digits(&[d1, d2])?);
    let (hour, minute, second) = (digits(&[h1, h2])?, digits(&[n1, n2])?, digits(&[s1, s2])?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => return None,
    };
    if !(1..=length).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Days since 1970-01-01, with years that begin in March: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
    let shifted = year - i64::from(month <= 2);
    let (era, month) = (shifted.div_euclid(400), (month + 9) % 12);
    let of_era = shifted.rem_euclid(400);
    let of_year = (153 * month + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + millis)
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |n, digit| digit.is_ascii_digit().then(|| n * 10 + i64::from(digit - b'0')))
}

impl TryFrom<String> for Timestamp {
    type Error = InvalidTimestamp;
    fn try_from(text: String) -> Result<Self, InvalidTimestamp> {
        text.parse()
    }
}

impl From<Timestamp> for String {
    fn from(at: Timestamp) -> String {
        at.to_string()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = jiff::tz::Offset::UTC.to_datetime(self.to_jiff());
        let (year, month, day) = (at.year(), at.month(), at.day());
        let (hour, minute, second, millis) = (at.hour(), at.minute(), at.second(), at.millisecond());
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

/// Where "now" comes from.
pub trait Clock: Send + Sync {
    /// The present instant.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // A machine whose clock stands outside 1970..2199 has no usable time at all; the epoch says so plainly.
        Timestamp::from_jiff(jiff::Timestamp::now()).unwrap_or(Timestamp(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_normalised_to_utc_milliseconds() {
        let at: Timestamp = "2024-01-15T12:30:00.123987+02:00".parse().expect("valid");
        assert_eq!(at.to_string(), "2024-01-15T10:30:00.123Z");
        assert_eq!(at.month().to_string(), "2024-01");
        assert_eq!("2024-01-15T10:30:00Z".parse::<Timestamp>().expect("valid").to_string(), "2024-01-15T10:30:00.000Z");
    }

    /// Every day there is, and times around its ends, as the library reads them.
    #[test]
    fn the_plain_form_is_read_as_the_library_reads_it() {
        for year in 0..2400 {
            for month in 0..14 {
                for day in 0..33 {
                    for time in ["00:00:00.000", "23:59:59.999"] {
                        let text = format!("{year:04}-{month:02}-{day:02}T{time}Z");
                        let library = text.parse::<jiff::Timestamp>().ok().map(|at| at.as_millisecond());
                        assert_eq!(plain_form(text.as_bytes()), library, "{text}");
                    }
                }
            }
        }
        for odd in [
            "2024-01-15T10:30:60Z",
            "2024-01-15T24:00:00Z",
            "2024-01-15T10:60:00Z",
            "2024-01-15t10:30:00Z",
            "2024-01-15T10:30:00z",
            "2024-01-15T10:30:0Z",
            "2024-01-15T10:30:00.1Z",
            "+024-01-15T10:30:00Z",
        ] {
            assert_eq!(plain_form(odd.as_bytes()), None, "{odd}");
        }
    }

    #[test]
    fn years_outside_1970_to_2199_are_refused() {
        for bad in ["0000-01-01T00:00:00Z", "1969-12-31T23:59:59.999Z", "2200-01-01T00:00:00Z", "9999-12-31T23:59:59Z"]
        {
            assert_eq!(bad.parse::<Timestamp>(), Err(InvalidTimestamp::OutOfRange), "{bad}");
        }
        assert!("2199-12-31T23:59:59.999Z".parse::<Timestamp>().is_ok());
        assert!("1970-01-01T00:00:00Z".parse::<Timestamp>().is_ok());
        for bad in
            ["", "yesterday", "2024-01-15", "2024-01-15 10:30:00Z", "2024-01-15T10:30:00", "2024-01-15T10:30:00Z[UTC]"]
        {
            assert!(matches!(bad.parse::<Timestamp>(), Err(InvalidTimestamp::Malformed { .. })), "{bad}");
        }
    }
}
