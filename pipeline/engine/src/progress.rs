//! How far a lane is in each partition, as metrics.

use weir_model::{Clock as _, SystemClock};

use crate::batch::Reached;
use crate::record::Partition;

/// Reports one partition: its offset, the source's end, and the lag between them in records and in seconds since the first
/// record that waits was appended (0 when nothing waits).
pub(crate) fn report(lane: &str, partition: &Partition, reached: Reached, end: i64) {
    let labels = [
        ("lane", lane.to_owned()),
        ("topic", partition.topic.to_string()),
        ("partition", partition.number.to_string()),
    ];
    let lag = (end - reached.next_offset).max(0);
    metrics::gauge!("weir_partition_offset", &labels).set(double(reached.next_offset));
    metrics::gauge!("weir_partition_high_watermark", &labels).set(double(end));
    metrics::gauge!("weir_partition_lag_records", &labels).set(double(lag));
    let now = SystemClock.now().as_millis();
    let waits = reached.since.filter(|_| lag > 0).map_or(0, |at| (now - at.as_millis()).max(0));
    metrics::gauge!("weir_partition_lag_seconds", &labels).set(double(waits) / 1000.0);
}

/// Prometheus' values are doubles; counts below 2^53 are exact.
#[allow(clippy::as_conversions, reason = "no other way from an integer to a double")]
pub(crate) fn double(n: impl TryInto<i64>) -> f64 {
    n.try_into().unwrap_or(i64::MAX) as f64
}
