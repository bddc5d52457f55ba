//! Any bytes are refused or decoded, without a panic; and what is decoded survives columns and its canonical form.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_model::{canonical, columns, wire};

fuzz_target!(|bytes: &[u8]| {
    let Ok(event) = wire::decode(bytes) else { return };
    let (cells, rest) = columns::split(event.event_type, &event.data);
    let joined = columns::join(cells, rest).expect("columns join again");
    assert_eq!(canonical::object_text(&joined), event.canonical_data(), "columns hold the data without loss");
    let document = wire::canonical_document(&event);
    assert!(wire::decode(document.as_bytes()).is_ok(), "the canonical document is an event again: {document}");
});
