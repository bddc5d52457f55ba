//! One data directory: what is in it, and who may use it.
//!
//! ```text
//! weir-data.json   marks the directory as ours, with the layout's number
//! running.json     addresses of the running instance
//! *.lock           instance (up or demo: one), users (everyone who needs the server), server (starting and stopping it)
//! secrets.json     passwords of the embedded server
//! postgres/        its files
//! history/         the Delta table
//! spill/           temporary files of sorts
//! ```
//!
//! All of it is its user's alone: directories 0700, files 0600, or readable by the group that `files.group` names.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::access::{self, AccessError};
use crate::output::complain;

/// The layout that this build reads and writes.
const FORMAT: u32 = 1;

const MARKER: &str = "weir-data.json";
const RUNNING: &str = "running.json";

#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    format: u32,
}

/// What a running instance tells those who come after.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Running {
    /// Its process.
    pub(crate) pid: u32,
    /// Base URL of the HTTP side.
    pub(crate) api: String,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    /// Somebody else's files.
    #[error(
        "{path} is not empty and no data directory of weir: it holds {first}; choose another --data-dir, nothing was changed"
    )]
    Foreign { path: PathBuf, first: String },
    /// Our marker, but unreadable.
    #[error("{path} is damaged: {reason}; restore it from a copy, or choose another --data-dir, nothing was changed")]
    Corrupt { path: PathBuf, reason: String },
    /// A newer weir wrote it.
    #[error("{path} has layout {found}; this weir knows {FORMAT}: use a newer weir")]
    Newer { path: PathBuf, found: u32 },
    /// Two instances.
    #[error("{path} is in use: {holder}; stop that instance first, or choose another --data-dir")]
    InUse { path: PathBuf, holder: String },
    /// Others may have put something into it.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Somebody holds a lock and does not let go.
    #[error(
        "{path} was held for {} s by {holder}; see what it does, and end it by its number if it hangs", LOCK_PATIENCE.as_secs()
    )]
    Held { path: PathBuf, holder: String },
    /// The file system.
    #[error("{action} {path} failed")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

/// An opened data directory.
#[derive(Debug, Clone)]
pub(crate) struct DataDir {
    path: PathBuf,
}

/// How long a lock is waited for at most: longer than a server takes to start or to stop.
const LOCK_PATIENCE: Duration = Duration::from_secs(150);

/// After waiting this long for a lock, the process that holds it is named on stderr.
const LOCK_WORDS: Duration = Duration::from_secs(2);

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    move |source| DataDirError::Io { action, path: path.to_owned(), source }
}

/// Where data goes when it is not said: the system's place for root, the user's own place otherwise.
pub(crate) fn default_path(name: &str) -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return Path::new("/var/lib").join(name);
    }
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).or_else(home);
    data.unwrap_or_else(|| PathBuf::from(".")).join(name)
}

impl DataDir {
    /// Opens the directory, or makes an empty one ours. Never touches anybody else's files.
    pub(crate) fn open(path: &Path) -> Result<Self, DataDirError> {
        fs::create_dir_all(path).map_err(io_error("making", path))?;
        let path = path.canonicalize().map_err(io_error("opening", path))?;
        let is_empty = fs::read_dir(&path).map_err(io_error("reading", &path))?.next().is_none();
        access::claim(&path, is_empty)?;
        let marker = path.join(MARKER);
        let corrupt = |reason: String| DataDirError::Corrupt { path: marker.clone(), reason };
        match fs::read_to_string(&marker) {
            Ok(text) => {
                let found: Marker = serde_json::from_str(&text).map_err(|e| corrupt(e.to_string()))?;
                if found.format > FORMAT {
                    return Err(DataDirError::Newer { path, found: found.format });
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let entries = fs::read_dir(&path).map_err(io_error("reading", &path))?.filter_map(Result::ok);
                // Our own first file, of a start that was killed, and settings put there beforehand are no strangers.
                let ours = |name: &std::ffi::OsString| {
                    name == "weir-data.json.new" || name == "weir.toml" || name == "lost+found"
                };
                if let Some(first) = entries.map(|entry| entry.file_name()).find(|name| !ours(name)) {
                    return Err(DataDirError::Foreign { path, first: first.to_string_lossy().into_owned() });
                }
                write_durably(&marker, &Marker { format: FORMAT })?;
            }
            Err(error) => return Err(io_error("reading", &marker)(error)),
        }
        Ok(Self { path })
    }

    /// The directory itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Something in it.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A place for temporary files of this process. What killed processes left is removed.
    pub(crate) fn spill(&self) -> Result<PathBuf, DataDirError> {
        let all = self.join("spill");
        let path = all.join(std::process::id().to_string());
        fs::create_dir_all(&path).map_err(io_error("making", &path))?;
        for entry in fs::read_dir(&all).map_err(io_error("reading", &all))?.filter_map(Result::ok) {
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
            if pid.is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH)) {
                // Another process may be removing the same; the next process tries again.
                if let Err(error) = fs::remove_dir_all(entry.path()) {
                    tracing::debug!(%error, "temporary files stay");
                }
            }
        }
        Ok(path)
    }

    /// Lets a group read history, and nothing else; with none, no one.
    pub(crate) fn share(&self, group: Option<&str>) -> Result<(), DataDirError> {
        let history = self.join("history");
        if group.is_some() {
            fs::create_dir_all(&history).map_err(io_error("making", &history))?;
        }
        Ok(access::share(&self.path, &history, group)?)
    }

    /// Where history lives unless the settings say otherwise.
    pub(crate) fn history(&self) -> Result<Url, DataDirError> {
        let path = self.join("history");
        fs::create_dir_all(&path).map_err(io_error("making", &path))?;
        Url::from_directory_path(&path)
            .map_err(|()| DataDirError::Corrupt { path, reason: "its path is no URL".to_owned() })
    }

    fn lock_file(&self, name: &str) -> Result<File, DataDirError> {
        let path = self.join(name);
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true).mode(0o600).custom_flags(NOFOLLOW);
        options.open(&path).map_err(io_error("opening", &path))
    }

    /// Waits for a lock as long as it may take, and says for whom.
    async fn lock(
        &self,
        name: &str,
        try_lock: impl Fn(&File) -> Result<(), TryLockError>,
    ) -> Result<File, DataDirError> {
        let (mut file, started, path) = (self.lock_file(name)?, Instant::now(), self.join(name));
        let mut said = false;
        loop {
            match try_lock(&file) {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(io_error("locking", &path)(error)),
                Err(TryLockError::WouldBlock) => {}
            }
            if started.elapsed() > LOCK_PATIENCE {
                return Err(DataDirError::Held { path, holder: holder(&mut file) });
            }
            if !said && started.elapsed() > LOCK_WORDS {
                complain(&format!("waiting for {}, held by {}", path.display(), holder(&mut file)));
                said = true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The right to run lanes here; held until dropped.
    pub(crate) fn lock_instance(&self) -> Result<File, DataDirError> {
        let file = self.lock_file("instance.lock")?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => {
                let holder = self.running().map_or_else(
                    || "another weir is starting on it".to_owned(),
                    |running| format!("process {} serves {}", running.pid, running.api),
                );
                Err(DataDirError::InUse { path: self.path.clone(), holder })
            }
            Err(TryLockError::Error(error)) => Err(io_error("locking", &self.path)(error)),
        }
    }

    /// Whether an instance runs here.
    pub(crate) fn is_running(&self) -> Result<bool, DataDirError> {
        let file = self.lock_file("instance.lock")?;
        Ok(matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// Held, shared, by everyone who needs the embedded server: the last one stops it.
    pub(crate) async fn lock_users(&self) -> Result<File, DataDirError> {
        self.lock("users.lock", File::try_lock_shared).await
    }

    /// The same alone, if no process needs the embedded server; none comes to need it while this is held.
    pub(crate) fn lock_users_alone(&self) -> Result<Option<File>, DataDirError> {
        let mut file = self.lock_file("users.lock")?;
        match file.try_lock() {
            Ok(()) => {
                sign(&mut file);
                Ok(Some(file))
            }
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(io_error("locking", &self.path)(error)),
        }
    }

    /// Held while the embedded server is started.
    pub(crate) async fn lock_server(&self) -> Result<File, DataDirError> {
        let mut file = self.lock("server.lock", File::try_lock).await?;
        sign(&mut file);
        Ok(file)
    }

    /// What the running instance said of itself; `None` when none runs, or it has not said yet.
    pub(crate) fn running(&self) -> Option<Running> {
        serde_json::from_str(&fs::read_to_string(self.join(RUNNING)).ok()?).ok()
    }

    pub(crate) fn set_running(&self, running: &Running) -> Result<(), DataDirError> {
        write_durably(&self.join(RUNNING), running)
    }

    pub(crate) fn clear_running(&self) {
        if let Err(error) = fs::remove_file(self.join(RUNNING)) {
            tracing::debug!(%error, "running.json stays");
        }
    }
}

const NOFOLLOW: i32 = OFlags::NOFOLLOW.bits().cast_signed();

/// Notes who holds a lock, for those who wait.
fn sign(file: &mut File) {
    let signed = file.set_len(0).and_then(|()| file.write_all(std::process::id().to_string().as_bytes()));
    if let Err(error) = signed {
        tracing::debug!(%error, "a lock is not signed");
    }
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(20).read_to_string(&mut text));
    match read.ok().and_then(|_| text.trim().parse::<u32>().ok()) {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}

/// Whole or not at all, whatever dies.
pub(crate) fn write_durably(path: &Path, value: &impl Serialize) -> Result<(), DataDirError> {
    let bytes = serde_json::to_vec_pretty(value).map_err(|e| io_error("writing", path)(e.into()))?;
    write_bytes(path, &bytes, |_| Ok(()))
}

/// [`write_durably`] of bytes. `prepare` gets the new file before anyone can find it by its name.
pub(crate) fn write_bytes(
    path: &Path,
    bytes: &[u8],
    prepare: impl Fn(&File) -> io::Result<()>,
) -> Result<(), DataDirError> {
    let mut new = path.to_owned().into_os_string();
    new.push(".new");
    let new = PathBuf::from(new);
    let write = || -> io::Result<()> {
        // Of a start that was killed, or planted: never written through.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).custom_flags(NOFOLLOW).open(&new)?;
        prepare(&file)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    };
    write().map_err(io_error("writing", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_and_damaged_directories_are_refused_and_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("thesis.txt"), "years of work").expect("written");
        assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::Foreign { .. })));
        assert_eq!(fs::read_dir(dir.path()).expect("read").count(), 1);

        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join(MARKER), "{").expect("written");
        assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::Corrupt { .. })));
        fs::write(dir.path().join(MARKER), "{\"format\": 2}").expect("written");
        assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::Newer { found: 2, .. })));
    }

    #[test]
    fn temporary_files_of_the_dead_are_removed_and_those_of_the_living_stay() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = DataDir::open(dir.path()).expect("ours");
        let mut dead = std::process::Command::new("true").spawn().expect("a process");
        dead.wait().expect("it ends");
        let (left, kept) = (dir.join("spill").join(dead.id().to_string()), dir.join("spill").join("1"));
        fs::create_dir_all(&left).and_then(|()| fs::create_dir_all(&kept)).expect("made");
        let own = dir.spill().expect("made");
        assert_eq!((left.exists(), kept.exists(), own.exists()), (false, true, true));
    }

    #[test]
    fn an_interrupted_first_start_is_taken_up() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("weir-data.json.new"), "{").expect("written");
        DataDir::open(dir.path()).expect("ours");
        DataDir::open(dir.path()).expect("still ours");
    }
}
