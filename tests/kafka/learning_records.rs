//! The real learning records through three brokers and two processes, each killed on the way, and ClickHouse too.

use std::io::Write;
use std::time::Duration;

use weir_tests::{ClickHouse, Facts, Kafka, Weir};

use crate::oulad::rows;

use super::{apply_topics, arrived, kill, terminate};

#[tokio::test(flavor = "multi_thread")]
async fn the_real_data_set_through_three_brokers_and_two_processes() {
    let Some(dir) = std::env::var_os("WEIR_OULAD").map(std::path::PathBuf::from) else {
        let words = "NOT RUN: kafka::learning_records; WEIR_OULAD=DIR names the directory of the OULAD files";
        writeln!(std::io::stderr(), "{words}").unwrap();
        return;
    };
    let facts = Facts::of_input(&dir);
    let (kafka, mut server) = (Kafka::start_cluster(3), ClickHouse::start());
    // As it comes, but for a session that ends sooner: who takes over from one that was killed waits for that.
    let weir = Weir::new()
        .with(&format!("kafka.brokers={}", kafka.brokers()))
        .with("kafka.consumer.session.timeout.ms=6000")
        .with("lanes.history.flush_interval_ms=5000");
    let weir = weir.with_all(server.settings());
    apply_topics(&weir);
    let run = || weir.start(&["run", "read-models", "metrics", "history", "clickhouse"]);
    let (first, second) = (run(), run());
    let published = weir.start(&["publish"]);
    let mut import = weir.start(&["import", "oulad", dir.to_str().unwrap()]);
    rows(&server, 20_000).await;
    server.kill();
    tokio::time::sleep(Duration::from_secs(5)).await;
    server.start_again();
    tokio::time::sleep(Duration::from_secs(10)).await;
    kill(first);
    let first = run();
    tokio::time::sleep(Duration::from_secs(15)).await;
    kill(second);
    let second = run();
    assert!(import.wait().unwrap().success(), "{}", weir.log());
    assert!(weir.log().contains("waiting for what this lane needs lane=\"clickhouse\""), "{}", weir.log());
    terminate(first);
    let up = weir.up();
    arrived(&weir, &facts, &up).await;
    facts.hold(&weir, &up).await;
    terminate(published);
    terminate(second);
    super::clickhouse::has_all(&server, &weir, facts.total()).await;
    up.terminate();
    let mean = weir.json(&[
        "sql",
        "SELECT round(avg(score), 3) AS mean FROM assessment_completed \
        WHERE user_id LIKE '%-BBB-%' AND json_get_str(extra, 'assessmentType') = 'TMA'",
    ]);
    assert_eq!(mean[0]["mean"], 70.007);
    crate::clickhouse::holds(&server, &weir, &facts).await;
    let mean = "SELECT round(avg(score), 3) FROM weir.assessment_completed \
        WHERE user_id LIKE '%-BBB-%' AND JSONExtractString(extra, 'assessmentType') = 'TMA'";
    assert_eq!(server.sql(mean).await, "70.007");
}
