//! Does decoding ever panic, whatever the bytes?

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Value, json};
use weir_model::wire::{self, samples};
use weir_model::{EventType, columns};

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        Just(json!("9999-99-99T99:99:99Z")),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(".{0,8}", inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn envelope(event_type: EventType, first_version: bool) -> Value {
    let newest = weir_model::contract::standard().unwrap().newest(event_type);
    // The oldest is lifted to the newest on the way in.
    let version = if first_version && event_type != EventType::TaskCompleted { "1.0.0".to_owned() } else { newest };
    json!({"eventId": "e", "eventType": event_type, "version": version,
        "timestamp": "2024-01-15T10:30:00Z", "source": "s", "data": samples::one(event_type)})
}

/// The seed is printed, and replays the run.
fn config() -> ProptestConfig {
    let rng_seed = RngSeed::Fixed(weir_tests::seed("decoding"));
    ProptestConfig { cases: 512, failure_persistence: None, rng_seed, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        drop(wire::decode(&bytes));
    }

    #[test]
    fn any_cut_or_flip_of_a_valid_event(index in 0..10_usize, at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let mut bytes = envelope(EventType::ALL[index], false).to_string().into_bytes();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        drop(wire::decode(&bytes));
    }

    /// Any value in any place: refused, or decoded into something that columns hold without loss.
    #[test]
    fn any_value_in_any_field(index in 0..10_usize, field in any::<prop::sample::Index>(), inside in any::<bool>(), first in any::<bool>(), value in json_value()) {
        let mut event = envelope(EventType::ALL[index], first);
        let target = if inside { &mut event["data"] } else { &mut event };
        let names: Vec<String> = target.as_object().unwrap().keys().cloned().chain(["unknown".to_owned()]).collect();
        target[&names[field.index(names.len())]] = value;
        if let Ok(event) = wire::decode(event.to_string().as_bytes()) {
            let (cells, rest) = columns::split(event.event_type, &event.data);
            let joined = columns::join(cells, rest).expect("columns join again");
            prop_assert_eq!(weir_model::canonical::object_text(&joined), event.canonical_data());
            // What was accepted once is accepted again, in the version that it was lifted to.
            let again = wire::decode(wire::canonical_document(&event).as_bytes());
            prop_assert_eq!(again.map(|again| again.canonical_data()), Ok(event.canonical_data()));
        }
    }
}
