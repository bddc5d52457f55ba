//! What the tests stand on: the real binary, real servers on free ports, generated input, and an oracle that knows the
//! input only.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot be set up fails, and says so")]
#![allow(clippy::missing_panics_doc, clippy::as_conversions, reason = "tests")]

pub mod clickhouse;
pub mod fill;
pub mod fixture;
pub mod grafana;
pub mod kafka;
pub mod mount;
pub mod oracle;
pub mod postgres;
pub mod prometheus;
pub mod proxy;
pub mod python;
pub mod tls;
pub mod weir;

pub use clickhouse::ClickHouse;
pub use fixture::Fixture;
pub use kafka::Kafka;
pub use mount::Mount;
pub use oracle::Facts;
pub use postgres::Postgres;
pub use prometheus::Prometheus;
pub use proxy::Proxy;
pub use weir::{Up, Weir};

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The repository's root.
#[must_use]
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The user's cache directory.
pub fn cache() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache");
    std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from)
}

/// The binary under test.
pub fn binary() -> &'static PathBuf {
    binary_of("weir")
}

/// What the tests use beside Rust is looked for once. Without it they would fail one by one, each in words of its own.
fn require_tools() {
    let checked = Command::new(root().join(".ci/setup")).args(["--check", "test"]).output().unwrap();
    if !checked.status.success() {
        let words = [checked.stdout, checked.stderr].concat();
        std::io::stderr().write_all(&words).unwrap();
        std::process::exit(101);
    }
}

/// A binary of this workspace, built once with the profile and features of the tests themselves.
pub fn binary_of(name: &str) -> &'static PathBuf {
    static BINARIES: OnceLock<Vec<(String, PathBuf)>> = OnceLock::new();
    let binaries = BINARIES.get_or_init(|| {
        require_tools();
        let mut cargo = Command::new(env!("CARGO"));
        // What `cargo test` says about this package would be news to the build scripts of others (ring watches these), and
        // half of everything would be built again.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CARGO_")) {
            if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_PRIMARY_", "CARGO_BIN_"]
                .iter()
                .any(|p| name.starts_with(p))
            {
                cargo.env_remove(name);
            }
        }
        cargo.args(["build", "--bins", "--message-format=json-render-diagnostics"]);
        if !cfg!(debug_assertions) {
            cargo.args(["--profile", "bench"]);
        }
        let output = cargo.env_remove("LD_LIBRARY_PATH").current_dir(root()).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "the binaries do not build");
        let lines = String::from_utf8(output.stdout).unwrap();
        let named = |message: serde_json::Value| {
            let path = PathBuf::from(message["executable"].as_str()?);
            Some((message["target"]["name"].as_str()?.to_owned(), path))
        };
        lines
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter_map(named)
            .collect()
    });
    let found = binaries.iter().find(|(binary, _)| binary == name);
    &found.expect("cargo names the executables").1
}

/// The seed of a randomised test: from `WEIR_SEED`, else new. Printed, so that a failure can be replayed.
#[must_use]
pub fn seed(test: &str) -> u64 {
    let seed = std::env::var("WEIR_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random::<u64>);
    println!("{test}: replay with WEIR_SEED={seed}");
    seed
}
