//! A lane that is fenced, or set back, reads its partitions again, at once and again and again: does the client's memory of where it was before
//! make it take records for passed (P2)?

use std::collections::HashMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use weir_engine::{Partition, Source as _, SourceEvent, TapLimits};
use weir_kafka::{KafkaOptions, KafkaSource, KafkaTap};
use weir_model::event_type::TOPICS;
use weir_tests::{Kafka, seed};

use super::{apply_topics, kcat, on, session_of};

const PARTITIONS: i64 = 4;
const RECORDS: i64 = 3000;
const ROUNDS: usize = 60;

/// Everything that is assigned to a lane alone in its group.
async fn assigned(source: &mut KafkaSource) -> Vec<Partition> {
    loop {
        if let SourceEvent::Assigned(partitions) = source.next(1000, Duration::from_secs(1)).await.unwrap() {
            return partitions;
        }
    }
}

/// Begins at the first records, as after a claim, and reads until so many were seen: each of a partition behind the one before.
async fn read(source: &mut KafkaSource, partitions: &[Partition], records: i64) {
    let positions: Vec<_> = partitions.iter().map(|partition| (partition.clone(), Some(0))).collect();
    source.unclaimed(partitions).await;
    source.start(&positions).await.unwrap();
    let (mut next, mut seen, mut quiet) = (HashMap::<Partition, i64>::new(), 0, 0);
    while seen < records {
        let mut places = Vec::new();
        match source.next(1000, Duration::from_millis(200)).await.unwrap() {
            SourceEvent::Records(records) => {
                places.extend(records.iter().map(|record| (record.partition.clone(), record.offset)));
            }
            SourceEvent::Rows(chunk, rows) => {
                let records = chunk.rows()[rows].iter().map(|row| row.record());
                places.extend(records.map(|record| (record.partition.clone(), record.offset)));
            }
            SourceEvent::Passed(offsets) => {
                // There are no markers: behind a record lies the next one.
                for (partition, offset) in offsets {
                    let reached = next.get(&partition).copied().unwrap_or(0);
                    assert!(offset <= reached, "{partition} is passed below {offset}, and was read below {reached}");
                }
            }
            SourceEvent::Full | SourceEvent::Idle | SourceEvent::Assigned(_) => quiet += 1,
            SourceEvent::Revoked(gone) | SourceEvent::OutOfRange(gone) => panic!("gone: {gone:?}"),
        }
        for (partition, offset) in places {
            let next = next.entry(partition.clone()).or_default();
            assert_eq!(offset, *next, "{partition} has a hole, or came twice");
            (*next, seen) = (*next + 1, seen + 1);
        }
        assert!(quiet < 200, "nothing comes any more: {seen} of {records}");
    }
}

async fn again_and_again(source: &mut KafkaSource, partitions: &[Partition], random: &mut StdRng) {
    for _ in 0..ROUNDS {
        read(source, partitions, random.random_range(1..PARTITIONS * RECORDS)).await;
    }
    read(source, partitions, PARTITIONS * RECORDS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_begun_again_has_no_hole() {
    let mut random = StdRng::seed_from_u64(seed("kafka::read_again"));
    let kafka = Kafka::start();
    apply_topics(&on(&kafka));
    for partition in 0..PARTITIONS {
        let lines: Vec<String> =
            (0..RECORDS).map(|n| session_of(&format!("again-{partition}-{n}")).to_string()).collect();
        kcat(&kafka, &["-P", "-t", "learning_events", "-p", &partition.to_string()], &lines.join("\n"));
    }
    let options = KafkaOptions { brokers: kafka.brokers(), ..KafkaOptions::default() };
    let held_up_max = Duration::from_secs(1);
    let limits = TapLimits { buffer_bytes: 48 << 20, held_up_max, gather: Duration::ZERO, keeps_text: false };
    let tap = KafkaTap::start(&options, "again", "again", limits).unwrap();
    // By the shared reader.
    let mut first = KafkaSource::open(&tap, "first", "again-first", &TOPICS).unwrap();
    let partitions = assigned(&mut first).await;
    again_and_again(&mut first, &partitions, &mut random).await;
    // By its own, since the first holds the shared one at the end.
    let mut second = KafkaSource::open(&tap, "second", "again-second", &TOPICS).unwrap();
    let partitions = assigned(&mut second).await;
    again_and_again(&mut second, &partitions, &mut random).await;
}
