//! What a lane does next: facts in, decision out.

/// What a lane knows of itself between two steps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    /// It was told to stop.
    pub(crate) is_stopping: bool,
    /// Partitions are assigned, and not claimed, or fenced since.
    pub(crate) has_unclaimed: bool,
    /// The step before was a claim, and failed.
    pub(crate) claim_just_failed: bool,
    /// The batch is full, or old enough.
    pub(crate) batch_is_due: bool,
}

/// A step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Commit what is held, and end.
    Drain,
    /// Claim what is assigned.
    Claim,
    /// Commit the batch.
    Commit,
    /// Hear the source.
    Read,
}

/// A batch that is due is committed before anything more is read, so that a retry repeats the same batch. After a claim that failed the
/// source is heard, which may have taken the partitions away again.
pub(crate) fn next(facts: Facts) -> Step {
    match facts {
        Facts { is_stopping: true, .. } => Step::Drain,
        Facts { has_unclaimed: true, claim_just_failed: false, .. } => Step::Claim,
        Facts { batch_is_due: true, .. } => Step::Commit,
        Facts { .. } => Step::Read,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_combination_has_its_step() {
        for bits in 0..16_u8 {
            let bit = |n: u8| bits & (1 << n) != 0;
            let facts =
                Facts { is_stopping: bit(3), has_unclaimed: bit(2), claim_just_failed: bit(1), batch_is_due: bit(0) };
            let expected = match bits {
                8.. => Step::Drain,
                4 | 5 => Step::Claim,
                1 | 3 | 7 => Step::Commit,
                _ => Step::Read,
            };
            assert_eq!(next(facts), expected, "{facts:?}");
        }
    }
}
