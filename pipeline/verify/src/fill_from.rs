//! Out of which sources a sink is filled, and who takes the rows.

use tokio::sync::mpsc;
use weir_engine::Row;

use crate::presence::Presence;

/// Event store, topics, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FillFrom {
    /// Whatever the lane has read; the event store stands in for what topics hold no longer.
    #[default]
    Both,
    /// The event store: what the lane read there itself, and what topics hold no longer. What they still hold stands under coordinates that the
    /// event store does not know.
    EventStore,
    /// The topics.
    Topics,
}

/// Who takes what a lane should hold, and of which sources.
pub(crate) struct Taker {
    pub(crate) lane: &'static str,
    pub(crate) from: FillFrom,
    pub(crate) rows: mpsc::Sender<Row>,
}

impl Taker {
    /// Whether it takes a record of the event store, or of a topic.
    pub(crate) fn takes(&self, is_stored: bool, standing: impl Fn(&'static str) -> Presence) -> bool {
        (self.from != FillFrom::EventStore || is_stored) && standing(self.lane) == Presence::Holds
    }
}
