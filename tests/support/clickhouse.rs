//! A real ClickHouse of the tests' own, out of the package that holds its server: see `tests/clickhouse-server`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use tempfile::TempDir;

use weir_clickhouse::ClickHouseOptions;

use crate::binary_of;
use crate::postgres::free_port;

/// The passwords of `tests/clickhouse-server/users.xml`.
pub const PASSWORD: &str = "correct-horse-8";
/// Of `dashboards`, who reads within limits.
pub const DASHBOARDS_PASSWORD: &str = "only-looking-8";

const PATIENCE: Duration = Duration::from_secs(120);

/// How often somebody looks whether the server is still there.
const LOOK: Duration = Duration::from_millis(100);

/// A running server; ends with it.
///
/// The library's server ends itself with SIGABRT about once in a hundred connections that are reset while a body is on its way,
/// which a crash of weir, or a proxy that cuts, does. It is started again at once, as an init system would.
pub struct ClickHouse {
    place: Arc<Place>,
    /// Of the HTTP interface.
    pub port: u16,
    /// Of the native protocol.
    pub native_port: u16,
}

struct Place {
    /// `None` while it is down on purpose.
    child: Mutex<Option<Child>>,
    dir: TempDir,
    ports: [u16; 2],
}

impl Place {
    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn spawn(&self) -> Child {
        let log = self.dir.path().join("server.log");
        let mut child = Command::new(binary_of("weir-clickhouse-server"))
            .arg(self.data())
            .args(self.ports.map(|port| port.to_string()))
            .env("WEIR_END_WITH_STDIN", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::options().create(true).append(true).open(log).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("http://"), "{}", self.log());
        child
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("server.log")).unwrap_or_default()
    }

    /// Starts it again when it ended itself, until nobody needs it.
    fn keep_up(place: &std::sync::Weak<Self>) {
        while let Some(place) = place.upgrade() {
            let mut child = place.child();
            let ended = child.as_mut().and_then(|child| child.try_wait().unwrap());
            if let Some(status) = ended.filter(|status| status.signal() == Some(Signal::ABORT.as_raw())) {
                println!("ClickHouse of port {} ended itself ({status}), and is started again", place.ports[0]);
                *child = Some(place.spawn());
            }
            drop(child);
            drop(place);
            std::thread::sleep(LOOK);
        }
    }
}

impl ClickHouse {
    /// On a directory of its own, up and answering.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(|_| ()).0
    }

    /// After something was done to the directory of its data.
    pub fn start_with<T>(prepare: impl FnOnce(&Path) -> T) -> (Self, T) {
        let dir = tempfile::Builder::new().prefix("weir-clickhouse-").tempdir().unwrap();
        let ports = [free_port(), free_port()];
        let place = Arc::new(Place { child: Mutex::default(), dir, ports });
        let mut server = Self { place, port: ports[0], native_port: ports[1] };
        std::fs::create_dir(server.path()).unwrap();
        let prepared = prepare(&server.path());
        server.start_again();
        let place = Arc::downgrade(&server.place);
        std::thread::spawn(move || Place::keep_up(&place));
        (server, prepared)
    }

    /// As weir's own client is told of it.
    #[must_use]
    pub fn options(&self) -> ClickHouseOptions {
        ClickHouseOptions {
            url: self.url(),
            user: "weir".to_owned(),
            password: PASSWORD.to_owned(),
            database: "weir".to_owned(),
            cluster: None,
            ttl_days: 0,
            settings: BTreeMap::new(),
            insert_interval: Duration::ZERO,
        }
    }

    /// On the same directory and ports.
    pub fn start_again(&mut self) {
        let mut child = self.place.child();
        assert!(child.is_none(), "it runs already");
        *child = Some(self.place.spawn());
        drop(child);
        self.wait_until_up();
    }

    fn wait_until_up(&self) {
        let started = Instant::now();
        while !self.answers() {
            let ended = self.place.child().as_mut().unwrap().try_wait().unwrap();
            let log = || self.place.log();
            assert!(ended.is_none() && started.elapsed() < PATIENCE, "ClickHouse is not up: {ended:?}\n{}", log());
            std::thread::sleep(LOOK);
        }
    }

    fn answers(&self) -> bool {
        let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let mut answer = String::new();
        let asked = std::io::Write::write_all(&mut stream, b"GET /ping HTTP/1.0\r\n\r\n");
        asked.is_ok() && std::io::Read::read_to_string(&mut stream, &mut answer).is_ok() && answer.contains("Ok.")
    }

    /// As a crash would end it.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.place.child().take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGSTOP or SIGCONT.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).unwrap();
        rustix::process::kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Of the process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.place.child().as_ref().unwrap().id()
    }

    /// `http://…`
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Where its data is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.place.data()
    }

    /// The settings that weir needs for it.
    #[must_use]
    pub fn settings(&self) -> [String; 5] {
        self.settings_through(self.port)
    }

    /// The same through another port.
    #[must_use]
    pub fn settings_through(&self, port: u16) -> [String; 5] {
        [
            format!("clickhouse.url=http://127.0.0.1:{port}"),
            "clickhouse.user=weir".to_owned(),
            format!("clickhouse.password={PASSWORD}"),
            "clickhouse.insert_interval_ms=100".to_owned(),
            "lanes.clickhouse.flush_interval_ms=200".to_owned(),
        ]
    }

    /// A query's answer as text, or the server's complaint; waits for a server that is just started again.
    pub async fn ask(&self, user: &str, password: &str, sql: &str) -> Result<String, String> {
        let (client, started) = (reqwest::Client::new(), Instant::now());
        loop {
            let request = client.post(self.url()).header("X-ClickHouse-User", user);
            match request.header("X-ClickHouse-Key", password).body(sql.to_owned()).send().await {
                Ok(answer) => {
                    let is_fine = answer.status().is_success();
                    match answer.text().await {
                        Ok(text) if is_fine => return Ok(text.trim().to_owned()),
                        Ok(text) => return Err(text.trim().to_owned()),
                        Err(error) => assert!(started.elapsed() < PATIENCE, "{error}"),
                    }
                }
                Err(error) => assert!(started.elapsed() < PATIENCE, "{error}"),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// [`Self::ask`] by `weir`; nothing where the tables are not there yet.
    pub async fn try_sql(&self, sql: &str) -> Option<String> {
        self.ask("weir", PASSWORD, sql).await.ok()
    }

    /// [`Self::ask`] by `weir`, which must succeed.
    pub async fn sql(&self, sql: &str) -> String {
        self.ask("weir", PASSWORD, sql).await.unwrap()
    }
}

impl Drop for ClickHouse {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Debian's packaged server, which is of 2018.
pub struct OldClickHouse {
    child: Child,
    port: u16,
    _dir: TempDir,
}

impl OldClickHouse {
    /// Up and answering, on free ports.
    #[must_use]
    pub fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("weir-clickhouse-old-").tempdir().unwrap();
        let (port, native_port) = (free_port(), free_port());
        let at = dir.path().display();
        let config = format!(
            "<yandex><logger><level>warning</level><console>1</console></logger><http_port>{port}</http_port>\
             <tcp_port>{native_port}</tcp_port><listen_host>127.0.0.1</listen_host><path>{at}/data/</path>\
             <tmp_path>{at}/tmp/</tmp_path><users_config>{at}/users.xml</users_config>\
             <default_profile>default</default_profile><default_database>default</default_database>\
             <mark_cache_size>5368709</mark_cache_size></yandex>"
        );
        let users = "<yandex><profiles><default/></profiles><quotas><default/></quotas><users><default><password></password>\
             <networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota></default></users></yandex>";
        std::fs::write(dir.path().join("config.xml"), config).unwrap();
        std::fs::write(dir.path().join("users.xml"), users).unwrap();
        for name in ["data", "tmp"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let log = std::fs::File::create(dir.path().join("server.log")).unwrap();
        let child = Command::new("clickhouse-server")
            .arg(format!("--config-file={at}/config.xml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("install Debian's clickhouse-server: this test wants one that is too old");
        let server = Self { child, port, _dir: dir };
        let started = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < PATIENCE, "Debian's clickhouse-server is not up");
            std::thread::sleep(Duration::from_millis(100));
        }
        server
    }

    /// `http://…`
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for OldClickHouse {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
