//! A Postgres server of the tests' own, for what an operator would do with one: stand before it, slow it, fill its disk.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::tls::Certificates;

const PATIENCE: Duration = Duration::from_secs(60);

/// A running server with an empty database.
pub struct Postgres {
    // Stopped before its files go.
    child: Child,
    port: u16,
    _dir: Option<TempDir>,
}

fn binaries() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("Debian's postgresql is installed");
    let mut found: Vec<PathBuf> = versions.filter_map(Result::ok).map(|entry| entry.path().join("bin")).collect();
    found.sort();
    found.pop().expect("Debian's postgresql is installed")
}

/// Who runs it: Postgres refuses root.
fn user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|line| line.starts_with("postgres:")).expect("Debian's postgresql makes its user");
    let ids: Vec<u32> = line.split(':').skip(2).take(2).map(|id| id.parse().unwrap()).collect();
    Some((ids[0], ids[1]))
}

fn command(program: &str) -> Command {
    let mut command = Command::new(binaries().join(program));
    if let Some((uid, gid)) = user() {
        command.uid(uid).gid(gid);
    }
    command.current_dir("/").stdin(Stdio::null());
    command
}

/// A free port of loopback, each once. None of those that the system gives to whoever asks for any: a server needs seconds until
/// it listens, and one that was killed wants its port back.
#[must_use]
pub fn free_port() -> u16 {
    const PORTS: std::ops::Range<u16> = 10_000..20_000;
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let next = NEXT.get_or_init(|| AtomicU16::new(rand::random_range(PORTS)));
    for _ in PORTS {
        let port = PORTS.start + next.fetch_add(1, Ordering::Relaxed) % (PORTS.end - PORTS.start);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port of {PORTS:?} is free");
}

impl Postgres {
    /// Starts one in a directory of its own.
    #[must_use]
    pub fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("weir-postgres-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut server = Self::start_in(dir.path(), None, &[]);
        server._dir = Some(dir);
        server
    }

    /// Starts one in a directory of its own, with more variables.
    #[must_use]
    pub fn start_with_environment(environment: &[(&str, &str)]) -> Self {
        let dir = tempfile::Builder::new().prefix("weir-postgres-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut server = Self::start_in(dir.path(), None, environment);
        server._dir = Some(dir);
        server
    }

    /// One that wants TLS and a password from everybody.
    #[must_use]
    pub fn start_secure(certificates: &Certificates, password: &str) -> Self {
        let mut server = Self::start();
        let dir = server._dir.take().unwrap();
        let cluster = dir.path().join("cluster");
        drop(server);
        for (from, to) in [(certificates.certificate(), "server.crt"), (certificates.key(), "server.key")] {
            let to = cluster.join(to);
            fs::copy(from, &to).unwrap();
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
            if let Some((uid, gid)) = user() {
                chown(&to, Some(uid), Some(gid)).unwrap();
            }
        }
        let mut single = command("postgres");
        single.args(["--single", "-D"]).arg(&cluster).arg("postgres").stdin(Stdio::piped()).stdout(Stdio::null());
        let mut single = single.spawn().unwrap();
        let sql = format!("ALTER ROLE weir PASSWORD '{password}'\n");
        std::io::Write::write_all(&mut single.stdin.take().unwrap(), sql.as_bytes()).unwrap();
        assert!(single.wait().unwrap().success());
        fs::write(cluster.join("pg_hba.conf"), "hostssl all all 127.0.0.1/32 scram-sha-256\n").unwrap();
        let config = cluster.join("postgresql.conf");
        let text = fs::read_to_string(&config).unwrap() + "\nssl = on\n";
        fs::write(config, text).unwrap();
        fs::remove_file(cluster.join("postmaster.pid")).ok();
        let mut server = Self::start_in(dir.path(), None, &[]);
        server._dir = Some(dir);
        server
    }

    /// Makes a database on a server that [`Self::start_secure`] started.
    pub async fn create_database(&self, password: &str, name: &str) {
        let url = format!("postgres://weir:{password}@127.0.0.1:{}/postgres?sslmode=require", self.port);
        let client = crate::weir::connect(&url).await;
        client.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    }

    /// Starts one below a directory, its write-ahead log below another.
    #[must_use]
    pub fn start_with_log_in(dir: &Path, log: &Path) -> Self {
        fs::set_permissions(log, fs::Permissions::from_mode(0o755)).unwrap();
        Self::start_in(dir, Some(log), &[])
    }

    fn start_in(dir: &Path, log_dir: Option<&Path>, environment: &[(&str, &str)]) -> Self {
        let cluster = dir.join("cluster");
        if !cluster.exists() {
            fs::create_dir(&cluster).unwrap();
            if let Some((uid, gid)) = user() {
                chown(&cluster, Some(uid), Some(gid)).unwrap();
            }
            let mut initdb = command("initdb");
            initdb.args(["-U", "weir", "--auth=trust", "--encoding=UTF8", "--locale=C", "-D"]).arg(&cluster);
            if let Some(log_dir) = log_dir {
                let wal = log_dir.join("wal");
                fs::create_dir(&wal).unwrap();
                if let Some((uid, gid)) = user() {
                    chown(&wal, Some(uid), Some(gid)).unwrap();
                }
                initdb.arg("-X").arg(wal);
            }
            let made = initdb.output().unwrap();
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        }
        let port = free_port();
        let mut postgres = command("postgres");
        postgres.arg("-D").arg(&cluster).args(["-p", &port.to_string()]);
        for setting in ["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=200"]
            .iter()
            .chain(["shared_buffers=128MB", "max_wal_size=2GB", "wal_compression=on", "jit=off"].iter())
        {
            postgres.args(["-c", setting]);
        }
        let log = fs::File::create(dir.join("postgres.log")).unwrap();
        postgres.envs(environment.iter().copied());
        let child = postgres.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut server = Self { child, port, _dir: None };
        let started = Instant::now();
        // Its own word: it takes connections before it serves them.
        let is_ready = || fs::read_to_string(cluster.join("postmaster.pid")).is_ok_and(|text| text.contains("ready"));
        while !is_ready() {
            let words = || fs::read_to_string(dir.join("postgres.log")).unwrap_or_default();
            assert!(server.child.try_wait().unwrap().is_none(), "{}", words());
            assert!(started.elapsed() < PATIENCE, "{}", words());
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// Of its first process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        url_at(self.port)
    }
}

/// The URL of such a server at a port, which may be a proxy's.
#[must_use]
pub fn url_at(port: u16) -> String {
    format!("postgres://weir@127.0.0.1:{port}/postgres")
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Ends at once, with its processes.
        rustix::process::kill_process(Pid::from_child(&self.child), Signal::QUIT).ok();
        drop(self.child.wait());
    }
}
