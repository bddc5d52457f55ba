//! What the log says about a batch, and about a claim: facts in, decision out.

use weir_engine::{Partition, Span};

/// What the snapshot at hand says about one span's partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Its epoch is the one that we claimed.
    pub(crate) fenced_by_us: bool,
    /// The version of its transaction: the next offset to apply. `None`: never written.
    pub(crate) next_offset: Option<i64>,
}

/// How a batch stands against the log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is to be committed.
    AtStart,
    /// An earlier try had succeeded.
    AtEnd,
    /// These are another owner's, or further on.
    Elsewhere(Vec<Partition>),
}

/// A batch is in the log as a whole or not at all; anything else is another owner's work.
pub(crate) fn standing(spans: &[(&Span, Facts)]) -> Standing {
    // Never written: the ledger's compare-and-set at the end still refuses a wrong start.
    let is_at_start = |(span, facts): &(&Span, Facts)| facts.next_offset.is_none_or(|next| next == span.start);
    let is_at_end = |(span, facts): &(&Span, Facts)| facts.next_offset == Some(span.end);
    let is_elsewhere = |at: &&(&Span, Facts)| !at.1.fenced_by_us || !(is_at_start(at) || is_at_end(at));
    let elsewhere: Vec<Partition> = spans.iter().filter(is_elsewhere).map(|(span, _)| span.partition.clone()).collect();
    if !elsewhere.is_empty() {
        Standing::Elsewhere(elsewhere)
    } else if spans.iter().all(is_at_start) {
        Standing::AtStart
    } else if spans.iter().all(is_at_end) {
        Standing::AtEnd
    } else {
        Standing::Elsewhere(spans.iter().map(|(span, _)| span.partition.clone()).collect())
    }
}

/// What a claim finds: where the ledger stands, and where the log does.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// They agree, or nothing was ever written.
    Level,
    /// The last owner died between its commit and the ledger: that has to be moved from here to there.
    LogAhead {
        /// Where the ledger stands.
        from: i64,
        /// Where the log does.
        to: i64,
    },
    /// The log is never behind the ledger, unless someone restored or deleted it.
    LogLost {
        /// Where the ledger stands.
        ledger: i64,
    },
}

/// Decides it.
pub(crate) fn found(ledger: Option<i64>, log: Option<i64>) -> Found {
    match (ledger, log) {
        (Some(ledger), log) if log.is_none_or(|log| log < ledger) => Found::LogLost { ledger },
        (ledger, Some(log)) if ledger != Some(log) => Found::LogAhead { from: ledger.unwrap_or(log), to: log },
        _ => Found::Level,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(number: i32) -> Span {
        let partition = Partition { source: "s".into(), topic: "t".into(), number };
        Span { partition, start: 10, end: 20, position: None }
    }

    #[test]
    fn a_batch_stands_at_its_start_or_its_end_or_is_anothers() {
        let (one, two) = (span(1), span(2));
        let ours = |next_offset| Facts { fenced_by_us: true, next_offset };
        let theirs = |next_offset| Facts { fenced_by_us: false, next_offset };
        let elsewhere =
            |spans: &[&Span]| Standing::Elsewhere(spans.iter().map(|span| span.partition.clone()).collect());
        for (first, second, expected) in [
            (ours(Some(10)), ours(Some(10)), Standing::AtStart),
            (ours(None), ours(Some(10)), Standing::AtStart),
            (ours(None), ours(None), Standing::AtStart),
            (ours(Some(20)), ours(Some(20)), Standing::AtEnd),
            (ours(Some(20)), ours(Some(10)), elsewhere(&[&one, &two])),
            (ours(Some(20)), ours(None), elsewhere(&[&one, &two])),
            (ours(Some(15)), ours(Some(10)), elsewhere(&[&one])),
            (ours(Some(25)), ours(Some(20)), elsewhere(&[&one])),
            (theirs(Some(10)), ours(Some(10)), elsewhere(&[&one])),
            (theirs(Some(20)), theirs(Some(20)), elsewhere(&[&one, &two])),
            (theirs(None), ours(None), elsewhere(&[&one])),
        ] {
            assert_eq!(standing(&[(&one, first), (&two, second)]), expected, "{first:?} {second:?}");
        }
        assert_eq!(standing(&[]), Standing::AtStart);
    }

    #[test]
    fn a_claim_finds_the_log_level_ahead_or_lost() {
        for (ledger, log, expected) in [
            (None, None, Found::Level),
            (Some(5), Some(5), Found::Level),
            (Some(5), Some(9), Found::LogAhead { from: 5, to: 9 }),
            (None, Some(9), Found::LogAhead { from: 9, to: 9 }),
            (Some(5), Some(4), Found::LogLost { ledger: 5 }),
            (Some(5), None, Found::LogLost { ledger: 5 }),
        ] {
            assert_eq!(found(ledger, log), expected, "{ledger:?} {log:?}");
        }
    }
}
