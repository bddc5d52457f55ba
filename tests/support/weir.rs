//! A data directory of its own, commands on it, and everything stopped at the end, by process id.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use postgres_openssl::MakeTlsConnector;
use rustix::process::{Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;

use crate::postgres::free_port;
use crate::{binary, binary_of};

const PATIENCE: Duration = Duration::from_secs(90);

/// A data directory and the binary.
pub struct Weir {
    dir: TempDir,
    settings: Vec<String>,
    /// A server that is not its own.
    postgres: Option<String>,
    environment: Vec<(String, String)>,
    /// The binary.
    program: &'static str,
}

impl Default for Weir {
    fn default() -> Self {
        Self::new()
    }
}

impl Weir {
    /// An empty data directory. Lanes flush often, so that tests wait little and commit often.
    #[must_use]
    pub fn new() -> Self {
        binary();
        let settings = [
            "api.listen=127.0.0.1:0",
            "run.listen=127.0.0.1:0",
            "publisher.listen=127.0.0.1:0",
            "lanes.history.flush_interval_ms=200",
            "lanes.metrics.flush_interval_ms=200",
            "dead_letters.retry_delays_ms=[100, 100]",
        ];
        let dir = tempfile::Builder::new().prefix("weir-test-").tempdir().unwrap();
        Self {
            dir,
            settings: settings.map(str::to_owned).to_vec(),
            postgres: None,
            environment: Vec::new(),
            program: "weir",
        }
    }

    /// Another binary of this workspace than `weir`.
    #[must_use]
    pub fn program(mut self, name: &'static str) -> Self {
        self.program = name;
        self
    }

    /// One more setting for every command.
    #[must_use]
    pub fn with(mut self, setting: &str) -> Self {
        self.settings.push(setting.to_owned());
        self
    }

    /// Several more.
    #[must_use]
    pub fn with_all(mut self, settings: impl IntoIterator<Item = String>) -> Self {
        self.settings.extend(settings);
        self
    }

    /// On a Postgres server that is not its own.
    #[must_use]
    pub fn on(mut self, url: &str) -> Self {
        self.postgres = Some(url.to_owned());
        self.with(&format!("postgres.url={url}")).with(&format!("postgres.reader_url={url}"))
    }

    /// On a server whose URL for weir is not the one for the tests' own connections.
    #[must_use]
    pub fn on_secured(self, url: &str, tests_url: &str) -> Self {
        let mut weir = self.with(&format!("postgres.url={url}")).with(&format!("postgres.reader_url={tests_url}"));
        weir.postgres = Some(tests_url.to_owned());
        weir
    }

    /// One more variable for every command.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The data directory.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A copy of a data directory at rest. Its server gets a port of its own: several copies run at once, and while the server
    /// of one is killed, another's would take the port and keep it.
    #[must_use]
    pub fn copy(&self) -> Self {
        let dir = tempfile::Builder::new().prefix("weir-test-").tempdir().unwrap();
        let copied = Command::new("cp").arg("-a").arg(self.path()).arg(dir.path()).status().unwrap();
        assert!(copied.success());
        let copy = Self {
            dir,
            settings: self.settings.clone(),
            postgres: self.postgres.clone(),
            environment: self.environment.clone(),
            program: self.program,
        };
        let secrets = copy.path().join("secrets.json");
        if let Ok(text) = fs::read_to_string(&secrets) {
            let mut known: Value = serde_json::from_str(&text).unwrap();
            known["port"] = free_port().into();
            fs::write(&secrets, known.to_string()).unwrap();
        }
        copy
    }

    /// A command, ready to run.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        self.command_of(binary_of(self.program), args)
    }

    /// [`Self::command`] of another program, such as an older one.
    #[must_use]
    pub fn command_of(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).arg("--data-dir").arg(self.path()).stdin(Stdio::null());
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        // What benchmarks are told by is no setting.
        command.env_remove("WEIR_BENCH_EVENTS").env_remove("WEIR_BENCH_SHORT");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command to its end.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs a command that must succeed; its standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "weir {args:?}: {}\n{stderr}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stdout)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// [`Self::ok`] with `--format json`.
    pub fn json(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = args.iter().copied().chain(["--format", "json"]).collect();
        serde_json::from_str(&self.ok(&args)).unwrap()
    }

    /// Runs a command that must die at a failpoint.
    pub fn dies_at(&self, failpoint: &str, args: &[&str]) {
        let output = self.command(args).env("WEIR_FAILPOINT", failpoint).output().unwrap();
        let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
        assert_eq!(
            signal,
            Some(9),
            "{failpoint} was not reached by {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Starts `weir up` and waits until it serves.
    #[must_use]
    pub fn up(&self) -> Up<'_> {
        self.up_until("")
    }

    /// [`Self::up`] that dies when it comes to a failpoint.
    #[must_use]
    pub fn up_until(&self, failpoint: &str) -> Up<'_> {
        let child = self.spawn(self.command(&["up"]).env("WEIR_FAILPOINT", failpoint));
        let mut up = Up { weir: self, child: Some(child), api: String::new() };
        let started = Instant::now();
        loop {
            if let Some(status) = up.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("weir up ended with {status}:\n{}", self.log());
            }
            let said = fs::read_to_string(self.path().join("running.json")).ok();
            if let Some(running) = said.and_then(|text| serde_json::from_str::<Value>(&text).ok())
                && running["pid"] == up.child.as_ref().unwrap().id()
            {
                up.api = running["api"].as_str().unwrap().to_owned();
                return up;
            }
            assert!(started.elapsed() < PATIENCE, "weir up does not start:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A bearer token.
    #[must_use]
    pub fn token(&self, tenant: &str, scopes: &str) -> String {
        let made = self.json(&["token", "create", "--tenant", tenant, "--scopes", scopes]);
        made["token"].as_str().unwrap().to_owned()
    }

    /// Starts a command whose log goes to a file beside the data directory.
    #[must_use]
    pub fn start(&self, args: &[&str]) -> Child {
        self.spawn(&mut self.command(args))
    }

    fn spawn(&self, command: &mut Command) -> Child {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("weir.log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }

    /// What started commands logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("weir.log")).unwrap_or_default()
    }

    /// Kills the embedded server's process as a crash would; `false` when none runs.
    #[must_use]
    pub fn kill_postgres(&self) -> bool {
        kill_server(&self.path())
    }

    /// Keeps every instance from starting its server, until dropped.
    #[must_use]
    pub fn hold_server_lock(&self) -> fs::File {
        let file = fs::File::open(self.path().join("server.lock")).unwrap();
        file.lock().unwrap();
        file
    }

    /// `weir verify` must find every number equal that is there to be compared. A lane that was killed on its way is not at the end:
    /// that it says so is held to by `meaning` and `tampering`.
    pub fn verify(&self) -> Value {
        let output = self.run(&["verify", "--wait", "0", "--format", "json"]);
        let text = String::from_utf8_lossy(&output.stdout);
        let words = String::from_utf8_lossy(&output.stderr);
        let table: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}\n{words}"));
        let rows = table.as_array().unwrap().iter().filter(|row| row["subject"] != "(progress)");
        assert!(rows.clone().all(|row| row["equal"] == true), "{text}\n{words}");
        let is_short = rows.count() < table.as_array().unwrap().len();
        let verdict = if is_short { "NOT ALL COMPARED" } else { "all equal" };
        assert!(output.status.success() != is_short && words.contains(verdict), "{text}\n{words}");
        table
    }

    /// `weir verify` must find a difference.
    #[must_use]
    pub fn verify_fails(&self) -> Vec<Value> {
        let output = self.run(&["verify", "--wait", "0", "--format", "json"]);
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
        let table: Value = serde_json::from_slice(&output.stdout).unwrap();
        table
            .as_array()
            .unwrap()
            .iter()
            .filter(|row| row["equal"] == false && row["subject"] != "(progress)")
            .cloned()
            .collect()
    }

    /// A connection as the server's owner, for tests that tamper.
    pub async fn owner(&self) -> tokio_postgres::Client {
        connect(&self.owner_url()).await
    }

    /// Waits until a query says true, of a server that may not be there yet.
    pub async fn until(&self, sql: &str) {
        let started = Instant::now();
        loop {
            if (self.postgres.is_some() || self.path().join("secrets.json").exists())
                && let Ok(client) = try_connect(&self.owner_url()).await
                && client.query_one(sql, &[]).await.is_ok_and(|row| row.get(0))
            {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "not so: {sql}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The URL of the server's owner.
    #[must_use]
    pub fn owner_url(&self) -> String {
        if let Some(url) = &self.postgres {
            return url.clone();
        }
        let secrets: Value =
            serde_json::from_str(&fs::read_to_string(self.path().join("secrets.json")).unwrap()).unwrap();
        // Its socket is in the cluster's directory.
        let dir = self.path().join("postgres").display().to_string().replace('/', "%2F");
        format!("postgres://weir:{}@{dir}:{}/postgres", secrets["owner_password"].as_str().unwrap(), secrets["port"])
    }
}

/// What `/readyz` of an address says to an admin.
pub async fn readiness(api: &str, admin: &str) -> Value {
    let get = reqwest::Client::new().get(format!("{api}/readyz")).bearer_auth(admin);
    get.send().await.unwrap().json().await.unwrap()
}

/// A connection that lives as long as its client.
pub async fn connect(url: &str) -> tokio_postgres::Client {
    try_connect(url).await.unwrap()
}

/// [`connect`] to a server that may not be there yet. Over TLS where the server has it, whoever it is.
pub async fn try_connect(url: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
    builder.set_verify(SslVerifyMode::NONE);
    let (client, connection) = tokio_postgres::connect(url, MakeTlsConnector::new(builder.build())).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn kill_server(data: &Path) -> bool {
    let Ok(text) = fs::read_to_string(data.join("postgres/postmaster.pid")) else { return false };
    let pid = text.lines().next().and_then(|line| line.trim().parse().ok()).and_then(Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::kill_process(pid, Signal::KILL).is_ok())
}

impl Drop for Weir {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("log of {}:\n{}", self.path().display(), self.log());
        }
        // Only what a failed test, or one that kills, left running.
        kill_server(&self.path());
    }
}

/// A running `weir up`.
pub struct Up<'a> {
    weir: &'a Weir,
    child: Option<Child>,
    /// Base URL.
    pub api: String,
}

impl Up<'_> {
    /// `weir status --format json`, whether everything is well or not.
    #[must_use]
    pub fn status(&self) -> Value {
        let output = self.weir.run(&["status", "--format", "json"]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {stderr}"))
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// The read-only Postgres URL that `weir status` gives.
    #[must_use]
    pub fn postgres(&self) -> String {
        self.status()["addresses"]["postgres"].as_str().unwrap().to_owned()
    }

    /// A bearer token.
    #[must_use]
    pub fn token(&self, tenant: &str, scopes: &str) -> String {
        self.weir.token(tenant, scopes)
    }

    /// What `/readyz` says to an admin.
    pub async fn readiness(&self, admin: &str) -> Value {
        readiness(&self.api, admin).await
    }

    /// Waits until every lane has applied everything.
    pub async fn caught_up(&self) {
        self.lanes_caught_up(3).await;
    }

    /// Waits until so many lanes have applied everything.
    pub async fn lanes_caught_up(&self, lanes: i64) {
        let owner = self.weir.owner().await;
        let started = Instant::now();
        loop {
            let row = owner
                .query_one("SELECT count(*) FILTER (WHERE coalesce(next_offset, 1) > (SELECT coalesce(max(id), 0) FROM events)) FROM ledger", &[])
                .await
                .unwrap();
            if row.get::<_, i64>(0) >= lanes {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "the lanes do not catch up:\n{}", self.weir.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a failpoint has stopped it.
    pub async fn stands_still(&self) {
        let (pid, started) = (self.child.as_ref().unwrap().id(), Instant::now());
        let is_stopped = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") T ");
        while !is_stopped() {
            assert!(started.elapsed() < PATIENCE, "nothing stopped it:\n{}", self.weir.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stops it as `kill -STOP` does, until [`Self::go_on`].
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        // One thread after the other comes to it: until then one may take a lock that is just let go.
        let tasks = format!("/proc/{}/task", self.child.as_ref().unwrap().id());
        let is_stopped = |task: &Path| fs::read_to_string(task.join("stat")).is_ok_and(|stat| stat.contains(") T "));
        let started = Instant::now();
        while !fs::read_dir(&tasks).unwrap().all(|task| is_stopped(&task.unwrap().path())) {
            assert!(started.elapsed() < PATIENCE, "it does not stop:\n{}", self.weir.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// As `kill -CONT` does.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(self.child.as_ref().unwrap()), signal).unwrap();
    }

    /// As `kill -9` does.
    pub fn kill(mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Waits for its end by the failpoint that it was started with.
    pub fn dies(mut self) {
        let (mut child, started) = (self.child.take().unwrap(), Instant::now());
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if started.elapsed() > PATIENCE {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("it lives on:\n{}", self.weir.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{}", self.weir.log());
    }

    /// As an operator does; must end well.
    pub fn terminate(mut self) {
        let status = self.end();
        assert!(status.success(), "weir up ended with {status}:\n{}", self.weir.log());
    }

    fn end(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let pid = Pid::from_child(&child);
        rustix::process::kill_process(pid, Signal::TERM).unwrap();
        child.wait().unwrap()
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}
