//! What the tests stand on: the real binary, real servers on free ports, generated input, and an oracle that knows the
//! input only.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot be set up fails, and says so")]
#![allow(clippy::missing_panics_doc, clippy::as_conversions, reason = "tests")]

pub mod fixture;
pub mod kafka;
pub mod mount;
pub mod oracle;
pub mod postgres;
pub mod proxy;
pub mod python;
pub mod tls;
pub mod weir;

pub use fixture::Fixture;
pub use kafka::Kafka;
pub use mount::Mount;
pub use oracle::Facts;
pub use postgres::Postgres;
pub use proxy::Proxy;
pub use weir::{Up, Weir};

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The repository's root.
#[must_use]
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The binary under test, built once with the profile and features of the tests themselves.
pub fn binary() -> &'static PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"));
        // What `cargo test` says about this package would be news to the build scripts of others (ring watches these), and
        // half of everything would be built anew.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CARGO_")) {
            if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_PRIMARY_", "CARGO_BIN_"]
                .iter()
                .any(|p| name.starts_with(p))
            {
                cargo.env_remove(name);
            }
        }
        cargo.args(["build", "--bin", "weir", "--message-format=json-render-diagnostics"]);
        if !cfg!(debug_assertions) {
            cargo.args(["--profile", "bench"]);
        }
        let output = cargo.env_remove("LD_LIBRARY_PATH").current_dir(root()).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "the binary does not build");
        let lines = String::from_utf8(output.stdout).unwrap();
        let executable = lines
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|message| message["target"]["name"] == "weir")
            .find_map(|message| message["executable"].as_str().map(PathBuf::from));
        executable.expect("cargo names the executable")
    })
}

/// The seed of a randomised test: from `WEIR_SEED`, else new. Printed, so that a failure can be replayed.
#[must_use]
pub fn seed(test: &str) -> u64 {
    let seed = std::env::var("WEIR_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random::<u64>);
    println!("{test}: replay with WEIR_SEED={seed}");
    seed
}
