//! Processes that are stopped and go on, and clocks that go back.

use std::time::Duration;

use weir_tests::{Postgres, Weir};

use super::{sessions_are, start_session_at_last};

/// Two processes with lanes of the same names on one database and one history. The first is stopped in the middle of its
/// work and goes on when the second has long taken over (P6).
#[tokio::test]
async fn an_owner_that_was_stopped_goes_on_after_another_took_over() {
    let server = Postgres::start();
    let shared = tempfile::tempdir().unwrap();
    let history = format!("history.url=file://{}/history", shared.path().display());
    let weir = || Weir::new().on(&server.url()).with(&history);
    let (first, second) = (weir(), weir());
    let old = first.up();
    let token = old.token("default", "command,read");
    let mut sent = 0;
    let mut send = async |up: &weir_tests::Up<'_>, n: usize| {
        for _ in 0..n {
            start_session_at_last(up, &token, &format!("session-{sent}")).await;
            sent += 1;
        }
    };
    for _ in 0..3 {
        send(&old, 20).await;
        // Wherever it stands: with a batch in hand, in a transaction, before a commit of history.
        old.pause();
        let new = second.up();
        send(&new, 20).await;
        new.lanes_caught_up(3).await;
        old.go_on();
        // Both believe to own the lanes, and take them from each other.
        for _ in 0..10 {
            send(&old, 2).await;
            send(&new, 2).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        new.kill();
    }
    old.caught_up().await;
    sessions_are(&first, 3 * 80).await;
    assert!(first.log().contains("claiming again"), "the older owner was fenced: {}", first.log());
    let epochs = first.json(&["ledger", "show"]);
    assert!(epochs.as_array().unwrap().iter().all(|row| row["epoch"].as_i64().unwrap() > 3), "{epochs}");
    old.terminate();
    first.verify();
}

/// The clocks of weir and of Postgres are one file, which the test sets back an hour (Debian's faketime).
#[tokio::test]
async fn the_clock_steps_back_an_hour() {
    let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    assert!(std::path::Path::new(library).exists(), "install Debian's faketime: this test sets clocks back");
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(dir.path(), None, None).unwrap();
    let clock = dir.path().join("clock");
    let set = |offset: &str| std::fs::write(&clock, format!("{offset}\n")).unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    set("+0");
    let faked = [
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let server = Postgres::start_with_environment(&faked);
    let mut weir = Weir::new().on(&server.url());
    for (name, value) in faked {
        weir = weir.environment(name, value);
    }
    let up = weir.up();
    let token = up.token("default", "command,read");
    let hour = |n: i64| format!("SELECT extract(epoch FROM clock_timestamp() - '{n} s'::interval)::bigint");
    let now = async || weir.owner().await.query_one(&hour(0), &[]).await.unwrap().get::<_, i64>(0);
    for n in 0..20 {
        start_session_at_last(&up, &token, &format!("before-{n}")).await;
    }
    let before = now().await;
    set("-1h");
    let after = now().await;
    assert!(before - after > 3500, "the clock went back: {before}, {after}");
    for n in 0..20 {
        start_session_at_last(&up, &token, &format!("after-{n}")).await;
    }
    up.caught_up().await;
    sessions_are(&weir, 40).await;
    // Positions go on, whatever the clock says.
    let sql = "SELECT count(*) FROM (SELECT recorded_at < lag(recorded_at) OVER (ORDER BY id) AS back FROM events) e WHERE back";
    assert_eq!(weir.owner().await.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 1);
    // What was asked for before the step is answered after it.
    assert_eq!(start_session_at_last(&up, &token, "before-0").await["repeated"], true);
    up.terminate();
    weir.verify();
}
