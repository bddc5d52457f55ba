//! Topics that let go of records while these are read again, by a comparison or by a job.

use rustix::process::Signal;
use serde_json::Value;
use weir_model::event_type::TOPICS;
use weir_tests::ClickHouse;

use super::rebuild::{produce, switched, trim};
use super::{Stream, session_of, signal};
use crate::standing_still::stopped;

const AT: &str = "reading.before_topics";

/// Some records of another service, which no lane has read.
fn more(stream: &Stream, name: &str) {
    let events: Vec<Value> = (0..5).map(|n| session_of(&format!("{name}-{n}"))).collect();
    produce(stream, "3", &events);
}

/// Runs a command from which topics let go of everything just before it reads them: whether it succeeded, and its words.
async fn loses_topics(stream: &Stream, args: &[&str]) -> (bool, String) {
    let weir = &stream.weir;
    let child = stopped(weir, args, AT).await;
    trim(stream, &TOPICS);
    let logged = weir.log().len();
    signal(&child, Signal::CONT);
    let output = child.wait_with_output().unwrap();
    let runs = weir.json(&["jobs", "history", "--limit", "1"]);
    let of_run = runs.get(0).map(|run| weir.json(&["jobs", "show", &run["id"].to_string()]).to_string());
    let words = [&String::from_utf8_lossy(&output.stdout), &weir.log()[logged..], &of_run.unwrap_or_default()].concat();
    (output.status.success(), words)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_let_go_of_meanwhile_is_not_missed() {
    let server = ClickHouse::start();
    let stream = switched(&server.settings()).await;
    let weir = &stream.weir;
    weir.ok(&["up", "--until-caught-up"]);
    // Nothing was published since the switch, and nothing has to be.
    weir.ok(&["verify"]);
    let rows = || server.sql("SELECT count(), sum(cityHash64(tuple(* EXCEPT payload))) FROM weir.events");

    // Nothing of it is trimmed at first, so nothing is read that could stand in.
    let before = rows().await;
    server.sql("TRUNCATE TABLE weir.events_stored SYNC").await;
    let (is_ok, words) = loses_topics(&stream, &["backfill", "clickhouse", "--source", "kafka"]).await;
    assert!(is_ok && words.contains("were removed while it was read"), "{words}");
    for source in ["events", "history"] {
        weir.ok(&["backfill", "clickhouse", "--source", source]);
    }
    assert_eq!(rows().await, before);
    weir.verify();

    // Read again, or refused with nothing changed.
    let jobs: [(&[&str], bool); 4] = [
        (&["verify"], true),
        (&["rebuild", "read-models"], true),
        (&["rebuild", "metrics", "--accept-reset"], true),
        (&["rebuild", "history"], false),
    ];
    for (n, (args, goes_through)) in jobs.into_iter().enumerate() {
        more(&stream, &format!("more-{n}"));
        weir.ok(&["up", "--until-caught-up"]);
        let (is_ok, words) = loses_topics(&stream, args).await;
        assert_eq!(is_ok, goes_through, "{args:?}: {words}");
        assert!(goes_through || words.contains("nothing was changed"), "{args:?}: {words}");
        weir.verify();
    }
    weir.ok(&["rebuild", "history"]);
    weir.verify();

    // What no lane has read must not be stood in for: a lane that has fetched it comes to it.
    more(&stream, "unread");
    let (is_ok, words) = loses_topics(&stream, &["backfill", "clickhouse", "--source", "events"]).await;
    assert!(!is_ok && words.contains("records that it has not read are gone"), "{words}");
    let jobs: [&[&str]; 5] = [
        &["backfill", "clickhouse", "--source", "events"],
        &["backfill", "history"],
        &["rebuild", "read-models"],
        &["rebuild", "metrics"],
        &["rebuild", "history"],
    ];
    for args in jobs {
        let refused = weir.run(args);
        let words = String::from_utf8_lossy(&refused.stderr);
        assert!(refused.status.code() == Some(1) && words.contains("Decide about them first"), "{args:?}: {words}");
    }
    // As the words say.
    for lane in ["read-models", "metrics", "history", "clickhouse"] {
        weir.ok(&[
            "ledger",
            "reset",
            lane,
            "--topic",
            "learning_events",
            "--partition",
            "3",
            "--to",
            "earliest",
            "--yes",
        ]);
    }
    for args in jobs {
        weir.ok(args);
    }
    weir.ok(&["up", "--until-caught-up"]);
    weir.verify();
}
