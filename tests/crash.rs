//! Does every number agree after a crash? (P1, P4, P5.) The real process dies at each failpoint and at random moments; what
//! comes out is held against an oracle that knows the input only, and `weir verify` must find all equal.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use weir_engine::failpoint;
use weir_tests::{Facts, Fixture, Weir, root, seed};

const ROWS: usize = 20_000;

/// Small batches: many commits, so many places to die.
fn small_batches() -> Weir {
    Weir::new()
        .with("lanes.read-models.records_max=2500")
        .with("lanes.metrics.records_max=2500")
        .with("lanes.history.records_max=4000")
        .with("lanes.read-models.poll_records_max=1000")
        .with("lanes.history.poll_records_max=1000")
}

struct Imported {
    fixture: Fixture,
    facts: Facts,
    weir: Weir,
}

/// One fixture and one imported data directory for all failpoints of the lanes; each test works on a copy.
fn imported() -> &'static Imported {
    static IMPORTED: OnceLock<Imported> = OnceLock::new();
    IMPORTED.get_or_init(|| {
        let fixture = Fixture::new(ROWS, seed("crash"));
        let facts = Facts::of_input(fixture.path());
        let weir = small_batches();
        weir.ok(&["import", "oulad", fixture.arg()]);
        Imported { fixture, facts, weir }
    })
}

/// After whatever happened: everything once, everywhere.
async fn agrees(weir: &Weir, facts: &Facts) {
    let up = weir.up();
    up.caught_up().await;
    facts.hold(weir, &up).await;
    weir.verify();
    up.terminate();
    weir.verify();
}

async fn lane_dies_at(failpoints: &[&str]) {
    let Imported { facts, weir, .. } = imported();
    let weir = weir.copy();
    for failpoint in failpoints {
        weir.dies_at(failpoint, &["up", "--until-caught-up"]);
    }
    agrees(&weir, facts).await;
}

async fn append_dies_at(failpoint: &str) {
    let Imported { fixture, facts, .. } = imported();
    let weir = small_batches();
    weir.dies_at(failpoint, &["import", "oulad", fixture.arg()]);
    let again = weir.json(&["import", "oulad", fixture.arg()]);
    let counted: i64 = again
        .as_array()
        .unwrap()
        .iter()
        .filter(|r| r["event_type"] != "(rejected rows)")
        .map(|r| r["appended"].as_i64().unwrap() + r["present"].as_i64().unwrap())
        .sum();
    assert_eq!(counted, facts.total(), "{again}");
    agrees(&weir, facts).await;
}

#[tokio::test]
async fn append_dies_before_its_commit() {
    append_dies_at("append.before_commit:9").await;
}

#[tokio::test]
async fn append_dies_after_its_commit() {
    append_dies_at("append.after_commit:9").await;
}

#[tokio::test]
async fn a_lane_dies_while_it_claims() {
    lane_dies_at(&["claim.after_ledger", "claim.after_ledger:2"]).await;
}

#[tokio::test]
async fn history_dies_while_it_takes_over_what_a_crash_left_open() {
    lane_dies_at(&["history.after_delta_commit:2", "claim.after_history_fence"]).await;
}

#[tokio::test]
async fn read_models_die_before_their_commit() {
    lane_dies_at(&["read-models.before_commit:3"]).await;
}

#[tokio::test]
async fn read_models_die_after_their_commit() {
    lane_dies_at(&["read-models.after_commit:3"]).await;
}

#[tokio::test]
async fn metrics_die_before_their_commit() {
    lane_dies_at(&["metrics.before_commit:3"]).await;
}

#[tokio::test]
async fn metrics_die_after_their_commit() {
    lane_dies_at(&["metrics.after_commit:3"]).await;
}

#[tokio::test]
async fn history_dies_after_its_data_files() {
    lane_dies_at(&["history.after_data_files:2"]).await;
}

#[tokio::test]
async fn history_dies_before_its_delta_commit() {
    lane_dies_at(&["history.before_delta_commit:2"]).await;
}

#[tokio::test]
async fn history_dies_after_its_delta_commit() {
    lane_dies_at(&["history.after_delta_commit:2"]).await;
}

#[tokio::test]
async fn history_dies_after_its_sync() {
    lane_dies_at(&["history.after_sync:2"]).await;
}

#[tokio::test]
async fn history_dies_after_its_ledger() {
    lane_dies_at(&["history.after_ledger:2"]).await;
}

/// kill -9 of the importer, of `up`, and of Postgres, at moments that the seed chooses.
#[tokio::test]
async fn random_moments() {
    let rounds = std::env::var("WEIR_CRASH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    let seed = seed("crash::random_moments");
    let Imported { fixture, facts, .. } = imported();
    for round in 0..rounds {
        let mut random = StdRng::seed_from_u64(seed.wrapping_add(round));
        let moment = |random: &mut StdRng| Duration::from_millis(random.random_range(50..4000));
        let weir = small_batches();
        let mut import = weir.start(&["import", "oulad", fixture.arg()]);
        tokio::time::sleep(moment(&mut random) + Duration::from_secs(1)).await;
        import.kill().unwrap();
        import.wait().unwrap();
        for _ in 0..random.random_range(1..4) {
            let mut up = weir.start(&["up"]);
            tokio::time::sleep(moment(&mut random)).await;
            if random.random_bool(0.4) && weir.kill_postgres() {
                // The instance must bring its server back and go on.
                tokio::time::sleep(moment(&mut random)).await;
            }
            up.kill().unwrap();
            up.wait().unwrap();
        }
        let up = weir.up();
        weir.ok(&["import", "oulad", fixture.arg()]);
        drop(up);
        println!("round {round}: checking");
        agrees(&weir, facts).await;
    }
}

#[tokio::test]
async fn postgres_is_killed_under_a_running_instance() {
    let Imported { facts, weir, .. } = imported();
    let weir = weir.copy();
    let up = weir.up();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert!(weir.kill_postgres(), "the server runs again after each kill");
        let started = std::time::Instant::now();
        while weir_tests::weir::try_connect(&up.postgres()).await.is_err() {
            assert!(started.elapsed() < Duration::from_secs(90), "{}", weir.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    up.caught_up().await;
    facts.hold(&weir, &up).await;
    up.terminate();
    weir.verify();
}

#[tokio::test]
async fn postgres_is_killed_under_commands_that_run_to_their_end() {
    let Imported { fixture, facts, weir } = imported();
    let weir = weir.copy();
    let mut until = weir.start(&["up", "--until-caught-up"]);
    // Once there is work under way: before, a command that finds no server may say so and end.
    weir.until("SELECT count(*) >= 3 FROM ledger").await;
    assert!(weir.kill_postgres());
    assert!(until.wait().unwrap().success(), "{}", weir.log());
    agrees(&weir, facts).await;

    let weir = small_batches();
    let mut import = weir.start(&["import", "oulad", fixture.arg()]);
    weir.until("SELECT count(*) > 0 FROM events").await;
    assert!(weir.kill_postgres());
    assert!(import.wait().unwrap().success(), "{}", weir.log());
    agrees(&weir, facts).await;
}

/// Every failpoint in the source text is in the list, and every one of the list has a test here that dies at it.
#[test]
fn each_failpoint_has_its_test() {
    let declared: BTreeSet<&str> = failpoint::ALL.iter().copied().collect();
    let tests = concat!(
        include_str!("crash.rs"),
        include_str!("archive.rs"),
        include_str!("backfill.rs"),
        include_str!("clickhouse/carried.rs"),
        include_str!("clickhouse/faults.rs"),
        include_str!("compaction.rs"),
        include_str!("dead_letters.rs"),
        include_str!("formats.rs"),
        include_str!("jobs.rs"),
        include_str!("kafka.rs"),
        include_str!("kafka/faults.rs"),
        include_str!("kafka/let_go.rs"),
        include_str!("kafka/records.rs"),
        include_str!("rebuild.rs"),
        include_str!("tap.rs"),
        include_str!("workflows.rs")
    );
    for name in &declared {
        assert!(tests.contains(&format!("\"{name}")), "no test dies at {name}");
    }
    let mut hit = BTreeSet::new();
    let files = [
        "engine/src/tap.rs",
        "postgres/src/dedup.rs",
        "postgres/src/group_commit.rs",
        "postgres/src/owner.rs",
        "postgres/src/projection_sink.rs",
        "postgres/src/rebuild.rs",
        "postgres/src/workflows.rs",
        "archive/src/load.rs",
        "archive/src/write.rs",
        "history/src/compact.rs",
        "history/src/refill.rs",
        "history/src/sink.rs",
        "verify/src/expected.rs",
        "clickhouse/src/carry.rs",
        "clickhouse/src/copies.rs",
        "clickhouse/src/rebuild.rs",
        "clickhouse/src/sink.rs",
        "kafka/src/poll.rs",
        "kafka/src/publisher.rs",
    ];
    let files = files
        .map(|file| format!("pipeline/{file}"))
        .into_iter()
        .chain(["backfill", "rebuild_clickhouse"].map(|name| format!("jobs/src/work/{name}.rs")));
    for file in files {
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        for part in text.split("failpoint::hit(").skip(1) {
            let argument = part.split(')').next().unwrap();
            match argument.strip_prefix("&format!(\"{lane}") {
                Some(rest) => {
                    let rest = rest.trim_end_matches('"');
                    hit.extend(["read-models", "metrics"].map(|lane| format!("{lane}{rest}")));
                }
                None => {
                    hit.insert(argument.trim_matches('"').to_owned());
                }
            }
        }
    }
    assert_eq!(hit, declared.iter().map(|name| (*name).to_owned()).collect());
}
