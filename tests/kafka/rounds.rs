//! Random faults at random moments, round after round on one stream. Prints its seed and replays from it.

use std::process::Child;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::Signal;
use weir_tests::{Facts, Fixture, seed};

use super::{Stream, kill, signal, terminate, until};

struct Running {
    lanes: Vec<Child>,
    publishers: Vec<Child>,
    import: Child,
}

impl Running {
    fn start(stream: &Stream) -> Self {
        let publish = || stream.weir.start(&["publish"]);
        Self {
            lanes: vec![stream.run_lanes(), stream.run_lanes()],
            publishers: vec![publish(), publish()],
            import: stream.start_import(),
        }
    }

    /// One thing that happens; everything runs again afterwards.
    async fn fault(&mut self, stream: &mut Stream, random: &mut StdRng) {
        let moment = |random: &mut StdRng| Duration::from_millis(random.random_range(100..3000));
        let (which, kind) = (random.random_range(0..2), random.random_range(0..7));
        println!("fault {kind} to {which}");
        match kind {
            0 | 1 => {
                let child = std::mem::replace(&mut self.lanes[which], stream.run_lanes());
                kill(child);
            }
            2 => {
                let child = std::mem::replace(&mut self.publishers[which], stream.weir.start(&["publish"]));
                kill(child);
            }
            3 => {
                signal(&self.lanes[which], Signal::STOP);
                // Sometimes past the session's end.
                tokio::time::sleep(moment(random) * 4).await;
                signal(&self.lanes[which], Signal::CONT);
            }
            4 => {
                signal(&self.publishers[which], Signal::STOP);
                tokio::time::sleep(moment(random) * 4).await;
                signal(&self.publishers[which], Signal::CONT);
            }
            5 => {
                stream.kafka.kill_broker(0);
                tokio::time::sleep(moment(random)).await;
                stream.kafka.start_broker(0);
                stream.kafka.wait();
            }
            _ => {
                let mut child = std::mem::replace(&mut self.lanes[which], stream.run_lanes());
                signal(&child, Signal::TERM);
                // One that was only just started may not listen yet.
                let ended = child.wait().unwrap();
                assert!(ended.success() || ended.code().is_none(), "{ended}: {}", stream.weir.log());
            }
        }
        tokio::time::sleep(moment(random)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_moments() {
    let rounds = std::env::var("WEIR_CRASH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    let seed = seed("kafka::rounds::random_moments");
    let mut stream = Stream::new("kafka::rounds");
    stream.fixture = Fixture::new(15_000, seed);
    stream.facts = Facts::of_input(stream.fixture.path());
    let mut running = Running::start(&stream);
    for round in 0..rounds {
        let mut random = StdRng::seed_from_u64(seed.wrapping_add(round));
        for _ in 0..3 {
            running.fault(&mut stream, &mut random).await;
        }
        if running.import.try_wait().unwrap().is_some() {
            running.import = stream.start_import();
        }
        println!("round {round}: checking");
        // A broker may be just back.
        until(&stream.weir, 60, async || {
            let asked = stream.weir.run(&["topics", "diff"]);
            if asked.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&asked.stderr).into_owned()) }
        })
        .await;
        stream.weir.verify();
    }
    assert!(running.import.wait().unwrap().success(), "{}", stream.weir.log());
    running.lanes.into_iter().chain(running.publishers).for_each(terminate);
    stream.import();
    stream.agrees().await;
}
