//! What fails under the stream: brokers, processes, Postgres, each ending in equal numbers.

use std::process::Child;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use weir_tests::kafka::tool;
use weir_tests::postgres::url_at;
use weir_tests::{Facts, Fixture, Kafka, Postgres, Proxy, seed};

use super::{
    GROUP_TOOL, ROWS, Stream, agrees, apply_topics, arrived, kill, on, session_of, sessions_are, signal, terminate,
    until,
};

async fn pause(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// Three brokers, of which two must have what is acknowledged: one is killed under everything, later another.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_three_brokers_is_killed() {
    let mut stream = Stream::on(Kafka::start_cluster(3), "kafka::three");
    let described = stream.tool(super::TOPIC_TOOL, &["--describe", "--topic", "user_events"]);
    assert!(described.contains("ReplicationFactor: 3") && described.contains("min.insync.replicas=2"), "{described}");
    let (lanes, published, mut import) = (stream.run_lanes(), stream.weir.start(&["publish"]), stream.start_import());
    for broker in [1, 2] {
        pause(4).await;
        stream.kafka.kill_broker(broker);
        pause(8).await;
        stream.kafka.start_broker(broker);
        stream.kafka.wait();
    }
    assert!(import.wait().unwrap().success(), "{}", stream.weir.log());
    terminate(published);
    terminate(lanes);
    stream.agrees().await;
}

/// Nobody answers for a minute when everything starts; then the broker comes.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_is_down_for_a_minute_at_the_start() {
    let mut stream = Stream::new("kafka::late");
    stream.kafka.kill_broker(0);
    let up = stream.weir.up();
    stream.import();
    pause(60).await;
    stream.kafka.start_broker(0);
    stream.kafka.wait();
    arrived(&stream.weir, &stream.facts, &up).await;
    stream.facts.hold(&stream.weir, &up).await;
    stream.weir.verify();
    assert_eq!(stream.weir.json(&["dead-letters", "list"]), json!([]), "absence is no record's fault");
    up.terminate();
    stream.weir.verify();
}

/// One publishes, the other stands by; the first is stopped, and goes on after the second took over.
#[tokio::test(flavor = "multi_thread")]
async fn two_publishers_with_one_id() {
    let stream = Stream::new("kafka::publishers");
    let first = stream.weir.start(&["publish"]);
    let lanes = stream.run_lanes();
    let mut import = stream.start_import();
    pause(2).await;
    let second = stream.weir.start(&["publish"]);
    pause(2).await;
    signal(&first, Signal::STOP);
    // Past the 5 s after which silence counts as an end.
    pause(9).await;
    signal(&first, Signal::CONT);
    pause(3).await;
    kill(second);
    assert!(import.wait().unwrap().success(), "{}", stream.weir.log());
    stream.agrees_beside(first, lanes).await;
}

/// One hangs while it reads how far publishing is, until another has published everything. What it read first is older than what it
/// reads then, which is no reason to end.
#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_hangs_while_it_reads_the_progress() {
    let stream = Stream::new("kafka::hanging_publisher");
    stream.import();
    let mut first = stream.weir.command(&["publish"]);
    let log = std::fs::File::create(stream.weir.path().with_extension("first.log")).unwrap();
    let first = first.env("WEIR_FAILPOINT", "publisher.between_progress:1:stop").stdout(log.try_clone().unwrap());
    let mut first = first.stderr(log).spawn().unwrap();
    pause(4).await;
    let second = stream.weir.start(&["publish"]);
    stream.published().await;
    signal(&first, Signal::CONT);
    pause(3).await;
    assert!(first.try_wait().unwrap().is_none(), "it stands by");
    terminate(second);
    let lanes = stream.run_lanes();
    stream.agrees_beside(first, lanes).await;
}

impl Stream {
    /// [`Stream::agrees`], once this publisher has published everything.
    async fn agrees_beside(&self, publisher: Child, lanes: Child) {
        self.published().await;
        terminate(publisher);
        terminate(lanes);
        self.agrees().await;
    }
}

/// Each process dies while the group hands its partitions out.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_dies_while_partitions_are_handed_over() {
    let stream = Stream::new("kafka::rebalance");
    stream.import();
    let published = stream.weir.start(&["publish"]);
    stream.weir.dies_at("rebalance.assigned", &["run", "history"]);
    for failpoint in ["rebalance.revoked", "rebalance.handed_over"] {
        let log = stream.weir.path().with_extension(failpoint);
        let log = std::fs::File::create(log).unwrap();
        let mut first = stream.weir.command(&["run", "read-models", "metrics", "history"]);
        let first = first.env("WEIR_FAILPOINT", failpoint).stdout(log.try_clone().unwrap()).stderr(log);
        let mut first = first.spawn().unwrap();
        pause(8).await;
        // Takes half of the partitions, which the first has to give.
        let second = stream.run_lanes();
        let status = first.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{}", stream.weir.log());
        terminate(second);
    }
    terminate(published);
    stream.agrees().await;
}

/// Stopped between the ledger's new epoch and its first record, for longer than its session.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_is_stopped_inside_its_claim() {
    let stream = Stream::new("kafka::claim");
    stream.import();
    let published = stream.weir.start(&["publish"]);
    let mut stopped = Vec::new();
    for failpoint in ["claim.after_ledger:1:stop", "claim.after_history_fence:1:stop"] {
        let mut command = stream.weir.command(&["run", "read-models", "metrics", "history"]);
        let log = std::fs::File::create(stream.weir.path().with_extension(failpoint.replace(':', "_"))).unwrap();
        let child = command.env("WEIR_FAILPOINT", failpoint).stdout(log.try_clone().unwrap()).stderr(log);
        stopped.push(child.spawn().unwrap());
        pause(4).await;
    }
    let lanes = stream.run_lanes();
    pause(14).await;
    stopped.iter().for_each(|child| signal(child, Signal::CONT));
    pause(5).await;
    stopped.into_iter().for_each(terminate);
    terminate(published);
    terminate(lanes);
    stream.agrees().await;
}

/// Three processes, each replaced in turn; then one; then three again.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_from_one_to_three_processes_and_back() {
    let stream = Stream::new("kafka::rolling");
    let published = stream.weir.start(&["publish"]);
    let mut import = stream.start_import();
    let mut running: Vec<Child> = vec![stream.run_lanes()];
    pause(3).await;
    running.extend([stream.run_lanes(), stream.run_lanes()]);
    pause(3).await;
    for _ in 0..3 {
        terminate(running.remove(0));
        running.push(stream.run_lanes());
        pause(2).await;
    }
    running.drain(1..).for_each(terminate);
    pause(2).await;
    assert!(import.wait().unwrap().success(), "{}", stream.weir.log());
    terminate(published);
    running.into_iter().for_each(terminate);
    stream.agrees().await;
}

/// Postgres loses replies to commits, and is away while partitions are claimed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_loses_replies_and_is_down_during_a_claim() {
    let kafka = Kafka::start();
    let server = Postgres::start();
    let proxy = Proxy::before(server.port()).await;
    let weir = on(&kafka).on(&url_at(proxy.port()));
    let (fixture, name) = (Fixture::new(ROWS, seed("kafka::postgres")), "kafka::postgres");
    println!("{name}");
    let facts = Facts::of_input(fixture.path());
    apply_topics(&weir);
    // Straight, so that only what is tested here goes through the proxy.
    let direct = on(&kafka).on(&server.url());
    direct.ok(&["import", "oulad", fixture.arg()]);
    let published = direct.start(&["publish"]);
    let mut first = weir.start(&["run", "read-models", "metrics", "history"]);
    proxy.lose_replies_to("COMMIT", 15);
    until(&weir, 90, async || if proxy.lost() >= 10 { Ok(()) } else { Err(proxy.lost()) }).await;
    proxy.lose_replies_to("", 0);
    let second = weir.start(&["run", "read-models", "metrics", "history"]);
    pause(6).await;
    proxy.go_away();
    // Its partitions go to the second, whose claims have to wait for Postgres.
    first.kill().unwrap();
    first.wait().unwrap();
    pause(15).await;
    proxy.come_back();
    pause(3).await;
    terminate(second);
    terminate(published);
    let up = weir.up();
    arrived(&weir, &facts, &up).await;
    facts.hold(&weir, &up).await;
    weir.verify();
    up.terminate();
}

/// The group is gone with its offsets, which nobody needs; and one partition has nearly everything.
#[tokio::test(flavor = "multi_thread")]
async fn the_group_is_deleted_and_one_partition_is_busy() {
    let stream = Stream::new("kafka::group");
    let lanes = stream.run_lanes();
    let produce = |partition: &str, from: usize, to: usize| {
        let lines: Vec<String> = (from..to).map(|n| session_of(&format!("busy-{n}")).to_string()).collect();
        super::kcat(&stream.kafka, &["-P", "-t", "learning_events", "-p", partition], &lines.join("\n"));
    };
    produce("3", 0, 2000);
    for partition in 4..12 {
        produce(&partition.to_string(), 2000 + partition * 20, 2020 + partition * 20);
    }
    sessions_are(&stream.weir, 2160).await;
    // Offset, end and lag as Kafka shows them; the group's offsets come a moment after the ledger's.
    until(&stream.weir, 60, async || {
        let described = stream.tool(GROUP_TOOL, &["--describe", "--group", "weir-history"]);
        let busy = described.lines().find(|line| line.contains("learning_events") && line.contains(" 3 "));
        let fields: Vec<&str> = busy.unwrap_or_default().split_whitespace().collect();
        if fields.get(3..6) == Some(&["2000", "2000", "0"]) { Ok(()) } else { Err(described) }
    })
    .await;
    terminate(lanes);
    for lane in ["read-models", "metrics", "history"] {
        let said = stream.tool(GROUP_TOOL, &["--delete", "--group", &format!("weir-{lane}")]);
        assert!(said.contains("successful"), "{said}");
    }
    let lanes = stream.run_lanes();
    produce("3", 3000, 3010);
    sessions_are(&stream.weir, 2170).await;
    stream.weir.verify();
    terminate(lanes);
    stream.weir.verify();
}

/// The broker is killed while everything runs, and is away for a while.
#[tokio::test(flavor = "multi_thread")]
async fn the_broker_is_killed_under_publisher_and_lanes() {
    let mut kafka = Kafka::start();
    let weir = on(&kafka);
    let fixture = Fixture::new(ROWS, seed("kafka::broker"));
    let facts = Facts::of_input(fixture.path());
    apply_topics(&weir);
    let up = weir.up();
    let mut import = weir.start(&["import", "oulad", fixture.arg()]);
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        kafka.kill_broker(0);
        tokio::time::sleep(Duration::from_secs(5)).await;
        kafka.start_broker(0);
        kafka.wait();
    }
    assert!(import.wait().unwrap().success(), "{}", weir.log());
    arrived(&weir, &facts, &up).await;
    facts.hold(&weir, &up).await;
    weir.verify();
    let letters = weir.json(&["dead-letters", "list"]);
    assert_eq!(letters, json!([]), "absence is no record's fault");
    up.terminate();
    weir.verify();
}

/// Nothing is published twice when the topic of the publisher's progress is lost: it stops, and the cure that it names works.
#[tokio::test(flavor = "multi_thread")]
async fn the_publishers_progress_topic_is_deleted() {
    let kafka = Kafka::start();
    let weir = on(&kafka);
    let fixture = Fixture::new(ROWS, seed("kafka::progress"));
    let facts = Facts::of_input(fixture.path());
    apply_topics(&weir);
    weir.ok(&["import", "oulad", fixture.arg()]);
    weir.ok(&["up", "--until-caught-up"]);
    let deleted = tool("org.apache.kafka.tools.TopicCommand")
        .args(["--bootstrap-server", &kafka.brokers(), "--delete", "--topic", "weir_progress"])
        .output()
        .unwrap();
    assert!(deleted.status.success(), "{}", String::from_utf8_lossy(&deleted.stdout));
    tokio::time::sleep(Duration::from_secs(2)).await;
    apply_topics(&weir);
    let refused = weir.run(&["publish"]);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && words.contains("weir publish --recover"), "{words}");
    weir.ok(&["publish", "--recover"]);
    agrees(&weir, &facts).await;
}
