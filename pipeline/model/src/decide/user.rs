//! A user comes into being once; everything else about a user is a record of what happened and is always accepted.

use serde::{Deserialize, Serialize};

use super::Rejection;
use crate::event_type::EventType;
use crate::ids::StreamId;
use crate::profile::{self, PREFERENCES_MAX};
use crate::{Object, canonical};

/// What the command side knows of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    registered: bool,
    deactivated: bool,
    /// What the profile would hold; bounded, so it may be kept.
    preferences: Object,
}

impl User {
    pub(super) fn apply(&mut self, event_type: EventType, data: &Object) {
        self.registered |= event_type == EventType::UserRegistered;
        self.deactivated |= event_type == EventType::UserDeactivated;
        profile::merge_event(&mut self.preferences, event_type, data);
        // A service that decides for itself may have sent more; then the profile is full, and what it is full of is no matter.
        if profile::size(&self.preferences) > 2 * PREFERENCES_MAX {
            let more = "x".repeat(PREFERENCES_MAX);
            self.preferences = std::iter::once(("full".to_owned(), more.into())).collect();
        }
    }

    /// Records about unknown and deactivated users arrive late and out of order from other systems; refusing them would
    /// lose them. No event reactivates a user, so accepting them is safe.
    pub(super) fn decide(&self, stream: &StreamId, event_type: EventType, data: &Object) -> Result<(), Rejection> {
        if event_type == EventType::UserRegistered && self.registered {
            return Err(Rejection::ExistsAlready { stream: stream.to_string() });
        }
        let mut preferences = self.preferences.clone();
        profile::merge_event(&mut preferences, event_type, data);
        let bytes = canonical::object_text(&preferences).len();
        let grows = bytes > profile::size(&self.preferences);
        match grows && bytes > PREFERENCES_MAX {
            true => Err(Rejection::PreferencesFull { stream: stream.to_string(), bytes, max: PREFERENCES_MAX }),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Scenario;
    use super::PREFERENCES_MAX;
    use crate::event_type::AggregateType::User;
    use crate::event_type::EventType::{UserDeactivated, UserProfileUpdated, UserRegistered};

    #[test]
    fn a_user_comes_into_being_once() {
        Scenario::given(User, &[]).when(UserRegistered).then(UserRegistered);
        Scenario::given(User, &[UserRegistered]).when(UserRegistered).then_rejected("exists already");
        Scenario::given(User, &[UserRegistered, UserDeactivated]).when(UserRegistered).then_rejected("exists already");
    }

    #[test]
    fn preferences_are_bounded() {
        let update = |value: serde_json::Value| {
            let data = serde_json::json!({"newValues": {"preferences": value}});
            data.as_object().expect("an object").clone()
        };
        let half = "x".repeat(PREFERENCES_MAX / 2);
        let given = || Scenario::given(User, &[]).and(UserProfileUpdated, &update(serde_json::json!({"a": half})));
        let more = |name: &str| update(serde_json::json!({ name: half }));
        given().when_with(UserProfileUpdated, more("a")).then(UserProfileUpdated);
        given().when_with(UserProfileUpdated, more("b")).then_rejected("a profile holds at most 65536");
        // What is full can be emptied.
        let full = || given().and(UserProfileUpdated, &more("b")).and(UserProfileUpdated, &more("c"));
        full().when_with(UserProfileUpdated, update(serde_json::json!({"b": null}))).then(UserProfileUpdated);
        full().when_with(UserProfileUpdated, more("d")).then_rejected("a profile holds at most");
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
