//! One lane of four cannot commit for a minute, in the middle of a backlog: how fast are the others meanwhile, and while it catches up? (P9.)

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio_postgres::Client;
use weir_tests::weir::connect;

use crate::all_lanes::{Stage, high_water_mark, stop};
use crate::fill::runtime;
use crate::measure::{round, row};

/// So many, unless `WEIR_BENCH_EVENTS` says otherwise: the others must not come to the end while the lane is held up.
const EVENTS: i64 = 8_000_000;

const BEFORE: Duration = Duration::from_secs(20);
const HELD_UP: Duration = Duration::from_secs(60);
const AFTER: Duration = Duration::from_secs(60);

/// Before the first look: starting is over, and each lane has its tables.
const WARM_UP: i64 = 200_000;

const LANE: &str = "read-models";

type Places = BTreeMap<String, i64>;

async fn places(client: &Client) -> Places {
    let rows = client.query("SELECT lane, max(next_offset) FROM ledger GROUP BY lane", &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get::<_, Option<i64>>(1).unwrap_or(0))).collect()
}

/// Events a second of each lane during some time.
async fn rates(client: &Client, time: Duration) -> BTreeMap<String, f64> {
    let (before, started) = (places(client).await, Instant::now());
    tokio::time::sleep(time).await;
    let (after, seconds) = (places(client).await, started.elapsed().as_secs_f64());
    after
        .into_iter()
        .map(|(lane, at)| (lane.clone(), (at - before.get(&lane).copied().unwrap_or(0)) as f64 / seconds))
        .collect()
}

pub(crate) fn run() {
    let events = crate::fill::events_or(EVENTS);
    let stage = Stage::start();
    let url = stage.postgres.url();
    runtime().block_on(async {
        stage.fill(events).await;
        let mut weir = stage.command(&["up"]).spawn().unwrap();
        let (client, mut holder) = (connect(&url).await, connect(&url).await);
        while places(&client).await.len() < 4 || places(&client).await.values().any(|at| *at < WARM_UP) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let before = rates(&client, BEFORE).await;
        let memory = high_water_mark(weir.id());
        let lock = holder.transaction().await.unwrap();
        lock.batch_execute("LOCK TABLE assessment_results IN EXCLUSIVE MODE").await.unwrap();
        let meanwhile = rates(&client, HELD_UP).await;
        lock.rollback().await.unwrap();
        let after = rates(&client, AFTER).await;
        let grown = high_water_mark(weir.id());
        let ends = places(&client).await;
        stop(&mut weir);
        for (lane, speed) in before.iter().filter(|(lane, _)| *lane != LANE) {
            let end = if ends[lane] > events { " (it came to the end: more events are needed)" } else { "" };
            row(
                &format!(
                    "the lane {lane}, while {LANE} cannot commit for {} s, and then catches up{end}",
                    HELD_UP.as_secs()
                ),
                &format!("{} and {} events/s", round(meanwhile[lane]), round(after[lane])),
                &format!("{} events/s before", round(*speed)),
                &format!("{:.2}; {:.2}", meanwhile[lane] / speed, after[lane] / speed),
                "≥ 0.97; ≥ 0.8",
            );
        }
        row(
            &format!("the lane {LANE}: before, and catching up"),
            &format!("{} events/s, {} MiB", round(after[LANE]), round(grown)),
            &format!("{} events/s, {} MiB", round(before[LANE]), round(memory)),
            &format!("{:.2}; {:.2}", after[LANE] / before[LANE], grown / memory),
            "",
        );
    });
}
