//! Every test against real servers, in one binary, so that the heavy libraries link once. Files are named by the question
//! they answer.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot be set up fails, and says so")]
#![allow(clippy::as_conversions, clippy::large_futures, clippy::wildcard_enum_match_arm, reason = "tests")]

mod acknowledged;
mod api;
mod archive;
mod backfill;
mod clickhouse;
mod closed;
mod compaction;
mod configuring;
mod crash;
mod dashboards;
mod dead_letters;
mod decoding;
mod dedup;
mod embedded;
mod event_store;
mod faults;
mod fencing;
mod formats;
mod handlers;
mod inspecting;
mod isolation;
mod jobs;
mod kafka;
mod meaning;
mod older;
mod openapi;
mod oulad;
mod queries;
mod readers;
mod readmes;
mod rebuild;
mod settings;
mod shape;
mod sql_clients;
mod standing_still;
mod tampering;
mod tap;
mod tenants;
mod workflows;
