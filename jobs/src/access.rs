//! Whose files these are, and who else may read them.
//!
//! Everything that weir makes is its user's alone: the process's umask sees to it. What an earlier version left readable is tightened at
//! the next start. What others may have written is not used at all.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

use crate::output::complain;

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccessError {
    /// Somebody else's.
    #[error(
        "{path} belongs to user {owner}, who could change it under a running weir; use one of your own (chown -R {user} {path}), \
         nothing was changed"
    )]
    Owner { path: PathBuf, owner: u32, user: u32 },
    /// Others could have put anything there.
    #[error(
        "{path} may be written by others (mode {mode:o}); see what is in it, then chmod -R go-w {path}; nothing was changed"
    )]
    Writable { path: PathBuf, mode: u32 },
    /// No such group.
    #[error("files.group: there is no group `{name}` on this machine")]
    Group { name: String },
    /// The file system.
    #[error("{action} {path} failed")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AccessError {
    move |source| AccessError::Io { action, path: path.to_owned(), source }
}

/// Bits of a mode that are a group's and everybody's.
const OTHERS: u32 = 0o077;

/// Takes as many file descriptors as the system gives: connections, files and sockets are limited by settings of their own.
pub(crate) fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // What was allowed before stays allowed.
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap_or(());
}

/// From here on what this process and its children make is the user's alone.
pub(crate) fn keep_private() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

/// Refuses what others could have written: a directory, a settings file, a program.
pub(crate) fn check(path: &Path) -> Result<(), AccessError> {
    let metadata = fs::metadata(path).map_err(io_error("looking at", path))?;
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user && metadata.uid() != 0 {
        return Err(AccessError::Owner { path: path.to_owned(), owner: metadata.uid(), user });
    }
    // Everybody may write into a directory of temporary files, but only to what is their own.
    let is_sticky = metadata.is_dir() && metadata.mode() & 0o1000 != 0;
    if metadata.mode() & 0o022 != 0 && !is_sticky {
        return Err(AccessError::Writable { path: path.to_owned(), mode: metadata.mode() & 0o7777 });
    }
    Ok(())
}

/// Makes a data directory its user's alone, with what is in it; says so where it was not. An empty one may be of any mode before.
pub(crate) fn claim(dir: &Path, is_empty: bool) -> Result<(), AccessError> {
    let metadata = fs::metadata(dir).map_err(io_error("looking at", dir))?;
    let is_own = metadata.uid() == rustix::process::geteuid().as_raw();
    if is_empty && is_own && metadata.mode() & OTHERS != 0 {
        return set_mode(dir, 0o700);
    }
    check(dir)?;
    // A group that may go through, and no one else: see `share`.
    if metadata.mode() & OTHERS & !0o010 == 0 {
        return Ok(());
    }
    let changed = tighten(dir, &NOT_OURS)?;
    complain(&format!(
        "{} could be read by others: {changed} directories and files of it are its user's alone now (files.group names a group that may \
         read history)",
        dir.display()
    ));
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> Result<(), AccessError> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(io_error("closing", path))
}

/// Directories that are left alone: they belong to the database server's user, and are private already.
const NOT_OURS: [&str; 2] = ["postgres", "postgres.new"];

/// Sets the modes of a directory, and of what is in it, so that only its user may use them. The directory itself comes last, so that
/// after a kill in between its mode still shows that there is more to do. Returns how many directories and files it set.
fn tighten(dir: &Path, but: &[&str]) -> Result<u64, AccessError> {
    let mut changed = 0;
    for entry in fs::read_dir(dir).map_err(io_error("reading", dir))? {
        let entry = entry.map_err(io_error("reading", dir))?;
        let (path, metadata) = (entry.path(), entry.metadata().map_err(io_error("looking at", dir))?);
        if metadata.is_symlink() || entry.file_name().to_str().is_some_and(|name| but.contains(&name)) {
            continue;
        }
        if metadata.is_dir() {
            changed += tighten(&path, &[])?;
        } else if metadata.mode() & OTHERS != 0 {
            set_mode(&path, metadata.mode() & 0o700)?;
            changed += 1;
        }
    }
    set_mode(dir, 0o700)?;
    Ok(changed + 1)
}

/// Lets a group read history, and nothing else of a data directory; with none, no one.
pub(crate) fn share(dir: &Path, history: &Path, group: Option<&str>) -> Result<(), AccessError> {
    let mode = fs::metadata(dir).map_err(io_error("looking at", dir))?.mode();
    let Some(name) = group else {
        if mode & OTHERS != 0 {
            tighten(dir, &NOT_OURS)?;
        }
        return Ok(());
    };
    let group = group_id(name)?;
    rustix::process::umask(Mode::WGRP | Mode::RWXO);
    give(dir, group, 0o710)?;
    let metadata = fs::metadata(history).map_err(io_error("looking at", history))?;
    if metadata.gid() != group || metadata.mode() & 0o7777 != DIRECTORY {
        open_to(history, group)?;
    }
    Ok(())
}

/// The group of what is made in it is its own.
const DIRECTORY: u32 = 0o2750;

fn open_to(dir: &Path, group: u32) -> Result<(), AccessError> {
    for entry in fs::read_dir(dir).map_err(io_error("reading", dir))? {
        let entry = entry.map_err(io_error("reading", dir))?;
        let metadata = entry.metadata().map_err(io_error("looking at", dir))?;
        if metadata.is_dir() {
            open_to(&entry.path(), group)?;
        } else if metadata.is_file() {
            give(&entry.path(), group, 0o640)?;
        }
    }
    give(dir, group, DIRECTORY)
}

fn give(path: &Path, group: u32, mode: u32) -> Result<(), AccessError> {
    chown(path, None, Some(group)).map_err(io_error("giving to files.group", path))?;
    set_mode(path, mode)
}

fn group_id(name: &str) -> Result<u32, AccessError> {
    let path = Path::new("/etc/group");
    let groups = fs::read_to_string(path).map_err(io_error("reading", path))?;
    let line = groups.lines().find(|line| line.split(':').next() == Some(name));
    let id = line.and_then(|line| line.split(':').nth(2)?.parse().ok());
    id.ok_or_else(|| AccessError::Group { name: name.to_owned() })
}
