//! Any text as the data of a row of the event store: the row is the event that its wire form is, or is left to that.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_model::{EventType, Position, contract, wire};

fuzz_target!(|input: (u8, &str)| {
    let (turn, data) = input;
    let event_type = EventType::ALL[usize::from(turn) % EventType::ALL.len()];
    let version = contract::standard().expect("contracts").newest(event_type);
    let at = "2024-01-15T10:30:00Z".parse().expect("a time");
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
        position: Position(1),
        data,
        metadata: "{}",
    };
    if let Some(event) = row.decode() {
        let rendered = row.render().expect("what decodes is JSON");
        assert_eq!(wire::decode_slowly(&rendered), Ok(event));
    }
});
