//! How far a job is, for who watches: a bar on a terminal, a plain line every ten seconds elsewhere.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use weir_postgres::job_run::Standing;

use crate::output::complain;

/// Between two lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Where it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// On stderr.
    Stderr,
    /// Nowhere: the schedule's runs are seen by `weir jobs show`.
    Nothing,
}

/// What is on the screen.
pub(crate) enum Shown {
    Bar(ProgressBar),
    Lines(Mutex<Duration>),
    Nothing,
}

impl Show {
    pub(crate) fn begin(self) -> Shown {
        match self {
            Self::Nothing => Shown::Nothing,
            Self::Stderr if std::io::stderr().is_terminal() => {
                let bar = ProgressBar::no_length();
                let style = ProgressStyle::with_template("{bar:32} {pos}/{len} {msg} {elapsed_precise}, {eta} left");
                if let Ok(style) = style {
                    bar.set_style(style);
                }
                Shown::Bar(bar)
            }
            Self::Stderr => Shown::Lines(Mutex::new(Duration::ZERO)),
        }
    }
}

impl Shown {
    pub(crate) fn show(&self, now: &Standing, elapsed: Duration) {
        match self {
            Self::Nothing => {}
            Self::Bar(bar) => {
                if let Some(total) = now.total.and_then(|total| u64::try_from(total).ok()) {
                    bar.set_length(total);
                }
                bar.set_position(u64::try_from(now.done).unwrap_or(0));
                bar.set_message(written(now, elapsed));
            }
            Self::Lines(last) => {
                let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                if elapsed >= *last + LINE_EVERY {
                    *last = elapsed;
                    complain(&line(now, elapsed));
                }
            }
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn written(now: &Standing, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs().max(1);
    let rate = u64::try_from(now.rows).unwrap_or(0) / seconds;
    format!("{}, {} rows written, {rate} a second,", now.unit, now.rows)
}

/// A line about where it is; the remaining time goes by what was done so far.
pub(crate) fn line(now: &Standing, elapsed: Duration) -> String {
    let of = now.total.map_or_else(String::new, |total| format!(" of {total}"));
    let left = now.total.filter(|_| now.done > 0).map(|total| {
        let (done, left) =
            (u64::try_from(now.done).unwrap_or(1), u64::try_from((total - now.done).max(0)).unwrap_or(0));
        format!(" {} s left", elapsed.as_secs().saturating_mul(left) / done.max(1))
    });
    format!(
        "{}{of} {} {} s,{}",
        now.done,
        written(now, elapsed),
        elapsed.as_secs(),
        left.unwrap_or_else(|| " remaining time unknown".to_owned())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remaining_time_goes_by_what_is_done() {
        let now = Standing { done: 25, total: Some(100), unit: "slices", rows: 5000, bytes: 1 };
        let said = line(&now, Duration::from_secs(10));
        assert_eq!(said, "25 of 100 slices, 5000 rows written, 500 a second, 10 s, 30 s left");
        let unknown = Standing { total: None, ..now };
        assert!(line(&unknown, Duration::from_secs(10)).ends_with("remaining time unknown"));
    }
}
