use bytes::Bytes;

use super::*;
use crate::chunk::Row;
use crate::headers::Headers;
use crate::record::{Partition, Record, RecordHead};

const LIMITS: TapLimits =
    TapLimits { buffer_bytes: 10_000, held_up_max: Duration::from_secs(1), gather: Duration::ZERO, keeps_text: true };

fn numbered(number: i32) -> Partition {
    Partition { source: "s".into(), topic: "t".into(), number }
}

/// The one partition of most of these.
fn p() -> Partition {
    numbered(0)
}

/// Rows of 1,000 bytes and more: ten of them, or two chunks of four, fill the ring.
fn chunk(offsets: Range<i64>) -> Arc<Chunk> {
    chunk_of(&p(), offsets)
}

fn chunk_of(partition: &Partition, offsets: Range<i64>) -> Arc<Chunk> {
    let head = |offset| RecordHead {
        partition: partition.clone(),
        offset,
        key: None,
        odd_key: None,
        headers: Headers::default(),
        recorded_at: None,
    };
    let record = |offset| Record { head: head(offset), payload: Bytes::from(vec![b'x'; 1_000]) };
    Arc::new(Chunk::new(offsets.map(|offset| Row::of(record(offset))).collect()))
}

/// The generation and offset from which on the partition is to be read.
fn wanted(ring: &Ring) -> Option<(u64, i64)> {
    ring.wanted(Instant::now()).into_iter().find(|one| one.partition == p()).map(|one| (one.generation, one.from))
}

/// A new lane, attached from an offset on.
fn lane(ring: &mut Ring, name: &str, offset: i64, now: Instant) -> LaneId {
    let lane = ring.add(name, now);
    assert!(ring.attach(lane, &p(), offset, now), "{name}");
    lane
}

fn release(ring: &mut Ring, lane: LaneId, below: i64, now: Instant) {
    ring.release(lane, [(&p(), below)], now);
}

fn offered(ring: &mut Ring, offsets: Range<i64>, now: Instant) -> Option<Vec<String>> {
    let (generation, _) = wanted(ring)?;
    match ring.offer(&p(), generation, &chunk(offsets), now) {
        Offer::Done => None,
        Offer::NoRoom { detached } => Some(detached),
    }
}

/// The partition of the rows that a lane is handed, and their offsets.
fn rows(ring: &mut Ring, lane: LaneId, records_max: usize, now: Instant) -> Option<(i32, Vec<i64>)> {
    let Taken::Rows(chunk, rows) = ring.take(lane, records_max, now) else { return None };
    let records = chunk.rows()[rows].iter().map(Row::record);
    Some((records.clone().next()?.partition.number, records.map(|record| record.offset).collect()))
}

/// The offsets that a lane is handed.
fn taken(ring: &mut Ring, lane: LaneId, records_max: usize, now: Instant) -> Vec<i64> {
    rows(ring, lane, records_max, now).map_or(Vec::new(), |(_, offsets)| offsets)
}

#[test]
fn each_lane_is_handed_every_row_once_and_a_chunk_stays_until_the_last_has_committed() {
    let (mut ring, now) = (Ring::new(LIMITS), Instant::now());
    let a = lane(&mut ring, "a", 5, now);
    assert_eq!(wanted(&ring), Some((1, 5)));
    assert_eq!(offered(&mut ring, 5..9, now), None);
    let b = lane(&mut ring, "b", 7, now);
    assert_eq!((taken(&mut ring, a, 3, now), taken(&mut ring, a, 3, now)), (vec![5, 6, 7], vec![8]));
    assert_eq!(taken(&mut ring, b, 10, now), vec![7, 8]);
    release(&mut ring, a, 9, now);
    assert_eq!((ring.held.len(), ring.start(&p(), ring.head(&p()).unwrap_or(-1))), (1, 5));
    release(&mut ring, b, 9, now);
    assert_eq!((ring.held.len(), ring.bytes, ring.start(&p(), ring.head(&p()).unwrap_or(-1))), (0, 0, 9));
    let c = ring.add("c", now);
    assert!(!ring.join(c, &p(), 8, now) && ring.join(c, &p(), 9, now));
}

/// Two lanes have taken the first chunk, and no other finds room. The first one commits, and waits.
fn one_waits_for_the_other(ring: &mut Ring, start: Instant) -> (LaneId, LaneId) {
    let (a, b) = (lane(ring, "a", 0, start), lane(ring, "b", 0, start));
    assert_eq!(offered(ring, 0..4, start), None);
    assert_eq!(taken(ring, a, 10, start).len() + taken(ring, b, 10, start).len(), 8);
    assert_eq!(offered(ring, 4..10, start), Some(Vec::new()), "both hold rows, so neither waits");
    assert!(matches!(ring.take(a, 10, start), Taken::Full) && matches!(ring.take(a, 10, start), Taken::Nothing));
    release(ring, a, 4, start);
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
    assert!(matches!(ring.take(b, 10, start), Taken::Detached(_)));
    assert_eq!(taken(&mut ring, a, 10, start), (4..10).collect::<Vec<_>>());
    assert!(!ring.join(b, &p(), 3, later), "still behind");
    assert!(ring.join(b, &p(), 6, later), "caught up");
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
        release(&mut ring, b, 4 * round, now);
        assert_eq!(offered(&mut ring, 4 * round..4 * round + 4, now), None);
        assert_eq!(taken(&mut ring, a, 9, now).len() + taken(&mut ring, b, 9, now).len(), 8);
        release(&mut ring, a, 4 * round + 4, now);
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
    let (slow, quick) = (lane(&mut ring, "slow", 0, now), lane(&mut ring, "quick", 0, now));
    // Two chunks of three find room, and no third.
    assert_eq!((offered(&mut ring, 0..3, now), offered(&mut ring, 3..6, now)), (None, None));
    assert_eq!(offered(&mut ring, 6..9, now), Some(Vec::new()));
    assert_eq!(taken(&mut ring, quick, 9, now).len() + taken(&mut ring, quick, 9, now).len(), 6);
    assert!(matches!(ring.take(quick, 9, now), Taken::Full), "it holds the oldest, as the other does");
    release(&mut ring, quick, 6, now);
    assert_eq!(taken(&mut ring, slow, 9, now).len(), 3);
    release(&mut ring, slow, 3, now);
    assert_eq!((offered(&mut ring, 6..9, now), taken(&mut ring, quick, 9, now).len()), (None, 3));
    assert_eq!(offered(&mut ring, 9..12, now), Some(Vec::new()));
    assert!(matches!(ring.take(quick, 9, now), Taken::Nothing), "the other holds the oldest");
    assert_eq!(taken(&mut ring, slow, 9, now).len(), 3);
    release(&mut ring, slow, 6, now);
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
    release(&mut ring, b, 4, start + waited);
    assert_eq!((ring.lanes[&a].waited_for, ring.lanes[&b].waited_for), (Duration::ZERO, waited));
    release(&mut ring, b, 4, start + 2 * waited);
    assert_eq!(ring.lanes[&b].waited_for, waited, "no lane has waited since");
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
        release(&mut ring, b, 0, now);
    }
}

#[test]
fn what_only_a_detached_lane_wanted_is_not_read() {
    let (mut ring, start) = (Ring::new(LIMITS), Instant::now());
    let slow = lane(&mut ring, "slow", 0, start);
    let ahead = lane(&mut ring, "ahead", 50_000, start);
    assert_eq!((offered(&mut ring, 0..4, start), taken(&mut ring, slow, 9, start).len()), (None, 4));
    assert!(matches!(ring.take(ahead, 9, start), Taken::Nothing));
    assert_eq!(offered(&mut ring, 4..10, start), Some(Vec::new()));
    let later = start + STANDSTILL * LIMITS.held_up_max;
    assert_eq!(offered(&mut ring, 4..10, later), Some(vec!["slow".to_owned()]));
    assert_eq!(wanted(&ring).map(|(_, from)| from), Some(50_000));
    assert_eq!(offered(&mut ring, 50_000..50_004, later), None);
    assert_eq!(taken(&mut ring, ahead, 9, start), (50_000..50_004).collect::<Vec<_>>());
}

#[test]
fn a_reader_that_ended_is_said_to_each_lane() {
    let (mut ring, now) = (Ring::new(LIMITS), Instant::now());
    ring.end();
    let a = lane(&mut ring, "a", 0, now);
    assert!(matches!(ring.take(a, 9, now), Taken::Trouble(SourceError::Fatal(_))));
}

#[test]
fn what_was_read_before_trouble_is_read_again() {
    let (mut ring, now) = (Ring::new(LIMITS), Instant::now());
    let (a, b) = (lane(&mut ring, "a", 0, now), lane(&mut ring, "b", 0, now));
    assert_eq!(offered(&mut ring, 0..4, now), None);
    assert_eq!((taken(&mut ring, a, 9, now).len(), taken(&mut ring, b, 2, now).len()), (4, 2));
    let Some((generation, _)) = wanted(&ring) else { panic!("two are there") };
    ring.fail(&SourceError::Fatal("broken".into()));
    assert!(matches!(ring.take(b, 9, now), Taken::Detached(_)), "it has not taken all of it");
    assert!(matches!(ring.take(a, 9, now), Taken::Trouble(SourceError::Fatal(_))));
    assert!(matches!(ring.offer(&p(), generation, &chunk(4..6), now), Offer::Done));
    assert!(ring.held.is_empty() && ring.bytes == 0, "what was on the way is dropped");
    ring.leave(a, &[p()], now);
    let c = lane(&mut ring, "c", 9, now);
    assert!(matches!(ring.take(c, 9, now), Taken::Nothing), "the trouble was another's");
}

#[test]
fn a_lane_from_far_ahead_takes_the_tap_along() {
    let (mut ring, now) = (Ring::new(LIMITS), Instant::now());
    let a = lane(&mut ring, "a", 1, now);
    let old = wanted(&ring);
    let b = lane(&mut ring, "b", AHEAD_MAX, now);
    assert_eq!((wanted(&ring), offered(&mut ring, 1..3, now)), (old, None));
    assert!(taken(&mut ring, b, 9, now).is_empty());
    assert_eq!(taken(&mut ring, a, 9, now), [1, 2]);
    let c = lane(&mut ring, "c", 3 * AHEAD_MAX, now);
    assert!(matches!(ring.take(a, 9, now), Taken::Detached(_)) && matches!(ring.take(b, 9, now), Taken::Detached(_)));
    assert_eq!(wanted(&ring).map(|(_, from)| from), Some(3 * AHEAD_MAX));
    let Some((generation, _)) = old else { panic!("a was there") };
    assert!(matches!(ring.offer(&p(), generation, &chunk(3..5), now), Offer::Done));
    assert!(taken(&mut ring, c, 9, now).is_empty(), "what was read for another place is dropped");
}

fn offered_of(ring: &mut Ring, number: i32, offsets: Range<i64>, now: Instant) -> Offer {
    let partition = numbered(number);
    let wanted = ring.wanted(now).into_iter().find(|one| one.partition == partition);
    let generation = wanted.map_or(0, |one| one.generation);
    ring.offer(&partition, generation, &chunk_of(&partition, offsets), now)
}

#[test]
fn a_lane_takes_the_chunks_of_its_own_partitions_and_later_those_of_one_that_it_comes_to() {
    let (mut ring, now) = (Ring::new(LIMITS), Instant::now());
    let (a, b) = (ring.add("a", now), ring.add("b", now));
    assert!(ring.attach(a, &numbered(1), 10, now) && ring.attach(a, &numbered(2), 20, now));
    assert!(ring.attach(b, &numbered(2), 20, now));
    assert_eq!(offered_of(&mut ring, 1, 10..12, now), Offer::Done);
    assert_eq!(offered_of(&mut ring, 2, 20..22, now), Offer::Done);
    assert_eq!(offered_of(&mut ring, 3, 30..32, now), Offer::Done, "not wanted");
    assert_eq!(rows(&mut ring, b, 9, now), Some((2, vec![20, 21])));
    assert_eq!(rows(&mut ring, b, 9, now), None);
    assert!(ring.join(b, &numbered(1), 11, now), "held still");
    assert_eq!(rows(&mut ring, b, 9, now), Some((1, vec![11])));
    assert_eq!(rows(&mut ring, a, 9, now), Some((1, vec![10, 11])));
    assert_eq!(rows(&mut ring, a, 9, now), Some((2, vec![20, 21])));
    // One in the middle goes before the oldest.
    ring.release(a, [(&numbered(2), 22)], now);
    ring.release(b, [(&numbered(2), 22)], now);
    assert_eq!(ring.held.iter().map(|held| held.partition.number).collect::<Vec<_>>(), [1]);
    ring.leave(a, &[numbered(1)], now);
    ring.leave(b, &[numbered(1)], now);
    assert!(ring.held.is_empty() && ring.bytes == 0, "no lane is there");
    assert_eq!(ring.wanted(now).len(), 1);
}

#[test]
fn what_lanes_begin_together_is_read_once_from_where_the_last_of_them_begins() {
    let limits = TapLimits { gather: Duration::from_secs(1), ..LIMITS };
    let (mut ring, start) = (Ring::new(limits), Instant::now());
    let (a, b, far) = (ring.add("a", start), ring.add("b", start), ring.add("far", start));
    assert!(ring.attach(a, &p(), 200_000, start));
    assert!(ring.wanted(start).is_empty(), "two are to come yet");
    assert!(ring.attach(b, &p(), 199_000, start), "nothing was read");
    assert!(!ring.attach(far, &p(), 0, start), "the others would wait for it");
    assert!(ring.wanted(start + Duration::from_millis(999)).is_empty());
    let later = start + limits.gather;
    assert_eq!(ring.wanted(later).first().map(|one| one.from), Some(199_000));
    assert_eq!(offered_of(&mut ring, 0, 199_000..199_002, later), Offer::Done);
    assert_eq!((taken(&mut ring, a, 9, later), taken(&mut ring, b, 9, later)), (vec![], vec![199_000, 199_001]));
    assert!(!ring.attach(far, &p(), 198_999, later), "rows were read");
    ring.leave(a, &[p()], later);
    assert_eq!(ring.wanted(later).len(), 1, "once begun it is read, whichever lanes come and go");
}

#[test]
fn what_holds_no_record_is_passed_once_all_before_was_taken() {
    let (mut ring, now) = (Ring::new(LIMITS), Instant::now());
    let (a, ahead) = (lane(&mut ring, "a", 0, now), lane(&mut ring, "ahead", 9, now));
    assert_eq!(offered(&mut ring, 0..2, now), None);
    let (generation, _) = wanted(&ring).expect("wanted");
    assert!(!ring.pass(&p(), generation, 4..5), "rows from 2 on are still to come");
    assert!(ring.pass(&p(), generation, 2..5) && !ring.pass(&p(), generation, 2..5));
    assert!(!ring.pass(&p(), generation, 5..5) && !ring.pass(&p(), generation + 1, 5..7));
    assert_eq!(taken(&mut ring, a, 9, now), [0, 1]);
    assert!(matches!(ring.take(a, 9, now), Taken::Passed(passed) if passed == [(p(), 5)]));
    assert!(matches!(ring.take(ahead, 9, now), Taken::Nothing));
    assert_eq!(wanted(&ring), Some((generation, 5)));
    release(&mut ring, a, 5, now);
    assert!(ring.held.is_empty());
}

#[test]
fn lanes_that_are_all_detached_go_on_for_themselves_and_join_where_they_are() {
    let (mut ring, now) = (Ring::new(LIMITS), Instant::now());
    let (a, b) = (lane(&mut ring, "a", 0, now), lane(&mut ring, "b", 0, now));
    assert_eq!((offered(&mut ring, 0..4, now), taken(&mut ring, a, 9, now).len()), (None, 4));
    ring.detach_all(now);
    assert!(ring.held.is_empty() && ring.wanted(now).is_empty());
    for lane in [a, b] {
        assert!(matches!(ring.take(lane, 9, now), Taken::Detached(of) if of == [p()]));
        assert!(matches!(ring.take(lane, 9, now), Taken::Nothing));
    }
    assert!(ring.join(b, &p(), 7, now) && !ring.join(a, &p(), 4, now), "what b has read is not there for a");
}

#[test]
fn out_of_range_is_said_to_every_lane_of_all_that_it_reads() {
    let (mut ring, now) = (Ring::new(LIMITS), Instant::now());
    let (a, b) = (ring.add("a", now), ring.add("b", now));
    assert!(ring.attach(a, &numbered(1), 0, now) && ring.attach(a, &numbered(2), 0, now));
    assert!(ring.attach(b, &numbered(2), 0, now));
    ring.out_of_range(now);
    assert!(ring.wanted(now).is_empty());
    assert!(ring.attach(b, &numbered(2), 3, now), "it has claimed again before it heard");
    assert!(matches!(ring.take(a, 9, now), Taken::OutOfRange(of) if of == [numbered(1), numbered(2)]));
    assert!(matches!(ring.take(a, 9, now), Taken::Nothing) && matches!(ring.take(b, 9, now), Taken::Nothing));
}
