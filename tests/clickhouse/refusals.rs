//! What ClickHouse or its owner may refuse: each is a clear error that names the cure; the lane waits, the others go on, and
//! nothing is lost.

use std::time::{Duration, Instant};

use weir_tests::clickhouse::OldClickHouse;
use weir_tests::{ClickHouse, Facts, Mount, Up, Weir};

use super::{caught_up, fixture, holds, weir};

/// Waits for words in the log.
pub(super) async fn says(weir: &Weir, words: &[&str]) {
    let started = Instant::now();
    loop {
        let log = weir.log();
        if log.lines().any(|line| words.iter().all(|word| line.contains(word))) {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{words:?} in\n{log}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The other three lanes have everything; then the cause is mended, and this one has it too.
async fn goes_on(server: &ClickHouse, weir: &Weir, up: &Up<'_>, facts: &Facts, mend: &str) {
    up.lanes_caught_up(3).await;
    server.sql(mend).await;
    caught_up(up).await;
    holds(server, weir, facts).await;
}

#[tokio::test]
async fn a_wrong_password_and_a_user_who_may_only_read() {
    let (fixture, facts) = fixture("clickhouse_password", 500);
    let server = ClickHouse::start();
    for (user, password, words) in [
        ("weir", "wr0ng-pass", ["Authentication failed", "check clickhouse.user and clickhouse.password"]),
        ("readonly", "nothing-8", ["readonly", "profile with readonly = 0"]),
    ] {
        let weir = weir(server.settings());
        weir.ok(&["import", "oulad", fixture.arg()]);
        let refused = weir.with(&format!("clickhouse.user={user}")).with(&format!("clickhouse.password={password}"));
        let up = refused.up();
        says(&refused, &words).await;
        assert!(!refused.log().contains("wr0ng-pass"), "a password is in the log");
        up.lanes_caught_up(3).await;
        up.terminate();
        let mended = refused
            .with("clickhouse.user=weir")
            .with(&format!("clickhouse.password={}", weir_tests::clickhouse::PASSWORD));
        let up = mended.up();
        caught_up(&up).await;
        holds(&server, &mended, &facts).await;
        up.terminate();
        server.sql("DROP DATABASE weir SYNC").await;
    }
}

#[tokio::test]
async fn a_schema_that_was_altered_by_hand() {
    let (fixture, facts) = fixture("clickhouse_altered", 500);
    let server = ClickHouse::start();
    let weir = weir(server.settings());
    weir.ok(&["clickhouse", "migrate"]);
    server.sql("INSERT INTO weir.weir_migrations (number, name, checksum) VALUES (999, 'later', '')").await;
    let refused = weir.run(&["clickhouse", "migrate"]);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(words.contains("migration 999 (later) is not known here") && words.contains("newer weir"), "{words}");
    server.sql("ALTER TABLE weir.weir_migrations DELETE WHERE number = 999 SETTINGS mutations_sync = 2").await;
    weir.ok(&["import", "oulad", fixture.arg()]);
    server.sql("ALTER TABLE weir.events_stored MODIFY COLUMN score Nullable(Float32)").await;
    let refused = weir.run(&["clickhouse", "migrate"]);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(words.contains("score") && words.contains("MODIFY COLUMN `score` Nullable(Float64)"), "{words}");
    let up = weir.up();
    says(&weir, &["was altered", "`score` is Nullable(Float32)"]).await;
    goes_on(&server, &weir, &up, &facts, "ALTER TABLE weir.events_stored MODIFY COLUMN `score` Nullable(Float64)")
        .await;
    // Dropped while everything runs, behind weir's back.
    up.terminate();
    server.sql("TRUNCATE TABLE weir.events_stored SYNC").await;
    let up = weir.up();
    says(&weir, &["its table is empty", "weir ledger reset clickhouse --topic events --to earliest --yes"]).await;
    weir.ok(&["ledger", "reset", "clickhouse", "--topic", "events", "--to", "earliest", "--yes"]);
    caught_up(&up).await;
    holds(&server, &weir, &facts).await;
    up.terminate();
}

/// A constraint that someone added refuses two records for what they hold: those two are dead letters, and everything else goes on.
#[tokio::test]
async fn records_that_a_constraint_forbids() {
    let (fixture, facts) = fixture("clickhouse_constraint", 500);
    let server = ClickHouse::start();
    let weir = weir(server.settings());
    weir.ok(&["clickhouse", "migrate"]);
    weir.ok(&["import", "oulad", fixture.arg()]);
    let users: Vec<String> = facts.progress.keys().take(2).map(|user| format!("'{user}'")).collect();
    let theirs = format!("event_type != 'UserRegistered' OR user_id NOT IN ({})", users.join(", "));
    server.sql(&format!("ALTER TABLE weir.events_stored ADD CONSTRAINT theirs CHECK assumeNotNull({theirs})")).await;
    let up = weir.up();
    caught_up(&up).await;
    let letters = weir.json(&["dead-letters", "list"]);
    let of_lane = letters.as_array().unwrap().iter().filter(|letter| letter["lane"] == "clickhouse");
    let reasons: Vec<&str> = of_lane.filter_map(|letter| letter["reason"].as_str()).collect();
    assert!(reasons.len() == 2 && reasons.iter().all(|reason| reason.contains("theirs")), "{letters}");
    assert_eq!(server.sql("SELECT count() FROM weir.events").await, (facts.total() - 2).to_string());
    weir.verify();
    // Tried again while nothing has changed, and after it has.
    weir.ok(&["dead-letters", "redrive"]);
    weir.until("SELECT count(*) = 2 FROM dead_letters WHERE state = 'dead' AND attempts > 3").await;
    server.sql("ALTER TABLE weir.events_stored DROP CONSTRAINT theirs").await;
    weir.ok(&["dead-letters", "redrive"]);
    weir.until("SELECT count(*) = 0 FROM dead_letters").await;
    holds(&server, &weir, &facts).await;
    up.terminate();
    weir.verify();
}

#[tokio::test]
async fn a_table_that_is_dropped_while_the_lane_runs() {
    let (fixture, facts) = fixture("clickhouse_dropped", 500);
    let server = ClickHouse::start();
    // A table may be empty because of its TTL, but not another one.
    let weir = weir(server.settings()).with("clickhouse.ttl_days=3650");
    let up = weir.up();
    says(&weir, &["claimed", "clickhouse"]).await;
    server.sql("DROP TABLE weir.events_stored SYNC").await;
    server.sql("DROP TABLE weir.sessions_per_minute SYNC").await;
    weir.ok(&["import", "oulad", fixture.arg()]);
    caught_up(&up).await;
    holds(&server, &weir, &facts).await;
    // And made again by someone else before the lane comes to it, so that no insert of its fails.
    server.sql("DROP TABLE weir.events_stored SYNC").await;
    weir.ok(&["clickhouse", "migrate"]);
    let (more, _) = super::fixture("clickhouse_dropped_again", 100);
    weir.ok(&["import", "oulad", more.arg()]);
    says(&weir, &["its table is empty", "weir ledger reset clickhouse --topic events --to earliest --yes"]).await;
    assert_eq!(server.sql("SELECT count() FROM weir.events_stored").await, "0");
    weir.ok(&["ledger", "reset", "clickhouse", "--topic", "events", "--to", "earliest", "--yes"]);
    caught_up(&up).await;
    up.terminate();
    weir.verify();
}

/// ClickHouse is restored to an older copy, which has rows, but not the last.
#[tokio::test]
async fn a_clickhouse_that_was_restored_to_an_older_copy() {
    let (fixture, facts) = fixture("clickhouse_older", 500);
    let server = ClickHouse::start();
    let weir = weir(server.settings());
    weir.ok(&["import", "oulad", fixture.arg()]);
    weir.ok(&["up", "--until-caught-up"]);
    server.sql(&format!("DELETE FROM weir.events_stored WHERE offset > {}", facts.total() - 50)).await;
    let up = weir.up();
    says(&weir, &["its table ends with offset", "weir ledger reset clickhouse --topic events --to earliest --yes"])
        .await;
    weir.ok(&["ledger", "reset", "clickhouse", "--topic", "events", "--to", "earliest", "--yes"]);
    caught_up(&up).await;
    holds(&server, &weir, &facts).await;
    up.terminate();
}

/// Postgres fails over to a copy that lacks the last events, under a running process that has them; others get their positions.
#[tokio::test]
async fn a_postgres_that_fails_over_to_an_older_copy() {
    let (fixture, facts) = fixture("clickhouse_failover", 500);
    let server = ClickHouse::start();
    let weir = weir(server.settings());
    let up = weir.up();
    weir.ok(&["import", "oulad", fixture.arg()]);
    caught_up(&up).await;
    let owner = weir.owner().await;
    let another_past = "BEGIN; UPDATE events SET event_id = gen_random_uuid() WHERE id > (SELECT max(id) - 20 FROM events); \
        UPDATE ledger SET next_offset = (SELECT max(id) - 19 FROM events) WHERE lane IN ('clickhouse', 'history'); COMMIT";
    owner.batch_execute(another_past).await.unwrap();
    let (more, _) = super::fixture("clickhouse_failed_over", 100);
    weir.ok(&["import", "oulad", more.arg()]);
    for lane in ["clickhouse", "history"] {
        says(&weir, &[&format!("lane=\"{lane}\""), "restored to an older copy"]).await;
    }
    // Nothing of the new past came in.
    assert_eq!(server.sql("SELECT count() FROM weir.analytics_events").await, facts.total().to_string());
    let counted = weir.json(&["sql", "SELECT count(*) AS n FROM events"]);
    assert_eq!(counted[0]["n"], facts.total());
    up.kill();
}

/// Postgres, and history with it, are restored to an older copy than ClickHouse: positions would be given a second time.
#[tokio::test]
async fn a_postgres_that_was_restored_to_an_older_copy() {
    let (fixture, _) = fixture("clickhouse_restored", 500);
    let server = ClickHouse::start();
    let weir = weir(server.settings());
    weir.ok(&["import", "oulad", fixture.arg()]);
    weir.ok(&["up", "--until-caught-up"]);
    let older = weir.copy();
    weir.ok(&["demo", "--events", "50", "--rate", "500"]);
    let up = older.up();
    says(&older, &["Postgres was restored to an older copy", "ledger reset clickhouse --topic events"]).await;
    up.lanes_caught_up(3).await;
    up.kill();
}

#[tokio::test]
async fn a_ttl_that_is_not_configured_and_one_that_is_too_short() {
    let (fixture, facts) = fixture("clickhouse_ttl", 500);
    let server = ClickHouse::start();
    let weir = weir(server.settings());
    weir.ok(&["clickhouse", "migrate"]);
    weir.ok(&["import", "oulad", fixture.arg()]);
    server.sql("ALTER TABLE weir.events_stored MODIFY TTL `timestamp` + toIntervalYear(80)").await;
    let up = weir.up();
    says(&weir, &["a TTL that is not in the configuration", "REMOVE TTL"]).await;
    goes_on(&server, &weir, &up, &facts, "ALTER TABLE weir.events_stored REMOVE TTL").await;
    // Events recorded long ago, as after years of use.
    weir.owner().await.batch_execute("UPDATE events SET recorded_at = recorded_at - interval '40 days'").await.unwrap();
    up.terminate();
    server.sql("DROP DATABASE weir SYNC").await;
    let short = weir.with("clickhouse.ttl_days=30");
    short.ok(&["clickhouse", "migrate"]);
    short.ok(&["ledger", "reset", "clickhouse", "--topic", "events", "--to", "earliest", "--yes"]);
    let up = short.up();
    says(&short, &["the table keeps 30 days", "raise clickhouse.ttl_days"]).await;
    up.terminate();
    let long = short.with("clickhouse.ttl_days=3650");
    let up = long.up();
    caught_up(&up).await;
    let kept = server.sql("SELECT count() FROM weir.analytics_events").await;
    assert_eq!(kept, facts.total().to_string());
    up.terminate();
}

#[tokio::test]
async fn a_server_that_is_too_old() {
    let (fixture, facts) = fixture("clickhouse_old", 500);
    let old = OldClickHouse::start();
    let weir = Weir::new().with(&format!("clickhouse.url={}", old.url()));
    weir.ok(&["import", "oulad", fixture.arg()]);
    let refused = weir.run(&["clickhouse", "migrate"]);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(words.contains("it is 18.16") && words.contains("25.3 is the oldest"), "{words}");
    let up = weir.up();
    says(&weir, &["it is 18.16", "upgrade the server, or clear clickhouse.url"]).await;
    up.lanes_caught_up(3).await;
    up.terminate();
    let server = ClickHouse::start();
    let upgraded = weir.with_all(server.settings());
    let up = upgraded.up();
    caught_up(&up).await;
    holds(&server, &upgraded, &facts).await;
    up.terminate();
}

#[tokio::test]
async fn a_disk_that_is_full() {
    let (fixture, facts) = fixture("clickhouse_full", 3000);
    let (server, disk) = ClickHouse::start_with(|data| Mount::on(data, "300m", "clickhouse::a_disk_that_is_full"));
    if disk.is_none() {
        return;
    }
    let weir = weir(server.settings());
    weir.ok(&["clickhouse", "migrate"]);
    let ballast = server.path().join("ballast");
    fill(&ballast);
    let up = weir.up();
    weir.ok(&["import", "oulad", fixture.arg()]);
    says(&weir, &["inserting into ClickHouse", "the server's disk is full"]).await;
    up.lanes_caught_up(3).await;
    std::fs::remove_file(&ballast).unwrap();
    caught_up(&up).await;
    holds(&server, &weir, &facts).await;
    up.terminate();
}

/// Until nothing more fits.
fn fill(path: &std::path::Path) {
    let mut file = std::fs::File::create(path).unwrap();
    while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
}
