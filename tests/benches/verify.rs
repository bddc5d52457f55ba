//! `weir verify` of many events: memory and rate. `WEIR_BENCH_EVENTS` for another number than ten million.

use crate::measure::{round, row};
use crate::memory::Backlog;

pub(crate) fn run() {
    let events = crate::fill::events_or(10_000_000);
    let backlog = Backlog::of(events);
    backlog.run(&["up", "--until-caught-up"]);
    let needed = backlog.run(&["verify"]);
    let what = format!("verify, {} events", round(events as f64));
    let rate = round(events as f64 / needed.seconds);
    row(&what, &format!("{} MiB, {rate} events/s", round(needed.mebibytes)), "", "", "under 512 MiB");
}
