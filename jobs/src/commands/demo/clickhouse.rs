//! A ClickHouse server for the demo, run from the checkout's own package: `weir` itself knows a URL and no more.

use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use weir_clickhouse::ClickHouse;
use weir_engine::BoxError;

use crate::attached::Target;
use crate::output::complain;

/// How long the server may take to say its address, building and fetching it included.
const PATIENCE: Duration = Duration::from_secs(600);

/// How long the server may take to answer once it has said its address.
const UP_WITHIN: Duration = Duration::from_secs(60);

/// The running server; it is killed when this is dropped.
pub(super) struct ClickHouseServer {
    _child: Child,
}

impl ClickHouseServer {
    /// Starts it and points the settings to it.
    pub(super) async fn start(target: &mut Target) -> Result<Self, BoxError> {
        const ELSEWHERE: &str = "--clickhouse works under `cargo demo` only: it runs a server out of the checkout. Elsewhere start \
             one, and --set clickhouse.url=http://HOST:8123";
        let cargo = std::env::var_os("CARGO").ok_or(ELSEWHERE)?;
        let (dir, _) = target.open()?;
        complain("fetching ClickHouse, if it is not there yet, and starting it …");
        // Whatever cargo said of this package is not about that one.
        let mut command = Command::new(cargo);
        for (name, _) in
            std::env::vars().filter(|(name, _)| name.starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR")
        {
            command.env_remove(name);
        }
        let mut child = command
            .args(["run", "--quiet", "--bin", "weir-clickhouse-server", "--"])
            .arg(dir.join("clickhouse"))
            .args(["0", "0"])
            .env("WEIR_END_WITH_STDIN", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let lines = child.stdout.take().ok_or("no output")?;
        let mut lines = BufReader::new(lines).lines();
        let line =
            tokio::time::timeout(PATIENCE, lines.next_line()).await.map_err(|_| "ClickHouse does not start")??;
        let url = line.ok_or("ClickHouse does not start; it says why above")?;
        // First, so that what a user sets holds.
        let settings = [format!("clickhouse.url={url}"), "clickhouse.user=default".to_owned()];
        target.set.splice(0..0, settings);
        wait_until_up(&target.open()?.1.clickhouse.required()?).await?;
        Ok(Self { _child: child })
    }
}

async fn wait_until_up(server: &ClickHouse) -> Result<(), BoxError> {
    let started = Instant::now();
    loop {
        match server.check_version().await {
            Err(error) if started.elapsed() > UP_WITHIN => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            Ok(_) => return Ok(()),
        }
    }
}
