//! The embedded Postgres server: made, started, adopted after a kill, restarted when it dies, stopped by the last user.
//!
//! Postgres refuses to run as root, so under root it runs as the user `postgres` (else `nobody`), who may not be able to
//! enter the directories above the data directory. It gets its own directory as an open file and addresses it as
//! `/proc/self/fd/N`, which needs no path.
//!
//! weir reaches it by a socket within the cluster's directory, where no other user can put one, and works as a role that is no superuser.
//! TCP is for readers alone.

mod child;
mod cluster;
mod roles;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, fchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio_postgres::NoTls;

use crate::access::{self, AccessError};
use crate::data_dir::{DataDir, DataDirError, write_bytes, write_durably};

use child::Child;

const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// The superuser role that initdb makes. It sets the other roles up, and does nothing else.
const SUPERUSER: &str = "weir";

/// The role that weir itself connects as.
const OWNER: &str = "weir_owner";

/// The role of people and dashboards, which can only read.
const READER: &str = "weir_dashboard";

/// Longest path of the socket's directory, in bytes: a socket's address has 108 (`sockaddr_un`), the file's name included.
const SOCKET_DIR_MAX: usize = 85;

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
    /// Programs that others may have written.
    #[error(transparent)]
    Access(#[from] AccessError),
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
    /// The superuser's.
    owner_password: String,
    /// [`OWNER`]'s; directories of earlier versions have none yet.
    #[serde(default)]
    worker_password: String,
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
        for program in [bin.clone(), bin.join("postgres"), bin.join("initdb")] {
            if program.exists() {
                access::check(&program)?;
            }
        }
        if let Some(server) = Self::adopt(dir, &bin).await? {
            return Ok(server);
        }
        let starting = dir.lock_server().await?;
        // A process that uses it already keeps on asking at the port that it had.
        let may_move = dir.lock_users_alone()?.is_some();
        let users = dir.lock_users().await?;
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
        roles::set_up(&server.url_of(SUPERUSER, &server.secrets.owner_password)?, &server.secrets).await?;
        drop(starting);
        Ok(server)
    }

    /// Where it runs already nothing has to be started, so nothing is waited for.
    async fn adopt(dir: &DataDir, bin: &Path) -> Result<Option<Self>, ServerError> {
        let users = dir.lock_users().await?;
        let Some(secrets) = known_secrets(dir)? else { return Ok(None) };
        let server = Self { dir: dir.clone(), bin: bin.to_owned(), secrets, users: Some(users), child: None };
        let is_ready = server.answers(OWNER, &server.secrets.worker_password).await;
        Ok(is_ready.then_some(server))
    }

    /// For everything that weir does itself.
    pub(crate) fn owner_url(&self) -> Result<String, ServerError> {
        self.url_of(OWNER, &self.secrets.worker_password)
    }

    /// For people and dashboards: may read, nothing else. A client that knows channel binding gives its password to no server that does not
    /// have it already.
    pub(crate) fn reader_url(&self) -> String {
        self.url_by_tcp(READER, &self.secrets.reader_password)
    }

    /// The same for another role that may only read.
    pub(crate) fn url_by_tcp(&self, role: &str, password: &str) -> String {
        let port = self.secrets.port;
        format!("postgres://{role}:{password}@127.0.0.1:{port}/postgres?sslmode=require&channel_binding=require")
    }

    /// For making roles, and nothing else.
    pub(crate) fn superuser_url(&self) -> Result<String, ServerError> {
        self.url_of(SUPERUSER, &self.secrets.owner_password)
    }

    fn url_of(&self, role: &str, password: &str) -> Result<String, ServerError> {
        let dir = percent_encoded(&self.socket_dir()?);
        Ok(format!("postgres://{role}:{password}@{dir}:{}/postgres?sslmode=disable", self.secrets.port))
    }

    /// Where the socket is, as a path that is short enough.
    fn socket_dir(&self) -> Result<PathBuf, ServerError> {
        let cluster = self.cluster();
        if cluster.as_os_str().len() <= SOCKET_DIR_MAX {
            return Ok(cluster);
        }
        static OPENED: std::sync::OnceLock<File> = std::sync::OnceLock::new();
        let opened = match OPENED.get() {
            Some(opened) => opened,
            None => {
                let opened = File::open(&cluster).map_err(io_error("opening the cluster"))?;
                OPENED.get_or_init(|| opened)
            }
        };
        Ok(PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd())))
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
        let owner = cluster_user()?;
        let give = |file: &File| owner.map_or(Ok(()), |(uid, gid)| fchown(file, Some(uid), Some(gid)));
        write_bytes(&password, self.secrets.owner_password.as_bytes(), give)?;
        let mut command = self.command("initdb", &new)?;
        command.args(["-U", SUPERUSER, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--pwfile=/dev/stdin"]);
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
        let Some((uid, gid)) = cluster_user()? else {
            command.arg("-D").arg(cluster);
            return Ok(command);
        };
        chown(cluster, Some(uid), Some(gid)).map_err(io_error("giving the cluster to its user"))?;
        let opened = File::open(cluster).map_err(io_error("opening the cluster"))?;
        rustix::io::fcntl_setfd(&opened, rustix::io::FdFlags::empty())
            .map_err(|e| io_error("opening the cluster")(e.into()))?;
        command.arg("-D").arg(format!("/proc/self/fd/{}", opened.as_raw_fd())).uid(uid).gid(gid);
        // Must stay open until the program runs; a handful of these over a process's life is no leak worth a mechanism.
        std::mem::forget(opened);
        Ok(command)
    }

    /// Whether our own server answers a role: at the socket in our cluster's directory, from a process of the cluster's user.
    async fn answers(&self, role: &str, password: &str) -> bool {
        let (Some(_), Ok(url)) = (self.pid(), self.url_of(role, password)) else { return false };
        if password.is_empty() || !self.peer_is_ours().await {
            return false;
        }
        let asked = async {
            let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
            let driving = tokio::spawn(connection);
            let answer = client.batch_execute("SELECT 1").await;
            driving.abort();
            answer
        };
        matches!(tokio::time::timeout(Duration::from_secs(5), asked).await, Ok(Ok(())))
    }

    /// Whether who listens at the socket is the cluster's user.
    async fn peer_is_ours(&self) -> bool {
        let asked = async {
            let dir = self.socket_dir().map_err(io::Error::other)?;
            let stream = UnixStream::connect(dir.join(format!(".s.PGSQL.{}", self.secrets.port))).await?;
            Ok::<_, io::Error>(stream.peer_cred()?.uid() == fs::metadata(self.cluster())?.uid())
        };
        asked.await.unwrap_or(false)
    }

    /// Under the server lock: if it does not answer, start it. Only where no process uses it may it take another port: all others
    /// connect to the one that it had, and the process that took that is not asked to be our database.
    async fn ensure_running(&mut self, may_move: bool) -> Result<(), ServerError> {
        if self.answers_superuser().await {
            // Somebody else may have started it again after ours had ended.
            self.child = self.child.take().filter(|child| !child.has_ended());
            return Ok(());
        }
        cluster::prepare(&self.cluster(), cluster_user()?)?;
        let log_path = self.dir.join("postgres.log");
        let started = Instant::now();
        let (mut tried, mut moved) = (false, false);
        while started.elapsed() < START_TIMEOUT {
            if self.child.as_ref().is_none_or(Child::has_ended) {
                // A server that was killed may leave processes behind that hold its memory for a moment: try again.
                if tried {
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
                tried = true;
            }
            if self.answers_superuser().await {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Err(ServerError::DoesNotStart { tail: log_tail(&log_path), log: log_path })
    }

    async fn answers_superuser(&self) -> bool {
        self.answers(SUPERUSER, &self.secrets.owner_password).await
    }

    fn spawn(&self, log: File) -> Result<Child, ServerError> {
        let mut command = self.command("postgres", &self.cluster())?;
        command
            .args(["-p", &self.secrets.port.to_string()])
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=."])
            .args(["-c", "unix_socket_permissions=0700", "-c", "password_encryption=scram-sha-256", "-c", "ssl=on"])
            .args(["-c", "max_connections=200", "-c", "shared_buffers=128MB", "-c", "max_wal_size=2GB"])
            .args(["-c", "wal_compression=on", "-c", "jit=off"])
            // Ctrl-C in our terminal is for us: the server stops when its last user says so.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(io_error("opening the server's log"))?)
            .stderr(log);
        Child::spawn(command).map_err(io_error("starting postgres"))
    }

    fn move_port(&mut self) -> Result<(), ServerError> {
        self.secrets.port = free_port()?;
        // The process that listens at the old one may have been told it.
        self.secrets.reader_password = password();
        Ok(write_durably(&self.dir.join("secrets.json"), &self.secrets)?)
    }

    /// The server's process, if it lives: a number in a file that a killed one left may be a stranger's by now.
    fn pid(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.cluster().join("postmaster.pid")).ok()?;
        let pid = Pid::from_raw(text.lines().next()?.trim().parse().ok()?)?;
        // Postgres works in its data directory.
        let process = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
        let cluster = fs::metadata(self.cluster()).ok()?;
        let is_it = match fs::metadata(process.join("cwd")) {
            Ok(works_in) => (works_in.dev(), works_in.ino()) == (cluster.dev(), cluster.ino()),
            // In a container root may not look into processes of other users; that it is the cluster's user's has to do.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                fs::metadata(&process).is_ok_and(|of| of.uid() == cluster.uid())
            }
            Err(_) => false,
        };
        is_it.then_some(pid)
    }

    /// Restarts the server whenever it has died, until dropped.
    pub(crate) async fn supervise(&mut self) -> ServerError {
        loop {
            tokio::time::sleep(Duration::from_millis(250)).await;
            let lives = match &self.child {
                Some(child) => !child.has_ended(),
                None => self.pid().is_some(),
            };
            if lives {
                continue;
            }
            tracing::warn!("the embedded Postgres server died; starting it again");
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
        // Ours must go before the others can be asked for; while no process has theirs, none comes to use it.
        self.users = None;
        let Some(_alone) = self.dir.lock_users_alone()? else { return Ok(()) };
        let Some(pid) = self.pid() else { return Ok(()) };
        let failed = |e: rustix::io::Errno| io_error("stopping postgres")(e.into());
        rustix::process::kill_process(pid, Signal::INT).map_err(failed)?;
        let started = Instant::now();
        while started.elapsed() < STOP_TIMEOUT {
            if let Some(child) = &self.child {
                if child.has_ended() {
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

fn known_secrets(dir: &DataDir) -> Result<Option<Secrets>, ServerError> {
    let path = dir.join("secrets.json");
    match fs::read_to_string(&path) {
        Ok(text) => {
            let corrupt = |e: serde_json::Error| DataDirError::Corrupt { path: path.clone(), reason: e.to_string() };
            Ok(Some(serde_json::from_str(&text).map_err(corrupt)?))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("reading secrets.json")(error)),
    }
}

/// Under the server lock: makes what is missing.
fn secrets(dir: &DataDir) -> Result<Secrets, ServerError> {
    let path = dir.join("secrets.json");
    let known = known_secrets(dir)?;
    if known.is_none() && dir.join("postgres").exists() {
        let reason = "it is missing, and with it the passwords of the cluster beside it".to_owned();
        return Err(DataDirError::Corrupt { path, reason }.into());
    }
    let secrets = match known {
        Some(known) if !known.worker_password.is_empty() => return Ok(known),
        Some(known) => Secrets { worker_password: password(), ..known },
        None => Secrets {
            port: free_port()?,
            owner_password: password(),
            worker_password: password(),
            reader_password: password(),
        },
    };
    write_durably(&path, &secrets)?;
    Ok(secrets)
}

fn password() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// A path as a URL's host.
fn percent_encoded(path: &Path) -> String {
    let byte = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(*byte).to_string(),
        other => format!("%{other:02X}"),
    };
    path.as_os_str().as_bytes().iter().map(byte).collect()
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

/// User and group that the cluster belongs to, where they are not our own.
fn cluster_user() -> Result<Option<(u32, u32)>, ServerError> {
    rustix::process::geteuid().is_root().then(unprivileged_user).transpose()
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
