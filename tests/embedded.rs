//! Does the whole path work as a newcomer uses it?

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use weir_tests::Weir;
use weir_tests::oracle::history_counts;

#[tokio::test]
async fn the_demo_drives_all_ten_event_types_and_ends_all_equal() {
    let weir = Weir::new();
    let table = weir.json(&["demo", "--events", "1500", "--rate", "1500"]);
    let counts = history_counts(&table);
    assert_eq!((counts.len(), counts.values().sum::<i64>()), (10, 1500), "{counts:?}");
    assert!(counts.values().all(|n| *n > 0), "{counts:?}");
    assert!(table.as_array().unwrap().iter().all(|row| row["equal"] == true), "{table}");
    // And again on the same data directory. What it says to try works as it is pasted.
    let again = weir.run(&["demo", "--events", "500", "--rate", "1500"]);
    let words = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(again.status.success(), "{words}");
    let lines: Vec<&str> = words.lines().skip_while(|line| !line.starts_with("worth trying")).skip(1).collect();
    assert_eq!(lines.len(), 3, "{words}");
    for line in lines {
        let tried = std::process::Command::new("sh").args(["-c", line]).output().unwrap();
        assert!(
            tried.status.success() && !tried.stdout.is_empty(),
            "{line}: {}",
            String::from_utf8_lossy(&tried.stderr)
        );
    }
    assert_eq!(history_counts(&weir.verify()).values().sum::<i64>(), 2000);
}

#[tokio::test]
async fn a_killed_demo_goes_on_and_every_number_agrees() {
    let weir = Weir::new();
    let mut demo = weir.start(&["demo", "--rate", "800"]);
    weir.until("SELECT count(*) > 1000 FROM events").await;
    demo.kill().unwrap();
    demo.wait().unwrap();
    weir.ok(&["demo", "--events", "500", "--rate", "1500"]);
    assert!(history_counts(&weir.verify()).values().sum::<i64>() > 1000, "the killed run had appended something");
}

#[tokio::test]
async fn one_instance_per_data_directory() {
    let weir = Weir::new();
    let up = weir.up();
    let second = weir.run(&["up"]);
    let words = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1));
    assert!(words.contains(&up.api) && words.contains("is in use"), "{words}");
    // The others attach.
    assert_eq!(up.status()["running"], true);
    up.terminate();
    let status = weir.json(&["status"]);
    assert_eq!((&status["running"], &status["addresses"]["api"]), (&json!(false), &json!(null)));
    assert!(!weir.path().join("postgres/postmaster.pid").exists(), "the last user stops the server");
}

#[tokio::test]
async fn an_orphaned_server_is_adopted() {
    let weir = Weir::new();
    let up = weir.up();
    let pid = || {
        std::fs::read_to_string(weir.path().join("postgres/postmaster.pid")).unwrap().lines().next().unwrap().to_owned()
    };
    let before = pid();
    up.kill();
    let up = weir.up();
    assert_eq!(pid(), before);
    up.terminate();
    assert!(!weir.path().join("postgres/postmaster.pid").exists());
}

/// Somebody takes the port while the server is dead. Who runs already connects to that port only, so a command that comes before
/// the server is up again must not give it another one.
#[tokio::test]
async fn a_port_taken_while_the_server_is_dead_is_waited_for() {
    let weir = Weir::new();
    weir.ok(&["demo", "--events", "20", "--rate", "1000"]);
    let up = weir.up();
    let before = weir.owner_url();
    let secrets = std::fs::read_to_string(weir.path().join("secrets.json")).unwrap();
    let port = serde_json::from_str::<serde_json::Value>(&secrets).unwrap()["port"].as_u64().unwrap();
    // It sees that its server is dead, and is stopped before it can start it again.
    let held = weir.hold_server_lock();
    let pid_file = std::fs::read_to_string(weir.path().join("postgres/postmaster.pid")).unwrap();
    let process = format!("/proc/{}", pid_file.lines().next().unwrap());
    assert!(weir.kill_postgres());
    let started = Instant::now();
    while Path::new(&process).exists() {
        assert!(started.elapsed() < Duration::from_secs(60), "{}", weir.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    up.pause();
    let taken = std::net::TcpListener::bind(("127.0.0.1", u16::try_from(port).unwrap())).unwrap();
    let mut status = weir.start(&["status"]);
    drop(held);
    let tried =
        || std::fs::read_to_string(weir.path().join("postgres.log")).unwrap().contains("Address already in use");
    let started = Instant::now();
    while !tried() {
        assert!(started.elapsed() < Duration::from_secs(30), "{}", weir.log());
        assert!(status.try_wait().unwrap().is_none(), "{}", weir.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Long enough for it to have decided.
    tokio::time::sleep(Duration::from_secs(2)).await;
    drop(taken);
    // It answers, and says that lanes of the process which is stopped here wait, or that it says nothing.
    let code = status.wait().unwrap().code();
    assert!(code == Some(0) || (code == Some(1) && weir.log().contains("not everything is well")), "{}", weir.log());
    assert_eq!(weir.owner_url(), before);
    up.go_on();
    up.caught_up().await;
    up.terminate();
    weir.verify();
}

#[tokio::test]
async fn a_foreign_directory_is_refused_and_left_alone() {
    let weir = Weir::new();
    std::fs::create_dir(weir.path()).unwrap();
    std::fs::write(weir.path().join("thesis.txt"), "years of work").unwrap();
    for args in [&["up"][..], &["verify"], &["status"], &["sql", "SELECT 1"], &["demo", "--events", "1"]] {
        let output = weir.run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("thesis.txt"), "{args:?}");
    }
    assert_eq!(std::fs::read_dir(weir.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_lost_cluster_is_not_replaced_by_an_empty_one() {
    let weir = Weir::new();
    weir.ok(&["demo", "--events", "20", "--rate", "1000"]);
    let (cluster, aside) = (weir.path().join("postgres"), weir.path().join("aside"));
    std::fs::rename(&cluster, &aside).unwrap();
    let refused = |what: &str| {
        let output = weir.run(&["up", "--until-caught-up"]);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && words.contains(what), "{words}");
    };
    refused("it is missing");
    std::fs::create_dir(&cluster).unwrap();
    refused("no PG_VERSION");
    std::fs::remove_dir(&cluster).unwrap();
    std::fs::rename(&aside, &cluster).unwrap();
    weir.verify();
}

#[tokio::test]
async fn bad_sql_prints_the_position() {
    let weir = Weir::new();
    let output = weir.run(&["sql", "SELECT * FROM events WHERE\n  scoer > 3"]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains("scoer") && words.contains("(line 2, column 3)"), "{words}");
    // A name that is nearly right is taken for a slip.
    for (query, meant) in [
        ("SELECT * FROM evnts", "did you mean `events`"),
        ("SELECT evnt_type FROM events", "did you mean 'events.event_type'"),
    ] {
        let output = weir.run(&["sql", query]);
        let words = String::from_utf8_lossy(&output.stderr).to_lowercase();
        assert!(output.status.code() == Some(1) && words.contains(meant), "{words}");
    }
    let output = weir.run(&["sql", "SELEC 1"]);
    let words = String::from_utf8_lossy(&output.stderr).to_lowercase();
    assert!(output.status.code() == Some(1) && words.contains("line: 1") && words.contains("column: 1"), "{words}");
}

#[tokio::test]
async fn views_exist_before_there_is_any_event() {
    let weir = Weir::new();
    let rows = weir.json(&["sql", "SELECT count(*) AS n FROM assessment_completed WHERE score > 3"]);
    assert_eq!(rows, json!([{"n": 0}]));
    assert_eq!(weir.ok(&["sql", "SELECT 1 AS a, 'x,y' AS b", "--format", "csv"]), "a,b\n1,\"x,y\"\n");
}
