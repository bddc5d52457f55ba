//! `user_read_model`: the one projection that depends on order, and only on the order within the user's own stream.

use serde_json::Value;

use super::Unappliable;
use crate::clock::Timestamp;
use crate::event::Event;
use crate::event_type::EventType;
use crate::profile::{self, PREFERENCES_STORED_MAX};
use crate::{Object, canonical};

/// Of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserStatus {
    /// Not deactivated.
    Active,
    /// Deactivated, for good.
    Deactivated,
}

impl UserStatus {
    /// As stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Deactivated => "deactivated",
        }
    }
}

/// One row. A user known only from later records has a row too, without what registration would have said.
#[derive(Debug, Clone, PartialEq)]
pub struct UserRow {
    /// Whose user.
    pub tenant: String,
    /// The user.
    pub id: String,
    /// From registration or an update.
    pub email: Option<String>,
    /// From registration or an update.
    pub username: Option<String>,
    /// From registration or an update.
    pub first_name: Option<String>,
    /// From registration or an update.
    pub last_name: Option<String>,
    /// Active until deactivated.
    pub status: UserStatus,
    /// Everything that has no column.
    pub preferences: Object,
    /// From registration.
    pub registration_source: Option<String>,
    /// When registered.
    pub created_at: Option<Timestamp>,
    /// When the last event happened.
    pub updated_at: Timestamp,
    /// When first deactivated.
    pub deactivated_at: Option<Timestamp>,
    /// The stream version of the last event applied; 0 when the events carry none.
    pub version: i64,
}

impl UserRow {
    /// The row before its first event.
    #[must_use]
    pub fn new(event: &Event) -> Self {
        Self {
            tenant: event.tenant.to_string(),
            id: event.stream.aggregate_id().to_owned(),
            email: None,
            username: None,
            first_name: None,
            last_name: None,
            status: UserStatus::Active,
            preferences: Object::new(),
            registration_source: None,
            created_at: None,
            updated_at: event.timestamp,
            deactivated_at: None,
            version: 0,
        }
    }

    /// Whether the event is for this read model at all.
    #[must_use]
    pub fn concerns(event: &Event) -> bool {
        matches!(
            event.event_type,
            EventType::UserRegistered | EventType::UserProfileUpdated | EventType::UserDeactivated
        )
    }

    /// Takes the next event of the user's stream in. After an error the row is as it was.
    pub fn apply(&mut self, event: &Event) -> Result<(), Unappliable> {
        if matches!(event.event_type, EventType::UserRegistered | EventType::UserProfileUpdated) {
            self.take_profile(event)?;
        } else if event.event_type == EventType::UserDeactivated {
            self.status = UserStatus::Deactivated;
            self.deactivated_at = self.deactivated_at.or(Some(event.timestamp));
        }
        self.updated_at = event.timestamp;
        self.version = event.version.unwrap_or(self.version);
        Ok(())
    }

    fn take_profile(&mut self, event: &Event) -> Result<(), Unappliable> {
        let mut row = self.clone();
        if event.event_type == EventType::UserRegistered {
            row.register(event);
        } else if let Some(Value::Object(values)) = event.data.json("newValues") {
            let mut preferences = std::mem::take(&mut row.preferences);
            profile::merge(&mut preferences, &values, &mut |column, value| row.set(column, value));
            row.preferences = preferences;
        }
        let bytes = profile::size(&row.preferences);
        if bytes > PREFERENCES_STORED_MAX && bytes > profile::size(&self.preferences) {
            let reason = format!(
                "the preferences of user {} would have {bytes} bytes; a profile holds at most {PREFERENCES_STORED_MAX}",
                row.id
            );
            return Err(Unappliable { reason });
        }
        *self = row;
        Ok(())
    }

    fn register(&mut self, event: &Event) {
        let owned = |value: Option<&str>| value.map(str::to_owned);
        self.email = owned(event.text("email"));
        self.username = owned(event.text("username"));
        self.registration_source = owned(event.text("registrationSource"));
        self.created_at = Some(event.timestamp);
        let Some(Value::Object(profile)) = event.data.json("profile") else { return };
        self.first_name = owned(profile.get("firstName").and_then(Value::as_str));
        self.last_name = owned(profile.get("lastName").and_then(Value::as_str));
        let data = std::iter::once(("profile".to_owned(), Value::Object(profile))).collect();
        profile::merge_event(&mut self.preferences, event.event_type, &data);
    }

    fn set(&mut self, column: &str, value: &Value) {
        let target = match column {
            "first_name" => &mut self.first_name,
            "last_name" => &mut self.last_name,
            "email" => &mut self.email,
            _ => &mut self.username,
        };
        *target = match value {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => Some(canonical::text(value)),
        };
    }

    /// Canonical text of the row, for `weir verify`.
    #[must_use]
    pub fn canonical(&self) -> String {
        let time = |at: Option<Timestamp>| at.map(|t| t.to_string());
        canonical::text(&serde_json::json!({
            "tenant": self.tenant, "id": self.id, "email": self.email, "username": self.username,
            "first_name": self.first_name, "last_name": self.last_name, "status": self.status.as_str(),
            "preferences": self.preferences, "registration_source": self.registration_source,
            "created_at": time(self.created_at), "updated_at": time(Some(self.updated_at)),
            "deactivated_at": time(self.deactivated_at), "version": self.version,
        }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::project::progress::tests::event;

    fn row_of(events: &[Event]) -> UserRow {
        let mut row = UserRow::new(&events[0]);
        events.iter().for_each(|e| row.apply(e).expect("applied"));
        row
    }

    fn user(event_type: EventType, version: i64, data: Value) -> Event {
        event(event_type, "user_12345", version, data)
    }

    #[test]
    fn mapped_fields_go_to_columns_and_all_others_to_preferences() {
        let row = row_of(&[
            user(EventType::UserRegistered, 1, json!({})),
            user(
                EventType::UserProfileUpdated,
                2,
                json!({"newValues": {
                "lastName": "Roe", "email": null, "status": "admin", "id = 1; --": "x", "language": "fr"}}),
            ),
        ]);
        assert_eq!((row.last_name.as_deref(), row.email.as_deref()), (Some("Roe"), None));
        assert_eq!(row.status, UserStatus::Active);
        assert_eq!(
            Value::Object(row.preferences),
            json!({"language": "fr", "timezone": "UTC", "status": "admin", "id = 1; --": "x"})
        );
    }

    #[test]
    fn an_update_of_nested_preferences_is_an_update() {
        let row = row_of(&[
            user(EventType::UserRegistered, 1, json!({})),
            user(EventType::UserProfileUpdated, 2, json!({"newValues": {"preferences": {"language": "fr"}}})),
            user(EventType::UserProfileUpdated, 3, json!({"newValues": {"preferences": {"timezone": null}}})),
        ]);
        assert_eq!(Value::Object(row.preferences), json!({"language": "fr"}));
    }

    #[test]
    fn preferences_without_end_are_the_events_fault() {
        let mut row = row_of(&[user(EventType::UserRegistered, 1, json!({}))]);
        let full = "x".repeat(PREFERENCES_STORED_MAX);
        let before = row.clone();
        let refused = row.apply(&user(EventType::UserProfileUpdated, 2, json!({"newValues": {"note": full}})));
        assert!(refused.expect_err("refused").reason.contains("the preferences of user user_12345"));
        assert_eq!(row, before);
    }

    #[test]
    fn nothing_reactivates_a_deactivated_user() {
        let row = row_of(&[
            user(EventType::UserDeactivated, 1, json!({})),
            user(EventType::UserRegistered, 2, json!({})),
            user(EventType::UserProfileUpdated, 3, json!({"newValues": {"status": "active"}})),
        ]);
        assert_eq!((row.status, row.version), (UserStatus::Deactivated, 3));
        assert!(row.deactivated_at.is_some() && row.created_at.is_some());
    }
}
