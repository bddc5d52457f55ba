//! Named places where tests let the process die as `kill -9` would.
//!
//! `WEIR_FAILPOINT=history.after_delta_commit:3` kills the process when it passes that place for the third time;
//! `history.after_delta_commit:3:stop` stops it there, as a machine that hangs, until someone lets it go on. Without the
//! variable a failpoint costs one load of a static.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::Signal;

/// Names the failpoint and, after colons, which passage it is about (1 by default), and `stop` if it is not to die there.
pub const VARIABLE: &str = "WEIR_FAILPOINT";

/// Every failpoint there is. A test dies at each of them, and another holds this list against the source text.
pub const ALL: &[&str] = &[
    "append.before_commit",
    "append.after_commit",
    "claim.after_ledger",
    "claim.after_history_fence",
    "dedup.before_commit",
    "dedup.after_commit",
    "read-models.before_commit",
    "read-models.after_commit",
    "metrics.before_commit",
    "metrics.after_commit",
    "history.after_data_files",
    "history.before_delta_commit",
    "history.after_delta_commit",
    "history.after_sync",
    "history.after_ledger",
    "history.after_redrive_commit",
    "history.before_upgrade",
    "history.after_upgrade",
    "clickhouse.before_insert",
    "clickhouse.after_answer",
    "clickhouse.after_rollups",
    "clickhouse.before_ledger",
    "clickhouse.after_ledger",
    "clickhouse.after_redrive",
    "clickhouse.month_copied",
    "clickhouse.old_table_aside",
    "clickhouse.table_compared",
    "clickhouse.before_exchange",
    "clickhouse.after_exchange",
    "clickhouse.before_version",
    "publisher.after_take_over",
    "publisher.between_progress",
    "publisher.after_begin",
    "publisher.before_commit",
    "publisher.after_commit",
    "rebalance.assigned",
    "rebalance.revoked",
    "rebalance.handed_over",
    "archive.before_part",
    "archive.after_part",
    "archive.before_load",
    "archive.after_load",
    "backfill.before_rollups",
    "backfill.before_slice",
    "backfill.after_slice",
    "compaction.after_files",
    "compaction.before_commit",
    "compaction.after_commit",
    "reading.before_topics",
    "rebuild.before_commit",
    "rebuild.after_commit",
    "refill.after_files",
    "refill.before_commit",
    "refill.after_commit",
    "workflow.before_commit",
    "workflow.after_commit",
    "workflow.before_exchange",
    "workflow.after_exchange",
    "tap.after_detach",
    "tap.after_join",
];

struct Armed {
    name: String,
    passages_left: AtomicU64,
    signal: Signal,
}

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

/// Dies here if the environment says so.
pub fn hit(name: &str) {
    let armed = ARMED.get_or_init(|| {
        let value = std::env::var(VARIABLE).ok()?;
        let mut parts = value.split(':');
        let name = parts.next().unwrap_or_default().to_owned();
        let passage = parts.next().and_then(|passage| passage.parse().ok()).unwrap_or(1);
        let signal = if parts.next() == Some("stop") { Signal::STOP } else { Signal::KILL };
        Some(Armed { name, passages_left: AtomicU64::new(passage), signal })
    });
    let Some(armed) = armed else { return };
    if armed.name == name && armed.passages_left.fetch_sub(1, Ordering::SeqCst) == 1 {
        tracing::warn!(failpoint = name, signal = ?armed.signal, "stopped by a failpoint");
        if rustix::process::kill_process(rustix::process::getpid(), armed.signal).is_err() {
            std::process::abort();
        }
    }
}
