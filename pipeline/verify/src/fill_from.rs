//! Out of which sources a sink is filled.

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
