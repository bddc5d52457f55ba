//! `weir`: a learning platform's event stream, measured exactly once.

use std::process::ExitCode;

/// The system's allocator keeps what short-lived threads freed: resident memory grew with each checkpoint of history's log.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    weir::Program::default().run()
}
