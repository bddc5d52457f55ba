//! What was inserted and is not in the rollups yet. Each computation of a minute reads all of it, so in a backlog, whose blocks are large and
//! come to the same minutes again and again, several blocks share one; a smaller block, as the lane makes when it follows what is written,
//! is counted with all that is left before its ledger moves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use weir_engine::{Partition, Span};

/// Computing may take one part in so many of the time.
const SHARE: u32 = 20;

/// However long computing takes, rollups are no older than this, and one computation.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Minutes that are remembered.
const MINUTES_MAX: usize = 100_000;

/// Minutes to be computed again, and how far the rollups go in each partition once they are.
#[derive(Debug, Default)]
pub(crate) struct Uncounted {
    minutes: BTreeSet<i64>,
    ends: BTreeMap<Partition, i64>,
    /// When they were last computed, and how long that took.
    counted: Option<(Instant, Duration)>,
}

impl Uncounted {
    /// Takes in what is in the ledger now.
    pub(crate) fn add(&mut self, minutes: impl IntoIterator<Item = i64>, spans: &[Span]) {
        self.minutes.extend(minutes);
        for span in spans {
            self.ends.insert(span.partition.clone(), span.end);
        }
    }

    /// Partitions that are another's now, or are claimed again. Their minutes stay: computing them once more harms nothing.
    pub(crate) fn forget(&mut self, partitions: &[Partition]) {
        self.ends.retain(|partition, _| !partitions.contains(partition));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(crate) fn minutes(&self) -> &BTreeSet<i64> {
        &self.minutes
    }

    pub(crate) fn ends(&self) -> &BTreeMap<Partition, i64> {
        &self.ends
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let is_time = |(at, took): (Instant, Duration)| now.duration_since(at) >= (took * SHARE).min(WAIT_MAX);
        !self.is_empty() && (self.minutes.len() >= MINUTES_MAX || self.counted.is_none_or(is_time))
    }

    /// All of it was computed, from `began` to `now`.
    pub(crate) fn counted(&mut self, began: Instant, now: Instant) {
        self.minutes.clear();
        self.ends.clear();
        self.counted = Some((now, now.duration_since(began)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn computing_takes_a_twentieth_of_the_time() {
        let partition = |number| Partition { source: "s".into(), topic: "t".into(), number };
        let span = |number, end| Span { partition: partition(number), start: 0, end, position: None };
        let (mut uncounted, began) = (Uncounted::default(), Instant::now());
        let after = |millis| began + Duration::from_millis(millis);
        assert!(!uncounted.is_due(began));
        uncounted.add([1, 2], &[span(0, 10), span(1, 5)]);
        assert!(uncounted.is_due(began));
        uncounted.counted(began, after(100));
        assert!(uncounted.is_empty() && !uncounted.is_due(after(90_000)));
        uncounted.add([2, 3], &[span(0, 20)]);
        assert!(!uncounted.is_due(after(2099)) && uncounted.is_due(after(2100)));
        uncounted.add(0..100_000, &[span(0, 30)]);
        assert!(uncounted.is_due(after(101)));
        // A minute at most.
        uncounted.counted(began, after(30_000));
        uncounted.add([1], &[span(0, 40)]);
        assert!(!uncounted.is_due(after(89_999)) && uncounted.is_due(after(90_000)));
        uncounted.forget(&[partition(0)]);
        assert!(uncounted.is_empty() && !uncounted.is_due(after(200_000)));
    }
}
