//! Any bytes are refused or decoded, without a panic, the same both ways; and what is decoded survives columns and its
//! canonical form.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_model::{canonical, cells, wire};

fuzz_target!(|bytes: &[u8]| {
    let bytes = bytes::Bytes::copy_from_slice(bytes);
    let decoded = wire::decode(&bytes);
    assert_eq!(decoded, wire::decode_slowly(&bytes), "the fast way and the slow one say the same");
    let Ok(event) = decoded else { return };
    let (cells, rest) = cells::split(&event.data);
    let joined = cells::join(cells, rest).expect("columns join again");
    assert_eq!(canonical::object_text(&joined), event.canonical_data(), "columns hold the data without loss");
    let document = wire::canonical_document(&event);
    assert!(wire::decode(&document.clone().into()).is_ok(), "the canonical document is an event again: {document}");
});
