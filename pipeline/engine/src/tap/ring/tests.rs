use bytes::Bytes;

use super::*;
use crate::chunk::Row;
use crate::headers::Headers;
use crate::record::{Partition, Record, RecordHead};

const LIMITS: TapLimits = TapLimits { buffer_bytes: 10_000, held_up_max: Duration::from_secs(1) };

/// Rows of 1,000 bytes and more: ten of them, or two chunks of four, fill the ring.
fn chunk(offsets: Range<i64>) -> Arc<Chunk> {
    let partition = Partition { source: "s".into(), topic: "t".into(), number: 0 };
    let head = |offset| RecordHead {
        partition: partition.clone(),
        offset,
        key: None,
        headers: Headers::default(),
        recorded_at: None,
    };
    let record = |offset| Record { head: head(offset), payload: Bytes::from(vec![b'x'; 1_000]) };
    Arc::new(Chunk::new(offsets.map(|offset| Row::of(record(offset))).collect()))
}

fn offered(ring: &mut Ring, offsets: Range<i64>, now: Instant) -> Option<Vec<String>> {
    let (generation, _) = ring.wanted()?;
    match ring.offer(generation, &chunk(offsets), now) {
        Offer::Done => None,
        Offer::NoRoom { detached } => Some(detached),
    }
}

/// The offsets that a lane is handed.
fn taken(ring: &mut Ring, lane: LaneId, records_max: usize, now: Instant) -> Vec<i64> {
    match ring.take(lane, records_max, now) {
        Taken::Rows(chunk, rows) => chunk.rows()[rows].iter().map(|row| row.record().offset).collect(),
        Taken::Nothing | Taken::Full | Taken::Trouble(_) | Taken::Detached => Vec::new(),
    }
}

#[test]
fn each_lane_is_handed_every_row_once_and_a_chunk_stays_until_the_last_has_committed() {
    let (mut ring, now) = (Ring::new(LIMITS), Instant::now());
    let a = ring.attach("a", 5, now).expect("nobody is there");
    assert_eq!(ring.wanted(), Some((1, 5)));
    assert_eq!(offered(&mut ring, 5..9, now), None);
    let b = ring.attach("b", 7, now).expect("within the ring");
    assert_eq!((taken(&mut ring, a, 3, now), taken(&mut ring, a, 3, now)), (vec![5, 6, 7], vec![8]));
    assert_eq!(taken(&mut ring, b, 10, now), vec![7, 8]);
    ring.release(a, 9, now);
    assert_eq!((ring.held.len(), ring.start()), (1, 5));
    ring.release(b, 9, now);
    assert_eq!((ring.held.len(), ring.bytes, ring.start()), (0, 0, 9));
    assert!(ring.join("c", 8, now).is_none() && ring.join("c", 9, now).is_some());
}

/// Two lanes have taken the first chunk, and no other finds room. The first one commits, and waits.
fn one_waits_for_the_other(ring: &mut Ring, start: Instant) -> (LaneId, LaneId) {
    let (a, b) = (ring.attach("a", 0, start).expect("first"), ring.attach("b", 0, start).expect("at it"));
    assert_eq!(offered(ring, 0..4, start), None);
    assert_eq!(taken(ring, a, 10, start).len() + taken(ring, b, 10, start).len(), 8);
    assert_eq!(offered(ring, 4..10, start), Some(Vec::new()), "both hold rows, so neither waits");
    assert!(matches!(ring.take(a, 10, start), Taken::Full) && matches!(ring.take(a, 10, start), Taken::Nothing));
    ring.release(a, 4, start);
    assert!(matches!(ring.take(a, 10, start), Taken::Nothing));
    (a, b)
}

#[test]
fn a_lane_that_stands_still_is_detached_when_another_waits_for_room() {
    let (mut ring, start) = (Ring::new(LIMITS), Instant::now());
    let (a, b) = one_waits_for_the_other(&mut ring, start);
    let later = start + STANDSTILL * LIMITS.held_up_max;
    assert_eq!(offered(&mut ring, 4..10, later - Duration::from_millis(1)), Some(Vec::new()), "not long enough");
    assert_eq!(offered(&mut ring, 4..10, later), Some(vec!["b".to_owned()]), "though no processor has time to spare");
    assert_eq!(offered(&mut ring, 4..10, later), None, "what b held is gone");
    assert!(matches!(ring.take(b, 10, start), Taken::Detached));
    assert_eq!(taken(&mut ring, a, 10, start), (4..10).collect::<Vec<_>>());
    assert!(ring.join("b", 3, later).is_none(), "still behind");
    let b = ring.join("b", 6, later).expect("caught up");
    assert_eq!(taken(&mut ring, b, 10, start), (6..10).collect::<Vec<_>>());
}

/// A lane that commits a chunk each 900 ms, and another that waits for it all the time: after how many is the slow one detached?
fn chunks_until_detached(is_time_to_spare: bool, rounds: i64) -> Option<i64> {
    let (mut ring, mut now) = (Ring::new(LIMITS), Instant::now());
    let (a, b) = one_waits_for_the_other(&mut ring, now);
    for round in 1..=rounds {
        for _ in 0..9 {
            let detached = offered(&mut ring, 4 * round..4 * round + 8, now).expect("there is no room");
            if detached == ["b"] {
                return Some(round);
            }
            now += Duration::from_millis(100);
            ring.account(is_time_to_spare, now);
        }
        ring.release(b, 4 * round, now);
        assert_eq!(offered(&mut ring, 4 * round..4 * round + 4, now), None);
        assert_eq!(taken(&mut ring, a, 9, now).len() + taken(&mut ring, b, 9, now).len(), 8);
        ring.release(a, 4 * round + 4, now);
        assert!(matches!(ring.take(a, 9, now), Taken::Nothing));
    }
    None
}

#[test]
fn a_lane_that_is_slow_but_moves_is_detached_where_a_processor_has_time_to_spare() {
    assert_eq!(chunks_until_detached(true, 100), Some(2));
    assert_eq!(chunks_until_detached(false, 100), None, "all of them are slow together");
}

/// A lane that has committed more than another gathers until it is the one in the way: not each chunk for itself.
#[test]
fn only_a_lane_that_is_in_the_way_is_asked_to_commit() {
    let (mut ring, now) = (Ring::new(LIMITS), Instant::now());
    let (slow, quick) = (ring.attach("slow", 0, now).expect("first"), ring.attach("quick", 0, now).expect("at it"));
    // Two chunks of three find room, and no third.
    assert_eq!((offered(&mut ring, 0..3, now), offered(&mut ring, 3..6, now)), (None, None));
    assert_eq!(offered(&mut ring, 6..9, now), Some(Vec::new()));
    assert_eq!(taken(&mut ring, quick, 9, now).len() + taken(&mut ring, quick, 9, now).len(), 6);
    assert!(matches!(ring.take(quick, 9, now), Taken::Full), "it holds the oldest, as the other does");
    ring.release(quick, 6, now);
    assert_eq!(taken(&mut ring, slow, 9, now).len(), 3);
    ring.release(slow, 3, now);
    assert_eq!((offered(&mut ring, 6..9, now), taken(&mut ring, quick, 9, now).len()), (None, 3));
    assert_eq!(offered(&mut ring, 9..12, now), Some(Vec::new()));
    assert!(matches!(ring.take(quick, 9, now), Taken::Nothing), "the other holds the oldest");
    assert_eq!(taken(&mut ring, slow, 9, now).len(), 3);
    ring.release(slow, 6, now);
    assert_eq!((offered(&mut ring, 9..12, now), taken(&mut ring, quick, 9, now).len()), (None, 3));
    assert_eq!(offered(&mut ring, 12..15, now), Some(Vec::new()));
    assert!(matches!(ring.take(quick, 9, now), Taken::Full), "now it holds the oldest, and six rows");
}

#[test]
fn waiting_counts_from_when_a_lane_comes_for_rows_to_when_there_is_room() {
    let (mut ring, start) = (Ring::new(LIMITS), Instant::now());
    let (a, b) = one_waits_for_the_other(&mut ring, start);
    // The reader has not looked again.
    let waited = Duration::from_millis(90);
    ring.release(b, 4, start + waited);
    assert_eq!((ring.lanes[&a].waited_for, ring.lanes[&b].waited_for), (Duration::ZERO, waited));
    ring.release(b, 4, start + 2 * waited);
    assert_eq!(ring.lanes[&b].waited_for, waited, "nobody has waited since");
}

#[test]
fn a_little_waiting_now_and_then_is_forgotten() {
    let (mut ring, mut now) = (Ring::new(LIMITS), Instant::now());
    let (_, b) = one_waits_for_the_other(&mut ring, now);
    for second in 0..100 {
        assert_eq!(offered(&mut ring, 4..10, now), Some(Vec::new()), "after {second} s");
        now += Duration::from_millis(20);
        assert_eq!(offered(&mut ring, 4..10, now), Some(Vec::new()), "after {second} s");
        ring.account(true, now);
        ring.waiting_since = None;
        now += Duration::from_millis(980);
        ring.release(b, 0, now);
    }
}

#[test]
fn what_only_a_detached_lane_wanted_is_not_read() {
    let (mut ring, start) = (Ring::new(LIMITS), Instant::now());
    let slow = ring.attach("slow", 0, start).expect("first");
    let ahead = ring.attach("ahead", 50_000, start).expect("it waits");
    assert_eq!((offered(&mut ring, 0..4, start), taken(&mut ring, slow, 9, start).len()), (None, 4));
    assert!(matches!(ring.take(ahead, 9, start), Taken::Nothing));
    assert_eq!(offered(&mut ring, 4..10, start), Some(Vec::new()));
    let later = start + STANDSTILL * LIMITS.held_up_max;
    assert_eq!(offered(&mut ring, 4..10, later), Some(vec!["slow".to_owned()]));
    assert_eq!(ring.wanted().map(|(_, from)| from), Some(50_000));
    assert_eq!(offered(&mut ring, 50_000..50_004, later), None);
    assert_eq!(taken(&mut ring, ahead, 9, start), (50_000..50_004).collect::<Vec<_>>());
}

#[test]
fn a_reader_that_ended_is_said_to_each_lane() {
    let (mut ring, now) = (Ring::new(LIMITS), Instant::now());
    ring.end();
    let lane = ring.attach("a", 0, now).expect("first");
    assert!(matches!(ring.take(lane, 9, now), Taken::Trouble(SourceError::Fatal(_))));
}

#[test]
fn what_was_read_before_trouble_is_read_again() {
    let (mut ring, now) = (Ring::new(LIMITS), Instant::now());
    let (a, b) = (ring.attach("a", 0, now).expect("first"), ring.attach("b", 0, now).expect("at it"));
    assert_eq!(offered(&mut ring, 0..4, now), None);
    assert_eq!((taken(&mut ring, a, 9, now).len(), taken(&mut ring, b, 2, now).len()), (4, 2));
    let Some((generation, _)) = ring.wanted() else { panic!("two are there") };
    ring.fail(&SourceError::Fatal("broken".into()));
    assert!(matches!(ring.take(b, 9, now), Taken::Detached), "it has not taken all of it");
    assert!(matches!(ring.take(a, 9, now), Taken::Trouble(SourceError::Fatal(_))));
    assert!(matches!(ring.offer(generation, &chunk(4..6), now), Offer::Done));
    assert!(ring.held.is_empty() && ring.bytes == 0, "what was on the way is dropped");
    ring.leave(a, now);
    let c = ring.attach("c", 9, now).expect("nobody is there");
    assert!(matches!(ring.take(c, 9, now), Taken::Nothing), "the trouble was another's");
}

#[test]
fn a_lane_from_far_ahead_takes_the_tap_along() {
    let (mut ring, now) = (Ring::new(LIMITS), Instant::now());
    let a = ring.attach("a", 1, now).expect("first");
    let old = ring.wanted();
    let b = ring.attach("b", AHEAD_MAX, now).expect("it waits");
    assert_eq!((ring.wanted(), offered(&mut ring, 1..3, now)), (old, None));
    assert!(taken(&mut ring, b, 9, now).is_empty());
    assert_eq!(taken(&mut ring, a, 9, now), [1, 2]);
    let c = ring.attach("c", 3 * AHEAD_MAX, now).expect("the tap comes along");
    assert!(matches!(ring.take(a, 9, now), Taken::Detached) && matches!(ring.take(b, 9, now), Taken::Detached));
    assert_eq!(ring.wanted().map(|(_, from)| from), Some(3 * AHEAD_MAX));
    let Some((generation, _)) = old else { panic!("a was there") };
    assert!(matches!(ring.offer(generation, &chunk(3..5), now), Offer::Done));
    assert!(taken(&mut ring, c, 9, now).is_empty(), "what was read for another place is dropped");
}
