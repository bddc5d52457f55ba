//! A lane of a program's own on topics, in two processes that share its partitions.

use weir_tests::weir::try_connect;

use super::{Stream, until};

#[tokio::test]
async fn two_processes_of_ones_own_share_a_lane() {
    let mut stream = Stream::new("kafka::own");
    stream.import();
    stream.weir =
        std::mem::take(&mut stream.weir).program("weir-own-lane").with("lanes.congratulations.records_max=100");
    let mut publisher = stream.weir.start(&["publish"]);
    let run = || stream.weir.start(&["run", "congratulations"]);
    let mut both = [run(), run()];
    until(&stream.weir, 60, async || try_connect(&stream.weir.owner_url()).await.map(|_| ())).await;
    let passed: i64 = stream.facts.progress.values().map(|(_, _, _, passed)| passed).sum();
    let owner = stream.weir.owner().await;
    until(&stream.weir, 60, async || {
        let sql = "SELECT count(*) FROM ledger WHERE lane = 'congratulations' AND next_offset > 0";
        let started: i64 = owner.query_one(sql, &[]).await.unwrap().get(0);
        if started > 0 { Ok(()) } else { Err(started) }
    })
    .await;
    both[0].kill().unwrap();
    both[0].wait().unwrap();
    until(&stream.weir, 120, async || {
        let sql = "SELECT count(*), count(DISTINCT assessment) FROM congratulations";
        let row = owner.query_one(sql, &[]).await.unwrap();
        let found: (i64, i64) = (row.get(0), row.get(1));
        if found == (passed, passed) { Ok(()) } else { Err((found, passed)) }
    })
    .await;
    for child in both.iter_mut().skip(1).chain([&mut publisher]) {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
