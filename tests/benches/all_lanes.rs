//! One process, all four lanes, Postgres and ClickHouse on the same cores: from a full event store, or from full topics with their broker
//! beside them, to the last event in every sink, and what it costs until all is quiet.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tempfile::TempDir;
use weir_kafka::TopicLog;
use weir_model::event_type::{TOPICS, topic_for};
use weir_tests::fill::Foreign;
use weir_tests::weir::connect;
use weir_tests::{ClickHouse, Kafka, Postgres, binary};

use crate::fill::{fill, runtime};
use crate::measure::{round, row};

/// So many, unless `WEIR_BENCH_EVENTS` says otherwise.
const EVENTS: i64 = 4_000_000;
const LANES: usize = 4;

/// How often it is looked where the lanes are.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// All is quiet when so little of one core was used for so long: merges, vacuum and checkpoints are over. An idle ClickHouse uses a twentieth.
const QUIET: f64 = 0.15;
const QUIET_FOR: Duration = Duration::from_secs(10);
const QUIET_WITHIN: Duration = Duration::from_secs(120);

/// The processor time of processes and everything that they started, in seconds, from `/proc/PID/stat` (proc(5)).
pub(crate) fn cpu_seconds(roots: &[u32]) -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let mut parents: HashMap<u32, u32> = HashMap::new();
    let mut times: HashMap<u32, f64> = HashMap::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name may hold spaces and brackets; everything after the last one is numbers.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let number = |n: usize| fields.get(n).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
        parents.insert(pid, number(1) as u32);
        // User and system time, its own and that of children that ended.
        times.insert(pid, (11..15).map(number).sum::<f64>() / TICKS_PER_SECOND);
    }
    let belongs = |pid: &u32| {
        let mut at = *pid;
        while !roots.contains(&at) {
            match parents.get(&at) {
                Some(parent) if *parent > 1 => at = *parent,
                _ => return false,
            }
        }
        true
    };
    times.iter().filter(|(pid, _)| belongs(pid)).map(|(_, seconds)| seconds).sum()
}

/// The process under measurement; another build of it by `WEIR_BENCH_BINARY`.
fn program() -> PathBuf {
    std::env::var_os("WEIR_BENCH_BINARY").map_or_else(|| binary().clone(), PathBuf::from)
}

/// The servers, and where the process keeps what is its own.
pub(crate) struct Stage {
    pub(crate) postgres: Postgres,
    clickhouse: ClickHouse,
    pub(crate) kafka: Option<Kafka>,
    dir: TempDir,
}

impl Stage {
    pub(crate) fn start() -> Self {
        let (postgres, clickhouse, dir) = (Postgres::start(), ClickHouse::start(), tempfile::tempdir().unwrap());
        Self { postgres, clickhouse, kafka: None, dir }
    }

    /// With brokers.
    fn on_topics() -> Self {
        Self { kafka: Some(Kafka::start()), ..Self::start() }
    }

    /// The data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn clickhouse(&self) -> &ClickHouse {
        &self.clickhouse
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(args).arg("--data-dir").arg(self.data());
        let listens = ["api", "run", "publisher"].map(|part| format!("{part}.listen=127.0.0.1:0"));
        let brokers = self.kafka.as_ref().map(|kafka| format!("kafka.brokers={}", kafka.brokers()));
        for setting in listens.into_iter().chain([format!("postgres.url={}", self.postgres.url())]).chain(brokers) {
            command.args(["--set", &setting]);
        }
        // Everything else is as it is by default.
        let of_tests = ["insert_interval_ms", "flush_interval_ms"];
        for setting in self.clickhouse.settings().iter().filter(|set| !of_tests.iter().any(|name| set.contains(name))) {
            command.args(["--set", setting]);
        }
        command.env_remove("WEIR_BENCH_SHORT").env_remove("WEIR_BENCH_EVENTS").env_remove("WEIR_BENCH_BINARY");
        command.stdout(Stdio::null());
        command
    }

    /// The program itself makes its tables, whichever build it is; then there are events for it.
    pub(crate) async fn fill(&self, events: i64) {
        let mut weir = self.command(&["up"]).spawn().unwrap();
        let url = self.postgres.url();
        let client = connect(&url).await;
        let claimed = "SELECT count(DISTINCT lane) FROM ledger";
        while client.query_one(claimed, &[]).await.map_or(0, |row| row.get(0)) < LANES as i64 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        stop(&mut weir);
        fill(&url, events).await;
    }

    /// [`Self::fill`], and all of it published; gives how many offsets the topics have then.
    async fn publish(&self, events: i64) -> i64 {
        let Some(kafka) = &self.kafka else { return events };
        crate::kafka::make_topics(kafka, "").await;
        self.fill(events).await;
        let mut publisher = self.command(&["publish"]).spawn().unwrap();
        let client = connect(&self.postgres.url()).await;
        let published = "SELECT position FROM publisher";
        while client.query_one(published, &[]).await.map_or(0, |row| row.get::<_, i64>(0)) < events {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        stop(&mut publisher);
        let log = TopicLog::open(&crate::kafka::options(kafka), &TOPICS).await.unwrap();
        log.ranges().values().map(|(_, high)| high).sum()
    }

    /// The processes that work, by name.
    fn roots(&self, weir: &Child) -> Vec<(&'static str, u32)> {
        let mut roots =
            vec![("weir", weir.id()), ("Postgres", self.postgres.pid()), ("ClickHouse", self.clickhouse.pid())];
        roots.extend(self.kafka.iter().flat_map(Kafka::pids).map(|pid| ("Kafka", pid)));
        roots
    }
}

/// When the slowest lane was how far, and when each had its last event.
#[derive(Default)]
struct Course {
    slowest: Vec<(f64, i64)>,
    ended: BTreeMap<String, f64>,
}

impl Course {
    async fn watch(url: &str, events: i64, started: Instant) -> Self {
        let client = connect(url).await;
        let mut course = Self::default();
        while course.ended.len() < LANES {
            // The first position is 1, the first offset 0.
            let sql = "SELECT lane, coalesce(sum(next_offset - (topic = 'events')::int), 0)::bigint FROM ledger GROUP BY lane";
            let rows = client.query(sql, &[]).await.unwrap();
            let now = started.elapsed().as_secs_f64();
            let found: Vec<(String, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
            for (lane, reached) in &found {
                if *reached >= events {
                    course.ended.entry(lane.clone()).or_insert(now);
                }
            }
            if found.len() == LANES {
                course.slowest.push((now, found.iter().map(|(_, reached)| *reached).min().unwrap_or(0)));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        course
    }

    /// Events a second between a fifth and four fifths of the way.
    fn slope(&self, events: i64) -> f64 {
        let at = |part: f64| self.slowest.iter().find(|(_, reached)| *reached as f64 >= part * events as f64);
        let (Some((from, first)), Some((to, last))) = (at(0.2), at(0.8)) else { return f64::NAN };
        (last - first) as f64 / (to - from)
    }
}

/// Waits until nothing is at work any more; gives the processor time up to then.
fn quiet(roots: &[u32]) -> f64 {
    let (began, mut before, mut since) = (Instant::now(), cpu_seconds(roots), Instant::now());
    while since.elapsed() < QUIET_FOR && began.elapsed() < QUIET_WITHIN {
        std::thread::sleep(Duration::from_secs(1));
        let now = cpu_seconds(roots);
        if now - before > QUIET {
            since = Instant::now();
        }
        before = now;
    }
    before
}

pub(crate) fn high_water_mark(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    line.and_then(|kibibytes| kibibytes.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1024.0
}

/// Ends a process as an operator does.
pub(crate) fn stop(weir: &mut Child) {
    let pid = rustix::process::Pid::from_raw(weir.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(weir.wait().unwrap().success());
}

fn events() -> i64 {
    crate::fill::events_or(EVENTS)
}

pub(crate) fn run() {
    let (stage, events) = (Stage::start(), events());
    runtime().block_on(stage.fill(events));
    measure(&stage, &["up"], events, events);
}

pub(crate) fn from_topics() {
    let (stage, events) = (Stage::on_topics(), events());
    let offsets = runtime().block_on(stage.publish(events));
    measure(&stage, &["run", "read-models", "metrics", "history", "clickhouse"], events, offsets);
}

/// The real data set, whose directory `WEIR_OULAD` names.
pub(crate) fn oulad() {
    let Some(records) = std::env::var_os("WEIR_OULAD") else {
        row("all four lanes, OULAD", "not run: WEIR_OULAD names no directory", "", "", "");
        return;
    };
    let stage = Stage::start();
    assert!(stage.command(&["import", "oulad"]).arg(records).stderr(Stdio::null()).status().unwrap().success());
    let events = runtime().block_on(async {
        let client = connect(&stage.postgres.url()).await;
        client.query_one("SELECT max(id) FROM events", &[]).await.unwrap().get(0)
    });
    measure(&stage, &["up"], events, events);
}

/// From topics, what other services sent: no positions, and one in twenty comes again a little later.
pub(crate) fn foreign() {
    let (stage, events) = (Stage::on_topics(), events());
    let brokers = stage.kafka.as_ref().unwrap().brokers();
    runtime().block_on(async {
        crate::kafka::make_topics(stage.kafka.as_ref().unwrap(), "").await;
        stage.fill(0).await;
    });
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("linger.ms", "20")
        .set("queue.buffering.max.messages", "200000")
        .create()
        .unwrap();
    let foreign = Foreign::new();
    let send = |n: i64| {
        let (event_type, key, payload) = foreign.event(n);
        let mut record = BaseRecord::to(topic_for(event_type.as_str())).key(&key).payload(&payload);
        while let Err((_, back)) = producer.send(record) {
            producer.poll(Duration::from_millis(50));
            record = back;
        }
    };
    let mut sent = 0;
    for n in 0..events {
        send(n);
        sent += 1;
        // Each number comes again once at most: a lane that counts it twice differs from the others.
        if n % 20 == 19 && n >= 1000 {
            send(n - 990);
            sent += 1;
        }
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    measure(&stage, &["run", "read-models", "metrics", "history", "clickhouse"], sent, sent);
}

/// Runs the lanes until each has so many events, which are at so many offsets.
fn measure(stage: &Stage, command: &[&str], events: i64, offsets: i64) {
    let url = stage.postgres.url();
    let mut weir = stage.command(command).spawn().unwrap();
    let (roots, started) = (stage.roots(&weir), Instant::now());
    let pids: Vec<u32> = roots.iter().map(|(_, pid)| *pid).collect();
    let each = || -> Vec<f64> { pids.iter().map(|pid| cpu_seconds(&[*pid])).collect() };
    let before = each();
    let course = runtime().block_on(Course::watch(&url, offsets, started));
    let arrived: Vec<f64> = each().iter().zip(&before).map(|(now, before)| now - before).collect();
    let spent = quiet(&pids) - before.iter().sum::<f64>();
    let memory = high_water_mark(weir.id());
    stop(&mut weir);
    if std::env::var_os("WEIR_BENCH_SHORT").is_none() {
        assert!(stage.command(&["verify"]).status().unwrap().success(), "verify");
    }
    let per_event = |seconds: f64| format!("{:.1}", 1e6 * seconds / events as f64);
    // Commit markers take offsets too.
    let share = events as f64 / offsets as f64;
    let last = course.ended.values().copied().fold(0.0, f64::max);
    let lanes: Vec<_> = course.ended.iter().map(|(lane, at)| format!("{lane} {}", round(events as f64 / at))).collect();
    let processes: Vec<_> =
        roots.iter().zip(&arrived).map(|((name, _), seconds)| format!("{name} {}", per_event(*seconds))).collect();
    let from = if stage.kafka.is_some() { ", from topics" } else { "" };
    row(
        &format!("all four lanes, {} events{from}", round(events as f64)),
        &format!(
            "{} events/s ({} from start to end; {}), {} µs of CPU an event ({} when the last arrived: {}), {} MiB",
            round(course.slope(offsets) * share),
            round(events as f64 / last),
            lanes.join(", "),
            per_event(spent),
            per_event(arrived.iter().sum()),
            processes.join(", "),
            round(memory),
        ),
        "",
        "",
        "",
    );
}
