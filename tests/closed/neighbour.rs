//! Another user of the same machine: reads nothing, holds nobody up, and what he made is not used.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output};

use weir_tests::Weir;

use super::all_below;

/// Debian's `daemon`: there on each machine, and nobody's own.
const NEIGHBOUR: u32 = 1;

fn is_root(test: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        let words = format!("NOT RUN: closed::neighbour::{test}; acting as another user needs root\n");
        std::io::stderr().write_all(words.as_bytes()).unwrap();
    }
    is_root
}

/// Runs a program as the neighbour.
fn as_neighbour(program: &str, args: impl IntoIterator<Item = impl AsRef<std::ffi::OsStr>>) -> Output {
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={NEIGHBOUR}"), &format!("--regid={NEIGHBOUR}"), "--clear-groups", program]);
    command.args(args).current_dir("/").output().unwrap()
}

/// Even with a way into the data directory, no file or socket of it opens for him, and so no lock is his.
#[tokio::test]
async fn he_reads_writes_and_locks_nothing() {
    if !is_root("he_reads_writes_and_locks_nothing") {
        return;
    }
    let weir = Weir::new();
    weir.ok(&["demo", "--events", "100", "--rate", "2000"]);
    let up = weir.up();
    let (data, token) = (weir.path(), up.token("default", "command"));
    fs::set_permissions(data.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    let dirs: Vec<_> = all_below(&data).into_iter().filter(|path| path.is_dir() && !path.is_symlink()).collect();
    let open =
        |mode: u32| dirs.iter().for_each(|dir| fs::set_permissions(dir, fs::Permissions::from_mode(mode)).unwrap());
    open(0o711);
    // Files come and go while a server is at work.
    let paths: Vec<_> = all_below(&data).into_iter().filter(|path| !path.is_dir() && path.exists()).collect();
    assert!(paths.len() > 100, "{}", paths.len());
    for some in paths.chunks(500) {
        let script = r#"for path; do if [ -r "$path" ] || [ -w "$path" ]; then echo "$path"; fi; done"#;
        let script = ["-c", script, "-"].map(|word| Path::new(word).to_owned());
        let opened = as_neighbour("sh", script.into_iter().chain(some.to_vec()));
        assert!(opened.status.success() && opened.stdout.is_empty(), "{}", String::from_utf8_lossy(&opened.stdout));
    }
    let locks: Vec<_> = paths.iter().filter(|path| path.extension().is_some_and(|end| end == "lock")).collect();
    assert!(locks.len() >= 3, "{locks:?}");
    for lock in locks {
        let args = ["--shared", "--nonblock"].map(|word| Path::new(word).to_owned());
        let held = as_neighbour("flock", args.into_iter().chain([lock.clone(), "true".into()]));
        let words = String::from_utf8_lossy(&held.stderr);
        assert!(!held.status.success() && words.contains("Permission denied"), "{}: {words}", lock.display());
    }
    let socket = paths.iter().find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(".s.PGSQL.") && !name.ends_with(".lock")
    });
    let socket = socket.unwrap();
    let (dir, port) = (socket.parent().unwrap().to_str().unwrap(), socket.extension().unwrap().to_str().unwrap());
    let asked = as_neighbour("psql", ["-h", dir, "-p", port, "-U", "postgres", "-c", "SELECT 1"]);
    let words = String::from_utf8_lossy(&asked.stderr);
    assert!(!asked.status.success() && words.contains("Permission denied"), "{words}");
    weir.ok(&["token", "revoke", token.split('_').nth(1).unwrap()]);
    open(0o700);
    up.terminate();
    weir.verify();
}

/// Settings, programs and data directories that are his are not taken for one's own.
#[test]
fn what_he_made_is_not_used() {
    if !is_root("what_he_made_is_not_used") {
        return;
    }
    let weir = Weir::new();
    let near = weir.path().parent().unwrap().to_owned();
    let his = |name: &str| {
        let path = near.join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        chown(&path, Some(NEIGHBOUR), Some(NEIGHBOUR)).unwrap();
        path
    };
    let settings = near.join("his.toml");
    fs::write(&settings, "[postgres]\nbin_dir = \"/tmp\"\n").unwrap();
    chown(&settings, Some(NEIGHBOUR), Some(NEIGHBOUR)).unwrap();
    let bin_dir = format!("postgres.bin_dir={}", his("bin").display());
    let refuses = |weir: &Weir, args: &[&str]| {
        let output = weir.run(args);
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && words.contains("belongs to user 1"), "{args:?}: {words}");
    };
    refuses(&weir, &["status", "--config", settings.to_str().unwrap()]);
    refuses(&weir, &["status", "--set", &bin_dir]);
    assert!(!weir.path().join("postgres").exists());
    let other = Weir::new();
    fs::rename(his("theirs"), other.path()).unwrap();
    fs::write(other.path().join("weir-data.json"), "{}").unwrap();
    refuses(&other, &["status"]);
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 1, "something was made there");
}
