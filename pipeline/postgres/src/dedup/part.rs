//! What of a batch may be a repeat, partition by partition.

use std::collections::{BTreeMap, HashMap};

use weir_engine::{Batch, Partition};

use super::candidate::Candidate;

/// What is under way when something fails.
pub(super) const ACTION: &str = "looking for repeated events";

/// A partition's part of a batch.
pub(super) struct Part<'a> {
    pub(super) partition: Partition,
    pub(super) start: i64,
    pub(super) end: i64,
    /// By offset.
    pub(super) candidates: BTreeMap<i64, Candidate<'a>>,
}

/// The parts of a batch, with everything in them that may be a repeat, whatever the lane itself applies.
pub(super) fn parts(batch: &Batch) -> Vec<Part<'_>> {
    let mut parts: HashMap<Partition, Part<'_>> = HashMap::new();
    for span in batch.spans() {
        let part =
            Part { partition: span.partition.clone(), start: span.start, end: span.end, candidates: BTreeMap::new() };
        parts.insert(span.partition, part);
    }
    for row in batch.foreign() {
        let Some(candidate) = Candidate::of(row) else { continue };
        if let Some(part) = parts.get_mut(&candidate.record.partition) {
            part.candidates.insert(candidate.record.offset, candidate);
        }
    }
    let mut parts: Vec<Part<'_>> = parts.into_values().collect();
    parts.sort_by(|a, b| a.partition.cmp(&b.partition));
    parts
}
