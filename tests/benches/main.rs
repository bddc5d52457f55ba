//! How fast, against what the machine could do at best? Each benchmark measures its floor in the same run, in interleaved
//! pairs, and prints medians and a row for the table of `benches/README.md`. `cargo bench --bench weir [NAME …]`; goals are not asserted.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark that cannot be set up fails, and says so")]
#![allow(clippy::as_conversions, clippy::large_futures, reason = "figures for people")]

mod all_lanes;
mod append;
mod clickhouse;
mod decode;
mod dedup;
mod fill;
mod held_up;
mod hostile;
mod http;
mod jobs;
mod kafka;
mod lanes;
mod measure;
mod memory;
mod merge;
mod panels;
mod questions;
mod source;
mod verify;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let benches: [(&str, fn()); 33] = [
        ("decode", decode::run),
        ("dedup", dedup::run),
        ("append", append::run),
        ("http", http::run),
        ("hostile", hostile::run),
        ("source", source::run),
        ("read-models", lanes::read_models),
        ("history", lanes::history),
        ("memory", memory::run),
        ("all-lanes", all_lanes::run),
        ("all-lanes-oulad", all_lanes::oulad),
        ("all-lanes-kafka", all_lanes::from_topics),
        ("all-lanes-foreign", all_lanes::foreign),
        ("held-up", held_up::run),
        ("verify", verify::run),
        ("job-backfill", jobs::backfill),
        ("job-rebuild", jobs::rebuild),
        ("job-compaction", jobs::compaction),
        ("job-archive", jobs::archive),
        ("job-beside", jobs::beside),
        ("job-memory", jobs::memory),
        ("questions", questions::run),
        ("panels", panels::run),
        ("panels-beside", panels::beside),
        ("publisher", kafka::publisher),
        ("decode-route", kafka::decode_route),
        ("ledger", kafka::ledger),
        ("kafka-memory", kafka::memory),
        ("two-processes", kafka::two_processes),
        ("clickhouse-insert", clickhouse::insert),
        ("clickhouse", clickhouse::whole_lane),
        ("clickhouse-final", clickhouse::reading),
        ("clickhouse-memory", clickhouse::memory),
    ];
    println!("| what | measured | floor, same run | ratio | goal |\n|---|---|---|---|---|");
    for (name, bench) in benches {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            bench();
        }
    }
}
