//! The state of streams, as far as decisions need it.

use weir_model::decide::{Aggregate, STATE_VERSION};
use weir_model::{EventType, StreamId, TenantId};

use crate::error::DbError;
use crate::event_store::{EventStore, TailEvent};

/// A stream of a tenant.
pub(super) type StreamKey = (TenantId, StreamId);

/// The state of a stream and its version; 0 for a stream that does not exist.
pub(super) struct Loaded {
    pub(super) aggregate: Aggregate,
    pub(super) version: i64,
}

impl Loaded {
    fn empty(stream: &StreamId) -> Self {
        Self { aggregate: Aggregate::new(stream.aggregate_type()), version: 0 }
    }

    /// Counts attempts that a stream of the old form holds.
    pub(super) fn add_earlier(&mut self, attempts: i64) {
        if let Aggregate::Assessment(taken) = &mut self.aggregate {
            taken.add_earlier(attempts);
        }
    }

    fn apply(&mut self, stream: &StreamId, event: &TailEvent) {
        if let Ok(event_type) = event.event_type.parse::<EventType>() {
            self.aggregate.apply(stream, event_type, &event.known);
        }
        self.version = event.version;
    }
}

/// Snapshot and tail of each stream, in their order; two queries, however many streams.
pub(super) async fn load(store: &EventStore, streams: &[StreamKey]) -> Result<Vec<Loaded>, DbError> {
    let names: Vec<(&str, String)> = streams.iter().map(|(t, s)| (t.as_str(), s.to_string())).collect();
    let mut loaded: Vec<Loaded> = streams.iter().map(|(_, stream)| Loaded::empty(stream)).collect();
    for (place, snapshot) in loaded.iter_mut().zip(store.get_snapshots(&names).await?) {
        // Another layout, or a state of someone else's making, is as good as none.
        if let Some(snapshot) = snapshot
            && snapshot.state_version == STATE_VERSION
            && let Ok(aggregate) = serde_json::from_value(snapshot.data)
        {
            *place = Loaded { aggregate, version: snapshot.version };
        }
    }
    let tails: Vec<_> = names.into_iter().zip(&loaded).map(|((t, s), l)| (t, s, l.version)).collect();
    for event in store.get_tails(&tails).await? {
        if let (Some(place), Some((_, stream))) = (loaded.get_mut(event.stream), streams.get(event.stream)) {
            place.apply(stream, &event);
        }
    }
    Ok(loaded)
}
