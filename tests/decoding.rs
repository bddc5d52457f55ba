//! Does decoding ever panic, whatever the bytes, and does it still take what it took?

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Value, json};
use weir_model::wire::{self, DecodeError, samples};
use weir_model::{Event, EventType, cells};

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

const TEXTS: &[&str] = &[
    "\"2024-01-15T10:30:00Z\"",
    "\"2024-01-15T12:30:00.000+02:00\"",
    "1e2",
    "5.0",
    "-0",
    "-0.0",
    "1E400",
    "01",
    "9007199254740991",
    "9007199254740993",
    "9007199254740993.0",
    "1e21",
    "18446744073709551616",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"\\u0041\"",
    "\"\"",
    "null",
    "true",
    "{}",
    "[]",
    "[null,{}]",
    "{\"a\":1,\"a\":2}",
    "{\"\\u0000\":1}",
    "\"2024-01-15T10:30:60.000Z\"",
    "\"2024-01-15T10:30:00.000z\"",
    "\"2024-01-15T10:30:00,000Z\"",
    "\"2024-01-15T24:00:00.000Z\"",
    "\"1\"",
    "\"1.1\"",
    "\"User\"",
    "{\"score\": \"x\", \"sentiment\": {\"score\": 2}}",
    "{\"correctAnswers\": 1.5}",
    "{\"correctAnswers\": 1.0}",
    "{\"preferences\": null}",
    "{\"extractText\": 1}",
    " 7 ",
    "1 2",
];

fn envelope(event_type: EventType, first_version: bool) -> Value {
    let newest = weir_model::contract::standard().unwrap().newest(event_type);
    // The oldest is lifted to the newest on the way in.
    let version = if first_version && event_type != EventType::TaskCompleted { "1.0.0".to_owned() } else { newest };
    json!({"eventId": "e", "eventType": event_type, "version": version,
        "timestamp": "2024-01-15T10:30:00Z", "source": "s", "data": samples::one(event_type)})
}

/// The fast way and the slow one say the same.
fn both_ways(bytes: impl Into<Bytes>) -> Result<Event, DecodeError> {
    let bytes = bytes.into();
    let (fast, slow) = (wire::decode(&bytes), wire::decode_slowly(&bytes));
    assert_eq!(fast, slow, "{}", String::from_utf8_lossy(&bytes));
    if let (Ok(fast), Ok(slow)) = (&fast, &slow) {
        let split = |event: &Event| {
            let (row, rest) = cells::split(&event.data);
            (row, weir_model::canonical::object_text(&rest))
        };
        assert_eq!(split(fast), split(slow));
        assert_eq!(wire::canonical_document(fast), wire::canonical_document(slow));
    }
    fast
}

/// The seed is printed, and replays the run.
fn config() -> ProptestConfig {
    let rng_seed = RngSeed::Fixed(weir_tests::seed("decoding"));
    ProptestConfig { cases: 512, failure_persistence: None, rng_seed, ..ProptestConfig::default() }
}

/// A row of the event store is the event that its wire form is, or is left to that.
fn both_ways_of_a_row(event_type: EventType, data: &str) -> bool {
    let version = weir_model::contract::standard().unwrap().newest(event_type);
    let at = "2024-01-15T10:30:00Z".parse().unwrap();
    let row = wire::StoredEvent {
        event_id: "e",
        event_type: event_type.as_str(),
        schema_version: &version,
        timestamp: at,
        recorded_at: at,
        source: "s",
        tenant: "acme",
        aggregate_id: "one",
        aggregate_type: event_type.aggregate_type().as_str(),
        aggregate_version: 1,
        position: weir_model::Position(1),
        data,
        metadata: "{}",
    };
    let Some(event) = row.decode() else { return false };
    let rendered = row.render().expect("what decodes is JSON");
    assert_eq!(wire::encode_event(&event, data).expect("renders"), rendered);
    assert_eq!(wire::decode_slowly(&rendered), Ok(event), "{data}");
    true
}

#[test]
fn a_plain_row_is_not_left_to_its_wire_form() {
    for event_type in EventType::ALL {
        assert!(both_ways_of_a_row(event_type, &samples::one(event_type).to_string()), "{event_type}");
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_text_in_any_field_of_a_row(index in 0..10_usize, field in any::<prop::sample::Index>(), text in prop::sample::select(TEXTS), twice in any::<bool>()) {
        let data = samples::one(EventType::ALL[index]);
        let names: Vec<&String> = data.as_object().unwrap().keys().collect();
        let name = names[field.index(names.len())];
        let member = format!("{}:{}", Value::from(name.as_str()), data[name]);
        let other = format!("\"{name}\":{text}");
        let new = if twice { format!("{member},{other}") } else { other };
        both_ways_of_a_row(EventType::ALL[index], &data.to_string().replacen(&member, &new, 1));
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        drop(both_ways(bytes));
    }

    #[test]
    fn any_cut_or_flip_of_a_valid_event(index in 0..10_usize, at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let mut bytes = envelope(EventType::ALL[index], false).to_string().into_bytes();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        drop(both_ways(bytes));
    }

    /// What a tree cannot say: names twice, names with escapes, numbers in other forms.
    #[test]
    fn any_text_in_any_field(index in 0..10_usize, field in any::<prop::sample::Index>(), text in prop::sample::select(TEXTS), twice in any::<bool>(), inside in any::<bool>()) {
        let event = envelope(EventType::ALL[index], false);
        let object = if inside { &event["data"] } else { &event };
        let names: Vec<&String> = object.as_object().unwrap().keys().collect();
        let name = names[field.index(names.len())];
        let member = format!("{}:{}", Value::from(name.as_str()), object[name]);
        let whole = event.to_string();
        for name in [name.clone(), format!("\\u{:04x}{}", name.as_bytes()[0], &name[1..]), "other".to_owned()] {
            let other = format!("\"{name}\":{text}");
            let new = if twice { format!("{member},{other}") } else { other };
            drop(both_ways(whole.replacen(&member, &new, 1)));
        }
    }

    /// Any value in any place: refused, or decoded into something that columns hold without loss.
    #[test]
    fn any_value_in_any_field(index in 0..10_usize, field in any::<prop::sample::Index>(), inside in any::<bool>(), first in any::<bool>(), value in json_value()) {
        let mut event = envelope(EventType::ALL[index], first);
        let target = if inside { &mut event["data"] } else { &mut event };
        let names: Vec<String> = target.as_object().unwrap().keys().cloned().chain(["unknown".to_owned()]).collect();
        target[&names[field.index(names.len())]] = value;
        if let Ok(event) = both_ways(event.to_string()) {
            let (row, rest) = cells::split(&event.data);
            let joined = cells::join(row, rest).expect("columns join again");
            prop_assert_eq!(weir_model::canonical::object_text(&joined), event.canonical_data());
            // What was accepted once is accepted again, in the version that it was lifted to.
            let again = both_ways(wire::canonical_document(&event));
            prop_assert_eq!(again.map(|again| again.canonical_data().to_owned()), Ok(event.canonical_data().to_owned()));
        }
    }
}

/// A place of an event with another text in it; without one the field is taken away.
fn changed(event: &Value, place: &str, text: &str) -> String {
    const MARK: &str = "\u{1}";
    let mut event = event.clone();
    let (parent, name) = place.rsplit_once('/').unwrap();
    let parent = event.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    if text.is_empty() {
        parent.remove(name);
    } else {
        parent.insert(name.to_owned(), json!(MARK));
    }
    event.to_string().replace(&json!(MARK).to_string(), text)
}

/// `+` and the digest of the canonical document, or `-` and that of the error's words.
fn outcome(payload: String) -> (String, String) {
    let (sign, words) = match both_ways(payload) {
        Ok(event) => ('+', wire::canonical_document(&event)),
        Err(error) => ('-', error.to_string()),
    };
    let digest = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, words.as_bytes()).simple().to_string();
    (format!("{sign}{}", &digest[..8]), words)
}

/// Rules that commands were given since bind at the door alone: what was taken before them is taken still, and gives the same. The file
/// was written by the version before them: the texts, then events, each followed by its places with what becomes of each text there.
#[test]
fn decoding_takes_what_it_took() {
    let mut lines = include_str!("decoding/as_before.txt").lines();
    let texts: Vec<String> = serde_json::from_str(lines.next().unwrap()).unwrap();
    let (mut event, mut compared) = (Value::Null, 0);
    for line in lines {
        let Some((place, expected)) = line.split_once('\t') else {
            event = serde_json::from_str(line).unwrap();
            continue;
        };
        for (text, expected) in texts.iter().zip(expected.split(' ')).filter(|(_, expected)| *expected != ".") {
            let (found, words) = outcome(changed(&event, place, text));
            assert_eq!(found, expected, "{} with `{text}` at {place}: {words}", event["eventType"]);
            compared += 1;
        }
    }
    assert_eq!(compared, 6_940);
}
