//! Disks that are full or read-only.

use std::time::{Duration, Instant};

use weir_tests::{Facts, Fixture, Mount, Postgres, Weir, seed};

use super::{sessions_are, start_session_at_last, trouble_of};

#[tokio::test]
async fn disk_full_for_history() {
    let weir = Weir::new();
    weir.ok(&["status"]);
    let Some(disk) = Mount::on(&weir.path().join("history"), "600k", "faults::disks::disk_full_for_history") else {
        return;
    };
    let fixture = Fixture::new(20_000, seed("disk_full_for_history"));
    let facts = Facts::of_input(fixture.path());
    weir.ok(&["import", "oulad", fixture.arg()]);
    let up = weir.up();
    trouble_of(&up, "history", "No space left on device").await;
    // The others do not wait for it.
    up.lanes_caught_up(2).await;
    disk.remount("size=200m");
    up.caught_up().await;
    facts.hold(&weir, &up).await;
    up.terminate();
    weir.verify();
}

/// Its tables cannot grow; its log has a disk of its own, as it should, for without that Postgres itself gives up.
#[tokio::test]
async fn disk_full_for_postgres() {
    let (small, log) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let name = "faults::disks::disk_full_for_postgres";
    let Some(disk) = Mount::on(small.path(), "64m", name) else { return };
    let server = Postgres::start_with_log_in(small.path(), log.path());
    let weir = Weir::new().on(&server.url()).with("append.give_up_after_ms=200");
    let up = weir.up();
    let token = up.token("default", "command,read");
    for n in 0..20 {
        start_session_at_last(&up, &token, &format!("before-{n}")).await;
    }
    let ballast = small.path().join("ballast");
    // As much as fits.
    let mut filled = std::process::Command::new("dd");
    filled.args(["if=/dev/zero", "bs=8k"]).arg(format!("of={}", ballast.display())).output().unwrap();
    let refused = async {
        for n in 0_u32.. {
            let post = reqwest::Client::new().post(format!("{}/v1/commands/StartLearningSession", up.api));
            let mut data = weir_model::wire::samples::one(weir_model::EventType::LearningSessionStarted);
            data["sessionId"] = serde_json::json!(format!("during-{n}"));
            data["padding"] = serde_json::json!("x".repeat(4000));
            let answer = post
                .bearer_auth(&token)
                .header("idempotency-key", format!("during-{n}"))
                .json(&data)
                .send()
                .await
                .unwrap();
            if answer.status() != 201 {
                return (n, answer.status().as_u16());
            }
        }
        unreachable!("the disk is full")
    };
    let (acknowledged, status) = tokio::time::timeout(Duration::from_secs(60), refused).await.unwrap();
    assert_eq!(status, 503, "{}", weir.log());
    std::fs::remove_file(&ballast).unwrap();
    disk.remount("size=256m");
    start_session_at_last(&up, &token, "after").await;
    up.caught_up().await;
    // The refused one may be there, under its key, or not; nothing else.
    let stored = weir.owner().await.query_one("SELECT count(*) FROM events", &[]).await.unwrap().get::<_, i64>(0);
    let expected = 20 + i64::from(acknowledged) + 1;
    assert!(stored == expected || stored == expected + 1, "{stored}, not {expected}");
    sessions_are(&weir, stored).await;
    let letters = weir.json(&["dead-letters", "list"]);
    assert_eq!(letters.as_array().unwrap().len(), 0, "a full disk is no record's fault: {letters}");
    up.terminate();
    weir.verify();
}

#[tokio::test]
async fn disk_full_for_the_spill_of_sorts() {
    let weir = Weir::new();
    weir.ok(&["status"]);
    let spill = weir.path().join("spill");
    let Some(disk) = Mount::on(&spill, "300k", "faults::disks::disk_full_for_the_spill_of_sorts") else { return };
    let fixture = Fixture::new(60_000, seed("disk_full_for_the_spill_of_sorts"));
    let facts = Facts::of_input(fixture.path());
    let full = |args: &[&str]| {
        let output = weir.run(args);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && words.contains("No space left on device"), "{words}");
        assert!(words.contains("spill"), "which disk? {words}");
    };
    weir.ok(&["import", "oulad", fixture.arg()]);
    let up = weir.up();
    up.caught_up().await;
    facts.hold(&weir, &up).await;
    full(&["verify"]);
    disk.remount("size=500m");
    weir.verify();
    up.terminate();
    weir.verify();
}

#[tokio::test]
async fn a_read_only_data_directory() {
    let weir = Weir::new();
    let parent = weir.path().parent().unwrap().to_owned();
    let Some(disk) = Mount::on(&parent, "300m", "faults::disks::a_read_only_data_directory") else { return };
    let up = weir.up();
    let token = up.token("default", "command,read");
    start_session_at_last(&up, &token, "before").await;
    up.caught_up().await;
    up.terminate();
    // A process that is just ending may hold it writable for a moment.
    let started = Instant::now();
    while disk.try_remount("ro").is_err() {
        assert!(started.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for command in [&["up"][..], &["status"], &["verify"]] {
        let output = weir.run(command);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{words}");
        assert!(words.contains("Read-only file system") && words.contains(weir.path().to_str().unwrap()), "{words}");
    }
    disk.remount("rw");
    let up = weir.up();
    start_session_at_last(&up, &token, "after").await;
    up.caught_up().await;
    sessions_are(&weir, 2).await;
    up.terminate();
    weir.verify();
}
