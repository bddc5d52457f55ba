//! Python environments in the user's cache directory, for programs that are not ours; made at first use.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

/// The environment of this name with these packages.
pub fn with(name: &str, packages: &[&str]) -> PathBuf {
    static MAKING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = MAKING.lock().unwrap();
    let version: String = packages[0].chars().filter(|c| c.is_ascii_alphanumeric() || *c == '.').collect();
    let environment = crate::cache().join("weir").join(format!("python-{name}-{version}"));
    if environment.join("complete").exists() {
        return environment;
    }
    let run = |command: &mut Command| {
        let output = command.output().expect("python3 runs; install Debian's python3 and python3-venv");
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success(),
            "{name} cannot be had; install python3-venv and see that PyPI is reached:\n{words}"
        );
    };
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment));
    run(Command::new(environment.join("bin/python")).args(["-m", "pip", "install", "--quiet"]).args(packages));
    std::fs::write(environment.join("complete"), "").unwrap();
    environment
}
