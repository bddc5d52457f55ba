//! What this process knows of verdicts without asking: the lanes of a process come to the same records one after the other.

use std::collections::{BTreeSet, HashMap};

use weir_engine::Partition;

use super::part::Part;
use crate::repeats::Places;

/// Verdicts kept of a partition.
const REPEATS_MAX: usize = 20_000;

/// Verdicts about one stretch of each partition.
#[derive(Debug, Default)]
pub(super) struct Known {
    partitions: HashMap<Partition, Stretch>,
}

/// Everything in it that may be a repeat is in the index.
#[derive(Debug, Default)]
struct Stretch {
    from: i64,
    to: i64,
    /// From here on it holds nothing that may be a repeat, and is not in the index.
    indexed_to: i64,
    repeats: BTreeSet<i64>,
}

impl Known {
    pub(super) fn covers(&self, part: &Part<'_>) -> bool {
        let (Some((first, _)), Some((last, _))) = (part.candidates.first_key_value(), part.candidates.last_key_value())
        else {
            return true;
        };
        self.partitions.get(&part.partition).is_some_and(|known| known.from <= *first && *last < known.to)
    }

    /// Where the stretch of a part begins that is to be indexed: what was read before it, and held nothing, is taken along, so that one
    /// stretch follows the other.
    pub(super) fn begin(&self, part: &Part<'_>) -> i64 {
        let known = self.partitions.get(&part.partition);
        let follows = |known: &&Stretch| {
            known.from <= known.indexed_to && known.indexed_to <= part.start && part.start <= known.to
        };
        known.filter(follows).map_or(part.start, |known| known.indexed_to)
    }

    /// A part without candidates behind what is known.
    pub(super) fn extend(&mut self, part: &Part<'_>) {
        if let Some(known) = self.partitions.get_mut(&part.partition)
            && part.candidates.is_empty()
            && known.to == part.start
        {
            known.to = part.end;
        }
    }

    /// Takes in verdicts about parts, all of which are in the index.
    pub(super) fn learn(&mut self, parts: &[Part<'_>], mut repeats: HashMap<Partition, Vec<i64>>) {
        for part in parts {
            let known = self.partitions.entry(part.partition.clone()).or_default();
            if known.to < part.start || part.end < known.from || known.from == known.to {
                *known = Stretch { from: part.start, to: part.start, indexed_to: part.start, repeats: BTreeSet::new() };
            }
            if !part.candidates.is_empty() {
                known.indexed_to = known.indexed_to.max(part.end);
            }
            (known.from, known.to) = (known.from.min(part.start), known.to.max(part.end));
            known.repeats.extend(repeats.remove(&part.partition).unwrap_or_default());
            while known.repeats.len() > REPEATS_MAX {
                known.repeats.pop_first();
                known.from = known.repeats.first().copied().unwrap_or(known.to).max(known.from);
            }
        }
    }

    /// Repeats in these parts.
    pub(super) fn repeats(&self, parts: &[Part<'_>]) -> Places {
        let mut places = Places::new();
        for part in parts {
            let Some(known) = self.partitions.get(&part.partition) else { continue };
            let within = known.repeats.range(part.start..part.end);
            places.extend(within.map(|offset| (part.partition.clone(), *offset)));
        }
        places
    }
}
