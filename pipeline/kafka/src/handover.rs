//! Before partitions of a lane go to another member of its group, the lane commits what it holds of them: else the other would read it
//! again. The broker waits for the answer, so this takes five seconds at most.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

/// A lane that takes longer gives its partitions up with what it holds, which the next owner reads again.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Quiet,
    /// The lane has not heard of it.
    Asked,
    /// It was told to commit.
    Told,
    /// It holds nothing more.
    Done,
    /// It is gone.
    Closed,
}

/// What the polling thread and the lane say to each other about it.
#[derive(Debug, Default)]
pub(crate) struct Handover {
    state: Mutex<State>,
    changed: Condvar,
    asked: Notify,
}

impl Handover {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: State) {
        *self.state() = state;
        self.changed.notify_all();
    }

    /// The polling thread waits until the lane holds nothing; `false` when that took too long, or the lane is gone.
    pub(crate) fn ask(&self) -> bool {
        let mut state = self.state();
        if *state == State::Closed {
            return false;
        }
        *state = State::Asked;
        self.asked.notify_one();
        let waits = |state: &mut State| matches!(state, State::Asked | State::Told);
        let waited = self.changed.wait_timeout_while(state, PATIENCE, waits);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let is_done = *state == State::Done;
        if *state != State::Closed {
            *state = State::Quiet;
        }
        is_done
    }

    /// The lane comes for more: `true` when it is to commit first. When it comes again, it has.
    pub(crate) fn must_commit(&self) -> bool {
        let state = *self.state();
        match state {
            State::Asked => self.set(State::Told),
            State::Told => self.set(State::Done),
            State::Quiet | State::Done | State::Closed => {}
        }
        state == State::Asked
    }

    /// Until the lane is asked.
    pub(crate) async fn asked(&self) {
        self.asked.notified().await;
    }

    /// The lane has committed for the last time.
    pub(crate) fn close(&self) {
        self.set(State::Closed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_lane_is_told_once_and_has_committed_when_it_comes_again() {
        let handover = Arc::new(Handover::default());
        assert!(!handover.must_commit());
        let asking = {
            let handover = handover.clone();
            std::thread::spawn(move || handover.ask())
        };
        while !handover.must_commit() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(!asking.is_finished() && !handover.must_commit());
        assert!(asking.join().expect("no panic"));
        assert!(!handover.must_commit());
    }

    #[test]
    fn a_lane_that_is_gone_is_not_waited_for() {
        let handover = Handover::default();
        handover.close();
        assert!(!handover.ask());
    }
}
