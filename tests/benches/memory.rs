//! Resident memory of all lanes that catch up with a backlog, Postgres apart.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use weir_tests::{Postgres, binary};

use crate::fill::{database, fill, runtime};
use crate::measure::{round, row};

/// What a command needed at most, in MiB, and for how long it ran.
pub(crate) struct Needed {
    pub(crate) mebibytes: f64,
    pub(crate) seconds: f64,
}

/// A data directory on a server of its own, with so many events.
pub(crate) struct Backlog {
    pub(crate) server: Postgres,
    pub(crate) dir: TempDir,
}

impl Backlog {
    pub(crate) fn of(events: i64) -> Self {
        let backlog = Self { server: Postgres::start(), dir: tempfile::tempdir().unwrap() };
        backlog.grow(events);
        backlog
    }

    pub(crate) fn grow(&self, events: i64) {
        runtime().block_on(async {
            drop(database(&self.server.url()).await);
            fill(&self.server.url(), events).await;
        });
    }

    /// Runs a command on it to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Needed {
        let mut command = Command::new(binary());
        command
            .args(args)
            .arg("--data-dir")
            .arg(self.dir.path().join("data"))
            .args(["--set", "api.listen=127.0.0.1:0"]);
        command.args(["--set", &format!("postgres.url={}", self.server.url())]).stdout(Stdio::null());
        // Variables of the benchmarks are no settings.
        command.env_remove("WEIR_BENCH_SHORT").env_remove("WEIR_BENCH_EVENTS");
        watch(command.spawn().unwrap())
    }
}

/// Looks at the high-water mark that the kernel keeps until the process ends.
fn watch(mut child: Child) -> Needed {
    let (started, mut kibibytes) = (Instant::now(), 0.0);
    let path = format!("/proc/{}/status", child.id());
    loop {
        let status = std::fs::read_to_string(&path).unwrap_or_default();
        let mark =
            status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        kibibytes = mark.unwrap_or(kibibytes);
        if let Some(ended) = child.try_wait().unwrap() {
            assert!(ended.success(), "{ended}");
            return Needed { mebibytes: kibibytes / 1024.0, seconds: started.elapsed().as_secs_f64() };
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn run() {
    let few = measured(1_000_000, "under 400 MiB", None);
    if std::env::var_os("WEIR_BENCH_SHORT").is_none() {
        measured(4_000_000, "≤ 1.10", Some(few));
    }
}

fn measured(events: i64, goal: &str, before: Option<f64>) -> f64 {
    let needed = Backlog::of(events).run(&["up", "--until-caught-up"]);
    let rate = events as f64 / needed.seconds;
    let (floor, ratio) = match before {
        Some(before) => (format!("{} MiB for a quarter", round(before)), format!("{:.2}", needed.mebibytes / before)),
        None => (String::new(), String::new()),
    };
    let what = format!("resident memory, {} events, all lanes from the start", round(events as f64));
    row(&what, &format!("{} MiB ({} events/s)", round(needed.mebibytes), round(rate)), &floor, &ratio, goal);
    needed.mebibytes
}
