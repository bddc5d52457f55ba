//! Any events, one a line, through every projection: no panic, no sum that depends on how the events were cut into batches.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use weir_model::project::{FoldedRow, Progress, ReadModel, Units, counted, observed, progress_of, rows_of};
use weir_model::{Event, wire};

type Rows = BTreeMap<(String, String), Progress>;

fn progress(events: &[Event]) -> Rows {
    let mut rows = Rows::new();
    for (key, part) in events.iter().filter_map(|event| progress_of(event, Units::default())) {
        rows.entry(key).or_default().merge(part);
    }
    rows
}

fuzz_target!(|bytes: &[u8]| {
    let decode = |line: &[u8]| wire::decode(&bytes::Bytes::copy_from_slice(line)).ok();
    let events: Vec<Event> = bytes.split(|byte| *byte == b'\n').filter_map(decode).collect();
    let mut folded: BTreeMap<(ReadModel, String, String), FoldedRow> = BTreeMap::new();
    for event in &events {
        drop((counted(event), observed(event, Units::default())));
        let attempt = event.event_id.as_str();
        for (model, tenant, key) in rows_of(event, attempt) {
            let row = folded.entry((model, tenant, key)).or_insert_with(|| FoldedRow::new(model, event));
            drop(row.apply(event, attempt, Units::default()));
        }
    }
    folded.values().for_each(|row| drop(row.canonical()));
    let whole = progress(&events);
    for cut in 0..events.len() {
        let (first, second) = events.split_at(cut);
        let mut parts = progress(second);
        for (key, part) in progress(first) {
            parts.entry(key).or_default().merge(part);
        }
        assert_eq!(parts, whole);
    }
});
