//! What a lane does with a record.

use crate::{CLICKHOUSE, Cut};

/// What a lane does with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    Holds,
    Dead,
    Repeat,
    /// It was there, and the TTL of ClickHouse may have let go of it.
    Expired,
    /// It is not there yet, or reads elsewhere.
    Beyond,
}

impl Presence {
    pub(crate) fn by_cut(cut: Option<&Cut>, offset: i64) -> Self {
        match cut {
            Some(cut) if offset >= cut.below => Self::Beyond,
            Some(cut) if cut.dead.contains(&offset) => Self::Dead,
            Some(cut) if cut.repeats.contains_key(&offset) => Self::Repeat,
            Some(_) => Self::Holds,
            None => Self::Beyond,
        }
    }

    /// Of all lanes only ClickHouse lets go of what it held.
    pub(crate) fn within_ttl(self, lane: &str, is_expired: bool) -> Self {
        if self == Self::Holds && is_expired && lane == CLICKHOUSE { Self::Expired } else { self }
    }
}
