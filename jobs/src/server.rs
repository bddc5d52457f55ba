//! The embedded Postgres server: made, started, adopted after a kill, restarted when it dies, stopped by the last user.
//!
//! Postgres refuses to run as root, so under root it runs as the user `postgres` (else `nobody`), who may not be able to
//! enter the directories above the data directory. It gets its own directory as an open file and addresses it as
//! `/proc/self/fd/N`, which needs no path.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use tokio_postgres::NoTls;

use crate::data_dir::{DataDir, DataDirError, write_durably, write_secret};

const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    /// Not installed.
    #[error(
        "no PostgreSQL server was found below /usr/lib/postgresql or on the PATH: install one (Debian: apt-get install \
         postgresql), or set postgres.bin_dir, or set postgres.url to use a server of your own"
    )]
    NotInstalled,
    /// No user to run it as.
    #[error("Postgres refuses to run as root, and there is neither a user `postgres` nor `nobody` to run it as")]
    NoUser,
    /// It ended or never answered; its log says why.
    #[error("the embedded Postgres server does not start; {log} ends with:\n{tail}")]
    DoesNotStart { log: PathBuf, tail: String },
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The file system, or starting a process.
    #[error("{action} failed")]
    Io { action: &'static str, source: io::Error },
}

fn io_error(action: &'static str) -> impl FnOnce(io::Error) -> ServerError {
    move |source| ServerError::Io { action, source }
}

/// Passwords and port, made once.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Secrets {
    port: u16,
    owner_password: String,
    reader_password: String,
}

/// The server of a data directory, running.
pub(crate) struct Server {
    dir: DataDir,
    bin: PathBuf,
    secrets: Secrets,
    users: Option<File>,
    child: Option<Child>,
}

impl Server {
    /// Starts the server, or adopts one that runs already.
    pub(crate) async fn start(dir: &DataDir, bin_dir: &str) -> Result<Self, ServerError> {
        let bin = if bin_dir.is_empty() { find_binaries()? } else { PathBuf::from(bin_dir) };
        let starting = dir.lock_server().await?;
        // Whoever uses it already keeps on asking at the port that it had.
        let may_move = !dir.has_users()?;
        let users = dir.lock_users()?;
        let secrets = secrets(dir)?;
        let mut server = Self { dir: dir.clone(), bin, secrets, users: Some(users), child: None };
        if !server.cluster().join("PG_VERSION").exists() {
            server.refuse_lost_cluster()?;
            // Inherited, so that an initdb whose weir was killed keeps the next one from what it still writes.
            let inherit =
                |flags| rustix::io::fcntl_setfd(&starting, flags).map_err(|e| io_error("locking for initdb")(e.into()));
            inherit(rustix::io::FdFlags::empty())?;
            server.initialize()?;
            inherit(rustix::io::FdFlags::CLOEXEC)?;
        }
        server.ensure_running(may_move).await?;
        server.ensure_reader().await?;
        drop(starting);
        Ok(server)
    }

    /// For everything that weir does itself.
    pub(crate) fn owner_url(&self) -> String {
        self.url("weir", &self.secrets.owner_password)
    }

    /// For people and dashboards: may read, nothing else.
    pub(crate) fn reader_url(&self) -> String {
        self.url("weir_dashboard", &self.secrets.reader_password)
    }

    fn url(&self, user: &str, password: &str) -> String {
        format!("postgres://{user}:{password}@127.0.0.1:{}/postgres", self.secrets.port)
    }

    fn cluster(&self) -> PathBuf {
        self.dir.join("postgres")
    }

    /// An empty cluster in place of one that is gone would be an empty system of record, and look like success.
    fn refuse_lost_cluster(&self) -> Result<(), ServerError> {
        let path = self.cluster();
        let lost = |reason: &str| Err(DataDirError::Corrupt { path: path.clone(), reason: reason.to_owned() }.into());
        if path.exists() {
            return lost("it has no PG_VERSION, so it is no Postgres cluster");
        }
        if self.dir.join("history/events").exists() {
            return lost("it is missing, and with it the event store that the history beside it came from");
        }
        Ok(())
    }

    fn initialize(&self) -> Result<(), ServerError> {
        let new = self.dir.join("postgres.new");
        if new.exists() {
            fs::remove_dir_all(&new).map_err(io_error("removing an unfinished cluster"))?;
        }
        fs::create_dir(&new).map_err(io_error("making the cluster's directory"))?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o700))
            .map_err(io_error("making the cluster's directory"))?;
        let password = new.with_extension("password");
        write_secret(&password, self.secrets.owner_password.as_bytes())?;
        if rustix::process::geteuid().is_root() {
            let (uid, gid) = unprivileged_user()?;
            chown(&password, Some(uid), Some(gid)).map_err(io_error("writing the password"))?;
        }
        let mut command = self.command("initdb", &new)?;
        command.args(["-U", "weir", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--pwfile=/dev/stdin"]);
        command.stdin(File::open(&password).map_err(io_error("reading the password"))?);
        let output = command.output().map_err(io_error("running initdb"))?;
        fs::remove_file(&password).map_err(io_error("removing the password"))?;
        if !output.status.success() {
            let tail = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(ServerError::DoesNotStart { log: "initdb".into(), tail });
        }
        // Only a complete cluster gets the name that later starts look for.
        fs::rename(&new, self.cluster()).map_err(io_error("finishing the cluster"))
    }

    /// A server program on a cluster directory, as a user that it accepts.
    fn command(&self, program: &str, cluster: &Path) -> Result<Command, ServerError> {
        let mut command = Command::new(self.bin.join(program));
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").env("TZ", "UTC").current_dir("/");
        if !rustix::process::geteuid().is_root() {
            command.arg("-D").arg(cluster);
            return Ok(command);
        }
        let (uid, gid) = unprivileged_user()?;
        chown(cluster, Some(uid), Some(gid)).map_err(io_error("giving the cluster to its user"))?;
        let opened = File::open(cluster).map_err(io_error("opening the cluster"))?;
        rustix::io::fcntl_setfd(&opened, rustix::io::FdFlags::empty())
            .map_err(|e| io_error("opening the cluster")(e.into()))?;
        command.arg("-D").arg(format!("/proc/self/fd/{}", opened.as_raw_fd())).uid(uid).gid(gid);
        // Must stay open until the program runs; a handful of these over a process's life is no leak worth a mechanism.
        std::mem::forget(opened);
        Ok(command)
    }

    /// Whether our own server answers. A copy of this data directory may run its server on the same port, with the same
    /// password: only the process number in the server's own files tells them apart.
    async fn answers(&self) -> bool {
        let Some(pid) = self.pid() else { return false };
        let asked = async {
            let (client, connection) = tokio_postgres::connect(&self.owner_url(), NoTls).await?;
            let driving = tokio::spawn(connection);
            let row = client.query_one("SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)", &[]).await;
            driving.abort();
            row?.try_get::<_, String>(0)
        };
        let answer = tokio::time::timeout(Duration::from_secs(5), asked).await;
        matches!(answer, Ok(Ok(theirs)) if theirs.trim() == pid.as_raw_nonzero().to_string())
    }

    /// Under the server lock: if it does not answer, start it. Only where nobody uses it may it take another port: all others
    /// connect to the one that it had, and whoever took that is not asked to be our database.
    async fn ensure_running(&mut self, may_move: bool) -> Result<(), ServerError> {
        if self.answers().await {
            return Ok(());
        }
        let log_path = self.dir.join("postgres.log");
        let started = Instant::now();
        let mut moved = false;
        while started.elapsed() < START_TIMEOUT {
            if self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None))) {
                // A server that was killed may leave processes behind that hold its memory for a moment: try again.
                if self.child.is_some() {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    if may_move && !moved && log_tail(&log_path).contains("Address already in use") {
                        self.move_port()?;
                        moved = true;
                    }
                }
                let log = OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(&log_path)
                    .map_err(io_error("opening the server's log"))?;
                self.child = Some(self.spawn(log)?);
            }
            if self.answers().await {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Err(ServerError::DoesNotStart { tail: log_tail(&log_path), log: log_path })
    }

    fn spawn(&self, log: File) -> Result<Child, ServerError> {
        let mut command = self.command("postgres", &self.cluster())?;
        command
            .args(["-p", &self.secrets.port.to_string()])
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .args(["-c", "max_connections=200", "-c", "shared_buffers=128MB", "-c", "max_wal_size=2GB"])
            .args(["-c", "wal_compression=on", "-c", "jit=off"])
            // Ctrl-C in our terminal is for us: the server stops when its last user says so.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(io_error("opening the server's log"))?)
            .stderr(log);
        command.spawn().map_err(io_error("starting postgres"))
    }

    fn move_port(&mut self) -> Result<(), ServerError> {
        self.secrets.port = free_port()?;
        Ok(write_durably(&self.dir.join("secrets.json"), &self.secrets, 0o600)?)
    }

    /// The role behind [`Self::reader_url`].
    async fn ensure_reader(&self) -> Result<(), ServerError> {
        let failed = |e: tokio_postgres::Error| io_error("making the reader's role")(io::Error::other(e));
        let (client, connection) = tokio_postgres::connect(&self.owner_url(), NoTls).await.map_err(failed)?;
        let driving = tokio::spawn(connection);
        // The password is ours and hexadecimal, so it can stand in the statement, where parameters cannot.
        let sql = format!(
            "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'weir_reader') THEN CREATE ROLE weir_reader NOLOGIN; END IF; \
             IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'weir_dashboard') THEN \
               CREATE ROLE weir_dashboard LOGIN IN ROLE weir_reader PASSWORD '{}'; \
               ALTER ROLE weir_dashboard SET default_transaction_read_only = on; END IF; END $$",
            self.secrets.reader_password
        );
        let done = client.batch_execute(&sql).await.map_err(failed);
        drop(client);
        drop(driving.await);
        done
    }

    /// The server's process, if it lives.
    fn pid(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.cluster().join("postmaster.pid")).ok()?;
        let pid = Pid::from_raw(text.lines().next()?.trim().parse().ok()?)?;
        rustix::process::test_kill_process(pid).is_ok().then_some(pid)
    }

    /// Restarts the server whenever it has died, until dropped.
    pub(crate) async fn supervise(&mut self) -> ServerError {
        loop {
            tokio::time::sleep(Duration::from_millis(250)).await;
            let ended = self.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)));
            if !ended && self.pid().is_some() {
                continue;
            }
            tracing::warn!("the embedded Postgres server died; starting it again");
            self.child = None;
            let restarted = match self.dir.lock_server().await {
                Ok(_starting) => self.ensure_running(false).await,
                Err(error) => Err(error.into()),
            };
            if let Err(error) = restarted {
                return error;
            }
        }
    }

    /// Stops the server, unless others use it.
    pub(crate) async fn stop(mut self) -> Result<(), ServerError> {
        let _stopping = self.dir.lock_server().await?;
        // Ours must go before the others can be asked for.
        self.users = None;
        if self.dir.has_users()? {
            return Ok(());
        }
        let Some(pid) = self.pid() else { return Ok(()) };
        let failed = |e: rustix::io::Errno| io_error("stopping postgres")(e.into());
        rustix::process::kill_process(pid, Signal::INT).map_err(failed)?;
        let started = Instant::now();
        while started.elapsed() < STOP_TIMEOUT {
            if let Some(child) = &mut self.child {
                if !matches!(child.try_wait(), Ok(None)) {
                    return Ok(());
                }
            } else if self.pid().is_none() {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        rustix::process::kill_process(pid, Signal::QUIT).map_err(failed)
    }
}

fn secrets(dir: &DataDir) -> Result<Secrets, ServerError> {
    let path = dir.join("secrets.json");
    match fs::read_to_string(&path) {
        Ok(text) => {
            let corrupt = |e: serde_json::Error| DataDirError::Corrupt { path: path.clone(), reason: e.to_string() };
            Ok(serde_json::from_str(&text).map_err(corrupt)?)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if dir.join("postgres").exists() {
                let reason = "it is missing, and with it the passwords of the cluster beside it".to_owned();
                return Err(DataDirError::Corrupt { path, reason }.into());
            }
            let password = || format!("{:032x}", rand::random::<u128>());
            let secrets = Secrets { port: free_port()?, owner_password: password(), reader_password: password() };
            write_durably(&path, &secrets, 0o600)?;
            Ok(secrets)
        }
        Err(error) => Err(io_error("reading secrets.json")(error)),
    }
}

/// Rather none of those that the system gives to outgoing connections: one of them could take it while the server is down.
fn free_port() -> Result<u16, ServerError> {
    const PORTS: std::ops::Range<u16> = 20_000..30_000;
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    if let Some(port) = (0..100).map(|_| rand::random_range(PORTS)).find(is_free) {
        return Ok(port);
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(io_error("looking for a free port"))?;
    Ok(listener.local_addr().map_err(io_error("looking for a free port"))?.port())
}

fn log_tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

fn find_binaries() -> Result<PathBuf, ServerError> {
    let complete = |dir: &PathBuf| dir.join("initdb").is_file() && dir.join("postgres").is_file();
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
    let mut versions: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, dir)| complete(dir))
        .collect();
    versions.sort_unstable();
    if let Some((_, newest)) = versions.pop() {
        return Ok(newest);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).find(complete).ok_or(ServerError::NotInstalled)
}

fn unprivileged_user() -> Result<(u32, u32), ServerError> {
    let passwd = fs::read_to_string("/etc/passwd").map_err(io_error("looking for a user"))?;
    let find = |name: &str| {
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut ids = line.split(':').skip(2).map(str::parse);
        Some((ids.next()?.ok()?, ids.next()?.ok()?))
    };
    find("postgres").or_else(|| find("nobody")).ok_or(ServerError::NoUser)
}
