//! One consumer for all lanes of a process: is each record fetched once, and does a lane that leaves the shared reading and comes back
//! lose or double anything (P4, P9)?

use std::time::Duration;

use weir_tests::weir::connect;
use weir_tests::{Kafka, Postgres};

use super::{Stream, agrees, on, terminate, until};

/// Everything is in the topics; there is room for one chunk, so that a lane which stands still is in the way at once.
async fn published(name: &str) -> (Postgres, Stream) {
    let (server, kafka) = (Postgres::start(), Kafka::start());
    let weir = on(&kafka).on(&server.url()).with("engine.buffer_bytes=1").with("lanes.metrics.flush_interval_ms=100");
    let stream = Stream::with(kafka, weir, name);
    let publisher = stream.weir.start(&["publish"]);
    stream.import();
    stream.published().await;
    terminate(publisher);
    (server, stream)
}

/// Holds up the read models' commits until it is rolled back.
async fn hold_up(stream: &Stream) -> tokio_postgres::Client {
    let client = connect(&stream.weir.owner_url()).await;
    client.batch_execute("BEGIN; LOCK TABLE learning_session_read_model IN EXCLUSIVE MODE").await.unwrap();
    client
}

/// How far each lane is, over all partitions.
async fn reached(client: &tokio_postgres::Client) -> [i64; 3] {
    let sql = "SELECT coalesce(sum(next_offset) FILTER (WHERE lane = 'history'), 0)::bigint, \
               coalesce(sum(next_offset) FILTER (WHERE lane = 'metrics'), 0)::bigint, \
               coalesce(sum(next_offset) FILTER (WHERE lane = 'read-models'), 0)::bigint FROM ledger WHERE topic <> 'events'";
    let row = client.query_one(sql, &[]).await.unwrap();
    [row.get(0), row.get(1), row.get(2)]
}

/// What a process counts of reading: for all lanes, and for the read models alone.
async fn records_read(api: &str) -> (f64, f64) {
    let metrics = reqwest::get(format!("{api}/metrics")).await.unwrap().text().await.unwrap();
    let of = |labels: &str| {
        let name = format!("weir_records_read_total{{for=\"{labels}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0.0)
    };
    (of("all"), of("read-models"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_stands_still_holds_nobody_up_and_comes_back() {
    let (_server, stream) = published("kafka::tap").await;
    let lock = hold_up(&stream).await;
    let up = stream.weir.up();
    let client = connect(&stream.weir.owner_url()).await;
    let events = stream.facts.total();
    until(&stream.weir, 120, async || {
        let [history, metrics, read_models] = reached(&client).await;
        if history.min(metrics) >= events && read_models < events {
            Ok(())
        } else {
            Err((history, metrics, read_models))
        }
    })
    .await;
    lock.batch_execute("ROLLBACK").await.unwrap();
    super::arrived(&stream.weir, &stream.facts, &up).await;
    let log = stream.weir.log();
    assert!(log.contains("holds up others") && log.contains("shares the reading again"), "{log}");
    stream.facts.hold(&stream.weir, &up).await;
    up.terminate();
    stream.weir.verify();
}

/// Nobody waits for it, so it is not let go of; but the reader pauses after five seconds, with chunks in hand.
#[tokio::test(flavor = "multi_thread")]
async fn a_lane_alone_that_stands_still_for_long_loses_nothing() {
    let (_server, stream) = published("kafka::tap_alone").await;
    let lock = hold_up(&stream).await;
    let lane = stream.weir.start(&["run", "read-models"]);
    tokio::time::sleep(Duration::from_secs(12)).await;
    lock.batch_execute("ROLLBACK").await.unwrap();
    let client = connect(&stream.weir.owner_url()).await;
    until(&stream.weir, 60, async || match reached(&client).await[2] {
        reached if reached >= stream.facts.total() => Ok(()),
        reached => Err(reached),
    })
    .await;
    terminate(lane);
    agrees(&stream.weir, &stream.facts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_record_is_read_once_for_all_lanes_of_a_process() {
    let stream = Stream::new("kafka::shared");
    stream.import();
    let up = stream.weir.up();
    super::arrived(&stream.weir, &stream.facts, &up).await;
    let (all, read_models) = records_read(&up.api).await;
    let events: f64 = i32::try_from(stream.facts.total()).unwrap().into();
    // A lane whose group takes long to assign comes late to what others have begun.
    assert!((all + read_models) / events < 1.5 && all >= events * 0.9, "{all} + {read_models} of {events}");
    up.terminate();
    stream.weir.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_dies_when_a_lane_leaves_the_shared_reading_and_when_it_comes_back() {
    let (_server, stream) = published("kafka::tap_dies").await;
    let lock = hold_up(&stream).await;
    stream.weir.up_until("tap.after_detach").dies();
    // By now the ledgers stand apart: the lane behind reads for itself first, and comes to where the others are.
    lock.batch_execute("ROLLBACK").await.unwrap();
    let lock = hold_up(&stream).await;
    let dying = stream.weir.up_until("tap.after_join");
    tokio::time::sleep(Duration::from_secs(10)).await;
    lock.batch_execute("ROLLBACK").await.unwrap();
    dying.dies();
    agrees(&stream.weir, &stream.facts).await;
}
