//! A user comes into being once; everything else about a user is a record of what happened and is always accepted.

use serde::{Deserialize, Serialize};

use super::Rejection;
use crate::event::EventType;
use crate::ids::StreamId;

/// What the command side knows of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    registered: bool,
    deactivated: bool,
}

impl User {
    pub(super) fn apply(&mut self, event_type: EventType) {
        self.registered |= event_type == EventType::UserRegistered;
        self.deactivated |= event_type == EventType::UserDeactivated;
    }

    /// Records about unknown and deactivated users arrive late and out of order from other systems; refusing them would
    /// lose them. No event reactivates a user, so accepting them is safe.
    pub(super) fn decide(&self, stream: &StreamId, event_type: EventType) -> Result<(), Rejection> {
        match event_type == EventType::UserRegistered && self.registered {
            true => Err(Rejection::ExistsAlready { stream: stream.to_string() }),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Scenario;
    use crate::event::AggregateType::User;
    use crate::event::EventType::{UserDeactivated, UserProfileUpdated, UserRegistered};

    #[test]
    fn a_user_comes_into_being_once() {
        Scenario::given(User, &[]).when(UserRegistered).then(UserRegistered);
        Scenario::given(User, &[UserRegistered]).when(UserRegistered).then_rejected("exists already");
        Scenario::given(User, &[UserRegistered, UserDeactivated]).when(UserRegistered).then_rejected("exists already");
    }

    #[test]
    fn an_unknown_users_records_are_accepted() {
        Scenario::given(User, &[]).when(UserProfileUpdated).then(UserProfileUpdated);
        Scenario::given(User, &[]).when(UserDeactivated).then(UserDeactivated);
        Scenario::given(User, &[UserProfileUpdated, UserDeactivated]).when(UserRegistered).then(UserRegistered);
    }

    #[test]
    fn a_deactivated_users_records_are_accepted() {
        let given = || Scenario::given(User, &[UserRegistered, UserDeactivated]);
        given().when(UserProfileUpdated).then(UserProfileUpdated);
        given().when(UserDeactivated).then(UserDeactivated);
    }
}
