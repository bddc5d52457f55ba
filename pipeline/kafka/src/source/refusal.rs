//! Partitions that cannot be read from where the ledger stands.

use weir_engine::Partition;

/// Why a partition cannot be read from where the ledger stands, if so: between `low` and `high` it can.
pub(super) fn refusal(lane: &str, partition: &Partition, next: Option<i64>, low: i64, high: i64) -> Option<String> {
    let next = next?;
    let cure = format!(
        "look at `weir ledger show`, and decide with `weir ledger reset {lane} --topic {} --partition {} --to earliest|latest|OFFSET --yes`",
        partition.topic, partition.number
    );
    if next < low {
        return Some(format!(
            "{partition}: the ledger stands at {next}, but the topic begins at {low}: {} records were removed before this lane \
             read them; {cure}",
            low - next
        ));
    }
    (next > high).then(|| {
        format!("{partition}: the ledger stands at {next}, but the topic ends at {high}: it was truncated behind this lane; {cure}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_never_skipped() {
        let partition = Partition { source: "c/t".into(), topic: "user_events".into(), number: 3 };
        let refusal = |next, low, high| refusal("history", &partition, next, low, high);
        assert_eq!((refusal(None, 5, 9), refusal(Some(5), 5, 9), refusal(Some(9), 5, 9)), (None, None, None));
        let words = refusal(Some(4), 5, 9).unwrap_or_default();
        assert!(words.contains("1 records were removed") && words.contains("weir ledger reset history"), "{words}");
        assert!(refusal(Some(10), 5, 9).unwrap_or_default().contains("ends at 9"));
    }
}
