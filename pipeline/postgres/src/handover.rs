//! Events on their way from the appender of a process to its own lanes, which then need not read them back from Postgres.
//!
//! Only what was answered `appended`, hence is committed, is handed over, in the order of positions and without a hole. What another process
//! appended, or what was stored by a call whose answer was lost, leaves a hole: then everything before it is let go, and a reader whose
//! place is not held pages the event store. So nothing depends on this; it holds at most [`BYTES_MAX`], whether it is read or not.
//!
//! Postgres may fail over to a copy that lacks the last commits. So everything is let go when it does not answer, and a reader that begins
//! again, as the tap's does when a lane was set back, takes only what is handed over from then on.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use uuid::Uuid;
use weir_model::wire::StoredEvent;
use weir_model::{Position, Timestamp};

use crate::append::{Append, Appended, event_id};

/// Bytes of event data that are held (P8).
const BYTES_MAX: usize = 4 << 20;

/// A command's events, as the event store has them since.
#[derive(Debug)]
pub(crate) struct StoredCommand {
    command: Append,
    /// Of its first event.
    position: i64,
    /// Of its stream, after its first event.
    version: i64,
    recorded_at: Timestamp,
}

impl StoredCommand {
    fn bytes(&self) -> usize {
        self.command.events.iter().map(|event| event.data.len()).sum()
    }

    fn len(&self) -> i64 {
        i64::try_from(self.command.events.len()).unwrap_or(i64::MAX)
    }

    fn end(&self) -> i64 {
        self.position + self.len()
    }

    /// Its events from a position on, as rows of the event store.
    pub(crate) fn each<T, E>(
        &self,
        from: i64,
        mut of_event: impl FnMut(&StoredEvent<'_>) -> Result<T, E>,
    ) -> Result<Vec<T>, E> {
        let command = &self.command;
        // As the appender writes it.
        let metadata = serde_json::to_string(&command.metadata).unwrap_or_else(|_| "{}".to_owned());
        let (mut id, mut made) = (Uuid::encode_buffer(), Vec::new());
        for ((n, place), event) in (0..).zip(0_i64..).zip(&command.events) {
            if self.position + place < from {
                continue;
            }
            made.push(of_event(&StoredEvent {
                event_id: event_id(command.command_id, n).hyphenated().encode_lower(&mut id),
                event_type: event.event_type.as_str(),
                schema_version: &event.schema_version,
                timestamp: event.timestamp,
                recorded_at: self.recorded_at,
                source: &command.source,
                tenant: command.tenant.as_str(),
                aggregate_id: command.stream.aggregate_id(),
                aggregate_type: command.stream.aggregate_type().as_str(),
                aggregate_version: self.version + place,
                position: Position(self.position + place),
                data: &event.data,
                metadata: &metadata,
            })?);
        }
        Ok(made)
    }
}

#[derive(Debug, Default)]
struct Held {
    commands: VecDeque<Arc<StoredCommand>>,
    bytes: usize,
}

impl Held {
    fn push(&mut self, command: StoredCommand) {
        if self.commands.back().is_some_and(|last| last.end() != command.position) {
            *self = Self::default();
        }
        self.bytes += command.bytes();
        self.commands.push_back(Arc::new(command));
        while self.bytes > BYTES_MAX
            && let Some(oldest) = self.commands.pop_front()
        {
            self.bytes -= oldest.bytes();
        }
    }
}

/// What the appender of a process hands to its own lanes.
#[derive(Debug, Clone)]
pub struct Handover {
    held: Arc<Mutex<Held>>,
    /// The position after the last event that was handed over.
    end: watch::Sender<i64>,
}

impl Default for Handover {
    fn default() -> Self {
        Self { held: Arc::default(), end: watch::Sender::new(0) }
    }
}

impl Handover {
    fn held(&self) -> MutexGuard<'_, Held> {
        // A panic of another thread leaves at worst a hole, which the next command finds.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes commands with what became of each, in the order of their positions. Nothing is kept while there is no reader.
    pub(crate) fn give<E>(&self, commands: Vec<Append>, answers: &[Result<Appended, E>]) {
        if self.end.receiver_count() == 0 {
            return;
        }
        let mut end = None;
        let mut held = self.held();
        for (command, answer) in commands.into_iter().zip(answers) {
            let Ok(Appended::Stored { version, first, recorded_at, repeated: false, .. }) = answer else { continue };
            let mut stored = StoredCommand { command, position: first.0, version: *version, recorded_at: *recorded_at };
            stored.version -= stored.len() - 1;
            end = Some(stored.end());
            held.push(stored);
        }
        drop(held);
        if let Some(end) = end {
            self.end.send_replace(end);
        }
    }

    /// Lets go of everything: it may be true no more.
    pub(crate) fn forget(&self) {
        *self.held() = Held::default();
    }

    /// What is held from a position on, so many events and bytes of data, at least one command; `None` when that position is not held.
    pub(crate) fn from(&self, from: i64, events_max: usize, bytes_max: usize) -> Option<Vec<Arc<StoredCommand>>> {
        let held = self.held();
        let start = held.commands.partition_point(|command| command.end() <= from);
        if held.commands.get(start)?.position > from {
            return None;
        }
        let (mut events, mut bytes) = (0, 0);
        let fits = |command: &&Arc<StoredCommand>| {
            let is_first = events == 0;
            events += command.command.events.len();
            bytes += command.bytes();
            is_first || events <= events_max && bytes <= bytes_max
        };
        Some(held.commands.range(start..).take_while(fits).cloned().collect())
    }

    /// For a reader: tells how far has been handed over, and that there is a reader.
    pub(crate) fn watch(&self) -> watch::Receiver<i64> {
        self.end.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use weir_model::{AggregateType, EventType, Metadata, StreamId, TenantId};

    use super::*;
    use crate::append::{Expected, NewStoredEvent};

    fn at() -> Timestamp {
        Timestamp::from_millis(1000).expect("a good time")
    }

    fn command(events: usize, bytes: usize) -> Append {
        let data = "x".repeat(bytes);
        let event = NewStoredEvent {
            event_type: EventType::UserRegistered,
            schema_version: "1.0.0".to_owned(),
            data,
            timestamp: at(),
        };
        Append {
            tenant: TenantId::default(),
            stream: StreamId::new(AggregateType::User, "u").expect("a good id"),
            expected: Expected::Any,
            command_id: Uuid::nil(),
            request_hash: None,
            events: vec![event; events],
            metadata: Metadata::default(),
            source: "lms".to_owned(),
        }
    }

    fn stored(first: i64, events: usize) -> Result<Appended, ()> {
        let last = Position(first + i64::try_from(events).expect("few") - 1);
        Ok(Appended::Stored { version: 7, first: Position(first), last, recorded_at: at(), repeated: false })
    }

    fn positions(handover: &Handover, from: i64, events_max: usize, bytes_max: usize) -> Option<Vec<(i64, i64)>> {
        let commands = handover.from(from, events_max, bytes_max)?;
        let each = |event: &StoredEvent<'_>| Ok::<_, ()>((event.position.0, event.aggregate_version));
        Some(commands.iter().flat_map(|command| command.each(from, each).expect("cannot fail")).collect())
    }

    #[test]
    fn what_is_given_is_had_from_any_position_of_it() {
        let handover = Handover::default();
        handover.give(vec![command(1, 10)], &[stored(1, 1)]);
        assert_eq!(positions(&handover, 1, 100, 1000), None, "there is no reader");
        let end = handover.watch();
        let refused = Ok(Appended::Conflict { actual: 3 });
        handover.give(vec![command(2, 10), command(1, 10), command(3, 10)], &[stored(5, 2), refused, stored(7, 3)]);
        assert_eq!(*end.borrow(), 10);
        assert_eq!(positions(&handover, 4, 100, 1000), None, "before it");
        assert_eq!(positions(&handover, 10, 100, 1000), None, "behind it");
        let all = vec![(5, 6), (6, 7), (7, 5), (8, 6), (9, 7)];
        assert_eq!(positions(&handover, 5, 100, 1000), Some(all.clone()));
        assert_eq!(positions(&handover, 6, 100, 1000), Some(all[1..].to_vec()));
        assert_eq!(positions(&handover, 9, 100, 1000), Some(all[4..].to_vec()));
        // A command is never cut at its end.
        assert_eq!(positions(&handover, 5, 1, 1000), Some(all[..2].to_vec()));
        assert_eq!(positions(&handover, 5, 4, 1000), Some(all[..2].to_vec()));
        assert_eq!(positions(&handover, 5, 100, 49), Some(all[..2].to_vec()));
        assert_eq!(positions(&handover, 5, 5, 50), Some(all));
    }

    #[test]
    fn a_hole_lets_go_of_what_was_before_it() {
        let handover = Handover::default();
        let _end = handover.watch();
        handover.give(vec![command(1, 10)], &[stored(5, 1)]);
        // Another process appended 6.
        handover.give(vec![command(1, 10)], &[stored(7, 1)]);
        assert_eq!(positions(&handover, 5, 100, 1000), None);
        assert_eq!(positions(&handover, 6, 100, 1000), None);
        assert_eq!(positions(&handover, 7, 100, 1000), Some(vec![(7, 7)]));
        // A command that was stored by an earlier call is one, too.
        let Ok(Appended::Stored { version, first, last, recorded_at, .. }) = stored(8, 1) else { return };
        let repeated = Appended::Stored { version, first, last, recorded_at, repeated: true };
        handover.give(vec![command(1, 10), command(1, 10)], &[Ok::<_, ()>(repeated), stored(9, 1)]);
        assert_eq!(positions(&handover, 7, 100, 1000), None);
        assert_eq!(positions(&handover, 9, 100, 1000), Some(vec![(9, 7)]));
        // Postgres went back.
        handover.give(vec![command(1, 10)], &[stored(8, 1)]);
        assert_eq!(positions(&handover, 9, 100, 1000), None);
        assert_eq!(positions(&handover, 8, 100, 1000), Some(vec![(8, 7)]));
        handover.forget();
        assert_eq!(positions(&handover, 8, 100, 1000), None);
    }

    #[test]
    fn no_more_is_held_than_it_may() {
        let handover = Handover::default();
        let _end = handover.watch();
        for first in 1..=10 {
            handover.give(vec![command(1, BYTES_MAX / 4)], &[stored(first, 1)]);
        }
        assert_eq!(positions(&handover, 6, 100, usize::MAX), None);
        assert_eq!(positions(&handover, 7, 100, usize::MAX).map(|events| events.len()), Some(4));
        handover.give(vec![command(1, BYTES_MAX + 1)], &[stored(11, 1)]);
        assert_eq!(positions(&handover, 11, 100, usize::MAX), None);
        assert_eq!(handover.held().bytes, 0);
    }
}
