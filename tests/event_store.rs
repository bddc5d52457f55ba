//! Is position order commit order, and is each command judged alone? (P1, P2.)

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weir_engine::{Reader, StatusBoard};
use weir_model::Metadata;
use weir_model::wire::samples;
use weir_model::{ByteString, EventType, Position, StreamId, TenantId, Timestamp};
use weir_postgres::{
    Append, AppendError, AppendSignal, Appended, Database, DatabaseOptions, EventStore, EventStoreReader, Expected,
    GroupCommit, GroupCommitLimits, Handover, NewStoredEvent, Snapshot,
};
use weir_tests::{Postgres, Weir, seed};

async fn open(weir: &Weir) -> Database {
    let url = weir.owner_url();
    let second = Duration::from_secs(1);
    let options = DatabaseOptions {
        url,
        connections_max: 16,
        statement_timeout: 30 * second,
        lock_timeout: 10 * second,
        session: Vec::new(),
    };
    Database::open(&options).unwrap()
}

fn stream(id: impl Into<ByteString>) -> StreamId {
    StreamId::new(EventType::UserProfileUpdated.aggregate_type(), id).unwrap()
}

fn append(stream: &StreamId, expected: Expected, command_id: Uuid, data: &str, events: usize) -> Append {
    let event = NewStoredEvent {
        event_type: EventType::UserProfileUpdated,
        schema_version: "1.0.0".into(),
        data: data.into(),
        timestamp: Timestamp::from_millis(1_700_000_000_000).unwrap(),
    };
    Append {
        tenant: TenantId::default(),
        stream: stream.clone(),
        expected,
        command_id,
        request_hash: Some([7; 32]),
        events: vec![event; events],
        metadata: Metadata::default(),
        source: "test".into(),
    }
}

const DATA: &str = r#"{"timestamp":"2023-11-14T22:13:20.000Z","userId":"u"}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_two_writers_on_twenty_hot_streams_and_a_reader_that_misses_nothing() {
    const WRITERS: usize = 32;
    const EACH: usize = 40;
    let weir = Weir::new();
    let up = weir.up();
    let database = open(&weir).await;
    let stop = CancellationToken::new();
    // Two appenders, as two processes would have.
    let commits = [0, 1].map(|_| {
        GroupCommit::start(database.clone(), GroupCommitLimits::default(), StatusBoard::default(), stop.clone())
    });
    let store = EventStore::new(database.clone());
    let reading = tokio::spawn(async move {
        let (mut seen, mut at) = (Vec::new(), Position(0));
        while seen.len() < WRITERS * EACH {
            let page = store.get_all_events(&TenantId::default(), at, 100).await.unwrap().events;
            at = page.last().map_or(at, |event| event.position);
            seen.extend(page.into_iter().map(|event| (event.position.0, event.stream, event.version)));
        }
        seen
    });
    let writers = (0..WRITERS).map(|writer| {
        let commits = commits[writer % 2].clone();
        tokio::spawn(async move {
            for n in 0..EACH {
                let stream = stream(format!("hot{}", (writer + n) % 20));
                let stored = commits.append(append(&stream, Expected::Any, Uuid::now_v7(), DATA, 1)).await.unwrap();
                assert!(matches!(stored, Appended::Stored { repeated: false, .. }));
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let seen = reading.await.unwrap();
    let positions: Vec<i64> = seen.iter().map(|(position, _, _)| *position).collect();
    assert_eq!(positions, (1..=i64::try_from(WRITERS * EACH).unwrap()).collect::<Vec<_>>(), "none missed, none twice");
    let mut versions = std::collections::HashMap::new();
    for (_, stream, version) in seen {
        let last = versions.entry(stream).or_insert(0);
        assert_eq!(version, *last + 1, "in stream order");
        *last = version;
    }
    up.terminate();
}

#[tokio::test]
async fn one_command_that_postgres_cannot_hold_does_not_fail_the_others() {
    let weir = Weir::new();
    let up = weir.up();
    let commits = Arc::new(GroupCommit::start(
        open(&weir).await,
        GroupCommitLimits::default(),
        StatusBoard::default(),
        CancellationToken::new(),
    ));
    // What is no JSON passes no contract; here it is put past them, to see what Postgres does with it.
    let sent = (0..100).map(|n| {
        let (commits, data) = (commits.clone(), if n == 57 { r#"{"x":"# } else { DATA });
        tokio::spawn(async move {
            commits.append(append(&stream(format!("u{n}")), Expected::None, Uuid::now_v7(), data, 1)).await
        })
    });
    for (n, sent) in sent.collect::<Vec<_>>().into_iter().enumerate() {
        match sent.await.unwrap() {
            Ok(Appended::Stored { version: 1, .. }) => assert_ne!(n, 57),
            Err(AppendError::Data { .. }) => assert_eq!(n, 57),
            other => panic!("{n}: {other:?}"),
        }
    }
    up.terminate();
}

#[tokio::test]
async fn a_repeat_gets_the_first_answer_before_its_version_is_looked_at() {
    let weir = Weir::new();
    let up = weir.up();
    let commits = GroupCommit::start(
        open(&weir).await,
        GroupCommitLimits::default(),
        StatusBoard::default(),
        CancellationToken::new(),
    );
    let (user, id) = (stream("u"), Uuid::now_v7());
    let once = append(&user, Expected::None, id, DATA, 3);
    let Ok(Appended::Stored { version: 3, first, last, recorded_at, repeated: false }) =
        commits.append(once.clone()).await
    else {
        panic!("not stored")
    };
    assert_eq!(last.0 - first.0, 2);
    commits.append(append(&user, Expected::Exact(3), Uuid::now_v7(), DATA, 1)).await.unwrap();
    let again = commits.append(once.clone()).await.unwrap();
    assert_eq!(again, Appended::Stored { version: 3, first, last, recorded_at, repeated: true });
    let other = Append { request_hash: Some([8; 32]), ..once };
    assert_eq!(commits.append(other).await.unwrap(), Appended::KeyReused);
    for (expected, stored) in [
        (Expected::None, false),
        (Expected::Exact(3), false),
        (Expected::Exact(5), false),
        (Expected::Exact(4), true),
        (Expected::Exists, true),
        (Expected::Any, true),
    ] {
        let outcome = commits.append(append(&user, expected, Uuid::now_v7(), DATA, 1)).await.unwrap();
        assert_eq!(matches!(outcome, Appended::Stored { .. }), stored, "{expected:?}: {outcome:?}");
    }
    // Many at once under one id: stored once.
    let id = Uuid::now_v7();
    let answers = futures_of(&commits, |_| append(&stream("v"), Expected::Any, id, DATA, 1)).await;
    let positions: HashSet<i64> = answers
        .iter()
        .map(|a| match a {
            Appended::Stored { last, .. } => last.0,
            _ => 0,
        })
        .collect();
    assert_eq!(positions.len(), 1, "{answers:?}");
    up.terminate();
}

#[tokio::test]
async fn twenty_parallel_appends_that_expect_anything_are_all_stored() {
    let weir = Weir::new();
    let up = weir.up();
    // Seven commits: what one left is what the next finds.
    let limits = GroupCommitLimits { commands_max: 3, ..GroupCommitLimits::default() };
    let commits = GroupCommit::start(open(&weir).await, limits, StatusBoard::default(), CancellationToken::new());
    let answers = futures_of(&commits, |_| append(&stream("w"), Expected::Any, Uuid::now_v7(), DATA, 1)).await;
    let mut versions: Vec<i64> = answers
        .iter()
        .map(|answer| match answer {
            Appended::Stored { version, repeated: false, .. } => *version,
            other => panic!("{other:?}"),
        })
        .collect();
    versions.sort_unstable();
    assert_eq!(versions, (1..=20).collect::<Vec<_>>());
    up.terminate();
}

/// A stream that is not there, one at version 1, one at version 3; each against everything that can be expected.
#[tokio::test]
async fn the_expected_version_matrix() {
    let weir = Weir::new();
    let up = weir.up();
    let commits = GroupCommit::start(
        open(&weir).await,
        GroupCommitLimits::default(),
        StatusBoard::default(),
        CancellationToken::new(),
    );
    for (case, version) in [0_i64, 1, 3].into_iter().enumerate() {
        let expectations =
            [Expected::Any, Expected::None, Expected::Exists].into_iter().chain((0..5).map(Expected::Exact));
        for (n, expected) in expectations.enumerate() {
            let stream = stream(format!("m{case}-{n}"));
            if version > 0 {
                let events = usize::try_from(version).unwrap();
                commits.append(append(&stream, Expected::None, Uuid::now_v7(), DATA, events)).await.unwrap();
            }
            let fits = match expected {
                Expected::Any => true,
                Expected::None => version == 0,
                Expected::Exists => version > 0,
                Expected::Exact(wanted) => wanted == version,
            };
            let answer = commits.append(append(&stream, expected, Uuid::now_v7(), DATA, 2)).await.unwrap();
            match answer {
                Appended::Stored { version: after, repeated: false, .. } => {
                    assert!(fits && after == version + 2, "{expected:?}")
                }
                Appended::Conflict { actual } => assert!(!fits && actual == version, "{expected:?} on {version}"),
                other => panic!("{expected:?} on {version}: {other:?}"),
            }
        }
    }
    up.terminate();
}

/// A command of four events, repeated: whatever version the repeat expects, it gets the first answer and changes nothing;
/// with one changed id it is another command, and refused.
#[tokio::test]
async fn the_idempotency_matrix() {
    let weir = Weir::new();
    let up = weir.up();
    let commits = GroupCommit::start(
        open(&weir).await,
        GroupCommitLimits::default(),
        StatusBoard::default(),
        CancellationToken::new(),
    );
    for (n, first) in [Expected::Any, Expected::None, Expected::Exact(0)].into_iter().enumerate() {
        let (stream, id) = (stream(format!("i{n}")), Uuid::now_v7());
        let command = append(&stream, first, id, DATA, 4);
        let Appended::Stored { version: 4, first, last, recorded_at, repeated: false } =
            commits.append(command.clone()).await.unwrap()
        else {
            panic!("not stored")
        };
        let stored = Appended::Stored { version: 4, first, last, recorded_at, repeated: true };
        for (again, expected) in [
            ("same", command.expected),
            ("any", Expected::Any),
            ("next", Expected::Exact(4)),
            ("wrong", Expected::Exact(17)),
            ("exists", Expected::Exists),
            ("none", Expected::None),
        ] {
            let repeat = Append { expected, ..command.clone() };
            assert_eq!(commits.append(repeat).await.unwrap(), stored, "{again}");
        }
        let changed = Append { request_hash: Some([9; 32]), ..command.clone() };
        assert_eq!(commits.append(changed).await.unwrap(), Appended::KeyReused);
        let other = Append { command_id: Uuid::now_v7(), expected: Expected::Exact(0), ..command };
        assert_eq!(commits.append(other).await.unwrap(), Appended::Conflict { actual: 4 });
    }
    let events = weir.owner().await.query_one("SELECT count(*) FROM events", &[]).await.unwrap().get::<_, i64>(0);
    assert_eq!(events, 12);
    up.terminate();
}

async fn futures_of(commits: &GroupCommit, make: impl Fn(usize) -> Append) -> Vec<Appended> {
    let sent: Vec<_> = (0..20)
        .map(|n| {
            let (commits, append) = (commits.clone(), make(n));
            tokio::spawn(async move { commits.append(append).await.unwrap() })
        })
        .collect();
    let mut answers = Vec::new();
    for sent in sent {
        answers.push(sent.await.unwrap());
    }
    answers
}

#[tokio::test]
async fn a_snapshot_never_goes_back() {
    let weir = Weir::new();
    let up = weir.up();
    let store = EventStore::new(open(&weir).await);
    let (tenant, user) = (TenantId::default(), stream("u"));
    let snapshot = |version, state_version| Snapshot { version, state_version, data: serde_json::json!(version) };
    for (given, kept) in [
        (snapshot(100, 1), 100),
        (snapshot(200, 1), 200),
        (snapshot(100, 1), 200),
        (snapshot(150, 2), 150),
        (snapshot(300, 1), 150),
    ] {
        store.create_snapshot(&tenant, &user, &given).await.unwrap();
        assert_eq!(store.get_snapshot(&tenant, &user).await.unwrap().unwrap().version, kept);
    }
    assert_eq!(store.get_snapshot(&TenantId::new("other").unwrap(), &user).await.unwrap(), None);
    up.terminate();
}

/// Every row that a reader finds, up to a position.
async fn read_up_to(reader: &mut EventStoreReader, end: i64) -> Vec<String> {
    let (mut from, mut rows) = (1, Vec::new());
    while from < end {
        let chunk = reader.read(from).await.unwrap();
        if chunk.rows().is_empty() {
            reader.changed(Duration::from_secs(5)).await;
            continue;
        }
        for row in chunk.rows() {
            assert_eq!(row.record().offset, from, "in order, none missed, none twice");
            from += 1;
            rows.push(format!("{row:?}"));
        }
    }
    rows
}

/// A command of any type, whose data is in no canonical form and has what no contract knows.
fn any_command(random: &mut StdRng, id: &str) -> Append {
    let event_type = EventType::ALL[random.random_range(0..EventType::ALL.len())];
    let stream = StreamId::new(event_type.aggregate_type(), id).unwrap();
    let mut data = samples::one(event_type);
    data["zusatz"] = json!({"ü": [1.50, null], "a": "\u{1f393}\"\n"});
    let mut command = append(&stream, Expected::Any, Uuid::now_v7(), &data.to_string(), 2);
    for event in &mut command.events {
        event.event_type = event_type;
        event.schema_version = weir_model::contract::standard().unwrap().newest(event_type);
    }
    // What the fast way leaves to the slow one, and what is no event at all.
    match random.random_range(0..10) {
        0 => command.events[0].schema_version = "0.9.0".to_owned(),
        1 => command.events[1].data = "{}".to_owned(),
        2 => command.metadata.causation_id = Some("ü\\".into()),
        _ => {}
    }
    command
}

/// Two processes append, each of which hands over to its own lanes: every reader finds the same rows, as Postgres has them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_handed_over_is_what_is_read_back() {
    const WRITERS: usize = 8;
    const EACH: usize = 60;
    let server = Postgres::start();
    let weir = Weir::new().on(&server.url());
    weir.ok(&["up", "--until-caught-up"]);
    let (database, stop) = (open(&weir).await, CancellationToken::new());
    let signal = AppendSignal::start(database.clone(), stop.clone());
    let handovers = [Handover::default(), Handover::default()];
    let mut readers = Vec::new();
    for handover in handovers.iter().cloned().chain([Handover::default()]) {
        readers.push(EventStoreReader::open(database.clone(), signal.clone(), handover).await.unwrap());
    }
    let commits = handovers.map(|handover| {
        let (limits, board) = (GroupCommitLimits::default(), StatusBoard::default());
        GroupCommit::start_handing(database.clone(), limits, board, handover, stop.clone())
    });
    let end = i64::try_from(WRITERS * EACH * 2).unwrap() + 1;
    let reading =
        readers.into_iter().map(|mut reader| tokio::spawn(async move { (read_up_to(&mut reader, end).await, reader) }));
    let reading: Vec<_> = reading.collect();
    let seed = seed("what_is_handed_over");
    let writers = (0..WRITERS).map(|writer| {
        let commits = commits.clone();
        tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(seed + u64::try_from(writer).unwrap());
            for n in 0..EACH {
                let command = any_command(&mut random, &format!("é {writer}-{n}"));
                // One process appends more often than the other: holes, and stretches without.
                let stored = commits[usize::from(n % 20 > 15)].append(command).await.unwrap();
                assert!(matches!(stored, Appended::Stored { repeated: false, .. }));
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let (mut found, mut readers) = (Vec::new(), Vec::new());
    for reading in reading {
        let (rows, mut reader) = reading.await.unwrap();
        assert!(reader.read(end).await.unwrap().rows().is_empty());
        found.push(rows);
        readers.push(reader);
    }
    let paged = found.pop().unwrap();
    for rows in found {
        for (handed, paged) in rows.iter().zip(&paged) {
            assert_eq!(handed, paged, "WEIR_SEED={seed}");
        }
    }
    // Postgres is not asked for what was handed over.
    let last = append(&stream("last"), Expected::None, Uuid::now_v7(), DATA, 2);
    commits[0].append(last).await.unwrap();
    drop(server);
    // One that begins again does not trust what was handed over before: Postgres may have gone back.
    assert!(readers[0].another().read(end).await.is_err());
    assert_eq!(readers[0].read(end).await.unwrap().rows().len(), 2);
    for reader in &mut readers[1..] {
        assert!(reader.read(end).await.is_err(), "from nowhere");
    }
}
