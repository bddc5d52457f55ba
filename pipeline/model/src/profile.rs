//! What a profile is made of: four fields that have columns of their own, and preferences. Registration and updates are merged
//! alike, nested preferences by JSON Merge Patch (RFC 7396): null removes.

use serde_json::Value;

use crate::contract::Violation;
use crate::event_type::EventType;
use crate::{Object, canonical};

/// Profile fields that have a column; every other changed field is a preference. The list is the only way from a
/// payload key to a column.
pub const PROFILE_COLUMNS: [(&str, &str); 4] =
    [("firstName", "first_name"), ("lastName", "last_name"), ("email", "email"), ("username", "username")];

/// Bytes of a profile's preferences, as canonical JSON, that commands may lead to.
pub const PREFERENCES_MAX: usize = 64 << 10;

/// Bytes of preferences that a read model takes, from whatever source. Rewriting a row for each update costs what the row holds.
pub const PREFERENCES_STORED_MAX: usize = 4 << 20;

/// Bytes of preferences, as canonical JSON.
#[must_use]
pub fn size(preferences: &Object) -> usize {
    if preferences.is_empty() { 2 } else { canonical::object_text(preferences).len() }
}

/// The column of a profile's field.
#[must_use]
pub fn column_of(field: &str) -> Option<&'static str> {
    PROFILE_COLUMNS.iter().find(|(name, _)| *name == field).map(|(_, column)| *column)
}

/// Merges what an event of a user says into preferences.
pub fn merge_event(preferences: &mut Object, event_type: EventType, data: &Object) {
    if event_type == EventType::UserRegistered {
        if let Some(Value::Object(given)) = data.get("profile").and_then(|profile| profile.get("preferences")) {
            merge_patch(preferences, given);
        }
    } else if event_type == EventType::UserProfileUpdated
        && let Some(Value::Object(values)) = data.get("newValues")
    {
        merge(preferences, values, &mut |_, _| {});
    }
}

/// Merges an update's new values: `preferences` and `profile` hold what they hold at registration, fields with a column go to
/// `set`, and all others are preferences.
pub fn merge(preferences: &mut Object, values: &Object, set: &mut impl FnMut(&'static str, &Value)) {
    for (field, value) in values {
        match (field.as_str(), value) {
            ("preferences", Value::Object(patch)) => merge_patch(preferences, patch),
            ("preferences", Value::Null) => preferences.clear(),
            ("profile", Value::Object(profile)) => merge(preferences, profile, set),
            (name, value) => match column_of(name) {
                Some(column) => set(column, value),
                None => merge_member(preferences, field, value),
            },
        }
    }
}

/// RFC 7396, section 2, for a patch and a target that are objects.
fn merge_patch(target: &mut Object, patch: &Object) {
    patch.iter().for_each(|(name, value)| merge_member(target, name, value));
}

fn merge_member(target: &mut Object, name: &str, value: &Value) {
    match value {
        Value::Null => drop(target.remove(name)),
        Value::Object(patch) => {
            let mut nested = match target.remove(name) {
                Some(Value::Object(nested)) => nested,
                Some(_) | None => Object::new(),
            };
            merge_patch(&mut nested, patch);
            target.insert(name.to_owned(), Value::Object(nested));
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            target.insert(name.to_owned(), value.clone());
        }
    }
}

/// What is wrong with a new update: it must hold a value, and name what it holds.
#[must_use]
pub fn violations(data: &Object) -> Vec<Violation> {
    let Some(Value::Object(values)) = data.get("newValues") else {
        return vec![Violation::new("/newValues", "is missing: an update says what the new values are")];
    };
    let mut found = Vec::new();
    if values.is_empty() {
        found.push(Violation::new("/newValues", "is empty: an update says what the new values are"));
    }
    for name in ["preferences", "profile"] {
        if let Some(value) = values.get(name)
            && !value.as_object().map_or(value.is_null() && name == "preferences", |nested| !nested.is_empty())
        {
            let reason = "is to be an object with at least one member, as at registration";
            found.push(Violation::new(format!("/newValues/{name}"), reason));
        }
    }
    let named: Vec<&str> =
        data.get("changedFields").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    // `preferences.language` names a part of what is held.
    let names = |name: &str, field: &str| name == field || name.strip_prefix(field).is_some_and(|r| r.starts_with('.'));
    for field in values.keys().filter(|field| !named.iter().any(|name| names(name, field))) {
        let pointer = format!("/newValues/{}", canonical::pointer_token(field));
        found.push(Violation::new(pointer, "is not named in changedFields"));
    }
    for (index, name) in named.iter().enumerate().filter(|(_, name)| !values.keys().any(|field| names(name, field))) {
        let short: String = name.chars().take(100).collect();
        found.push(Violation::new(
            format!("/changedFields/{index}"),
            format!("names `{short}`, which newValues does not hold"),
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Object {
        let Value::Object(object) = value else { panic!("an object") };
        object
    }

    fn merged(start: Value, values: Value) -> (Value, Vec<(String, Value)>) {
        let (mut preferences, mut set) = (object(start), Vec::new());
        merge(&mut preferences, &object(values), &mut |column, value| set.push((column.to_owned(), value.clone())));
        (Value::Object(preferences), set)
    }

    #[test]
    fn nested_preferences_are_merged_and_null_removes() {
        let start = || json!({"language": "en", "theme": {"dark": true, "font": 12}});
        let cases = [
            (
                json!({"preferences": {"language": "fr"}}),
                json!({"language": "fr", "theme": {"dark": true, "font": 12}}),
            ),
            (json!({"language": "fr"}), json!({"language": "fr", "theme": {"dark": true, "font": 12}})),
            (json!({"preferences": {"theme": {"dark": null}}}), json!({"language": "en", "theme": {"font": 12}})),
            (json!({"preferences": {"theme": null}}), json!({"language": "en"})),
            (
                json!({"preferences": {"language": {"ui": "fr"}}}),
                json!({"language": {"ui": "fr"}, "theme": {"dark": true, "font": 12}}),
            ),
            (json!({"preferences": null}), json!({})),
            (json!({"profile": {"preferences": {"language": null}}}), json!({"theme": {"dark": true, "font": 12}})),
            (
                json!({"preferences": {"new": {"a": {"b": null}}}}),
                json!({"language": "en", "theme": {"dark": true, "font": 12}, "new": {"a": {}}}),
            ),
        ];
        for (values, expected) in cases {
            assert_eq!(merged(start(), values.clone()), (expected, Vec::new()), "{values}");
        }
    }

    #[test]
    fn fields_with_a_column_are_no_preferences() {
        let (preferences, set) = merged(json!({}), json!({"lastName": "Roe", "profile": {"firstName": null}, "id": 1}));
        assert_eq!(preferences, json!({"id": 1}));
        assert_eq!(set, [("last_name".to_owned(), json!("Roe")), ("first_name".to_owned(), Value::Null)]);
    }

    #[test]
    fn an_update_names_what_it_holds() {
        let cases = [
            (json!({}), vec!["/newValues"]),
            (json!({"newValues": {}}), vec!["/newValues"]),
            (json!({"newValues": {}, "changedFields": ["a"]}), vec!["/newValues", "/changedFields/0"]),
            (json!({"newValues": {"a": 1}}), vec!["/newValues/a"]),
            (json!({"newValues": {"a/b": 1}, "changedFields": ["c"]}), vec!["/newValues/a~1b", "/changedFields/0"]),
            (
                json!({"newValues": {"preferences": {}}, "changedFields": ["preferences"]}),
                vec!["/newValues/preferences"],
            ),
            (
                json!({"newValues": {"preferences": 7}, "changedFields": ["preferences"]}),
                vec!["/newValues/preferences"],
            ),
            (json!({"newValues": {"a": null}, "changedFields": ["a"]}), vec![]),
            (json!({"newValues": {"preferences": {"l": 1}}, "changedFields": ["preferences.l"]}), vec![]),
            (json!({"newValues": {"preferences": null}, "changedFields": ["preferences"]}), vec![]),
        ];
        for (data, pointers) in cases {
            let found = violations(&object(data.clone()));
            assert_eq!(found.iter().map(|v| v.pointer.as_str()).collect::<Vec<_>>(), pointers, "{data}");
        }
    }
}
