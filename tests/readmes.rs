//! Does every command in a README do what a reader expects when it is pasted, and is the first README as short as it should be?

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use weir_tests::{Fixture, Weir, binary, root};

/// What is not run here, by a part of the command, and why.
const EXEMPT: [(&str, &str); 15] = [
    (".ci/setup", "installs packages"),
    ("cargo ", "builds; CI does that"),
    ("target/x86_64", "fuzzing has a build of its own"),
    ("weir up", "runs beside all other commands here"),
    ("HOST", "needs servers elsewhere: kafka.rs and clickhouse.rs run these with their own"),
    ("clickhouse.url=…", "needs a ClickHouse: clickhouse.rs"),
    ("/backup/weir", "an archive's address: archive.rs"),
    ("weir topics apply", "needs brokers: kafka.rs"),
    ("weir publish", "needs brokers: kafka.rs"),
    ("weir run read-models history", "needs brokers: kafka.rs"),
    ("weir clickhouse migrate", "needs a ClickHouse: clickhouse.rs"),
    ("prometheus --config.file", "goes on until it is stopped: dashboards.rs runs one"),
    ("postgres://ID:TOKEN@", "needs a login: sql_clients.rs has several"),
    ("grafana", "needs a Grafana: tests/dashboards runs its panels' queries"),
    ("weir source switch kafka", "needs brokers: kafka.rs"),
];

/// What goes on until it is told to stop: told so after some seconds, it ends with 0.
const ENDLESS: [&str; 2] = ["weir status --watch", "weir sql --serve"];

fn readmes() -> Vec<PathBuf> {
    let mut found = vec![root().join("README.md"), root().join("tests/benches/README.md")];
    for parent in [root(), root().join("pipeline")] {
        for entry in fs::read_dir(parent).unwrap() {
            let path = entry.unwrap().path().join("README.md");
            found.extend(path.is_file().then_some(path));
        }
    }
    found
}

/// The commands of a README's blocks of shell commands, without their comments.
fn commands(text: &str) -> Vec<String> {
    let blocks = text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    let lines = blocks.flat_map(|block| block.replace("\\\n", " ").lines().map(str::to_owned).collect::<Vec<_>>());
    let bare = lines.map(|line| line.split("  #").next().unwrap_or_default().trim().to_owned());
    bare.filter(|command| !command.is_empty()).collect()
}

#[test]
fn the_first_readme_is_short_and_every_crate_has_one() {
    let lines = fs::read_to_string(root().join("README.md")).unwrap().lines().count();
    assert!(lines <= 150, "{lines} lines");
    for entry in fs::read_dir(root().join("pipeline")).unwrap().map(|entry| entry.unwrap().path()) {
        assert!(!entry.is_dir() || entry.join("README.md").is_file(), "{} has no README.md", entry.display());
    }
}

#[tokio::test]
async fn every_command_in_a_readme_runs() {
    let weir = Weir::new();
    weir.ok(&["demo", "--events", "500", "--rate", "2000"]);
    let fixture = Fixture::new(200, 1);
    let up = weir.up();
    let insert = "INSERT INTO events (id, event_id, tenant, stream_id, version, event_type, schema_version, source, event_jsonb, metadata, \
        timestamp, recorded_at) SELECT max(id) + 1, gen_random_uuid(), 'default', 'Task-t', 1, 'TaskAssigned', '1.0.0', 'someone', '{}', \
        '{}', now(), now() FROM events";
    weir.owner().await.execute(insert, &[]).await.unwrap();
    weir.until("SELECT count(*) >= 3 FROM dead_letters").await;
    let letters = weir.json(&["dead-letters", "list"]);
    let event = weir.json(&["sql", "SELECT event_id FROM events LIMIT 1"])[0]["event_id"].as_str().unwrap().to_owned();

    let path = format!("{}:{}", binary().parent().unwrap().display(), std::env::var("PATH").unwrap());
    let (mut run, mut exempt) = (0, BTreeSet::new());
    let mut failed = Vec::new();
    for readme in readmes() {
        for command in commands(&fs::read_to_string(&readme).unwrap()) {
            if let Some((part, _)) = EXEMPT.iter().find(|(part, _)| command.contains(part)) {
                exempt.insert(*part);
                continue;
            }
            let given = command
                .replace("EVENT_ID", &event)
                .replace(" ID", &format!(" {}", letters[0]["id"]))
                .replace("oulad DIR", &format!("oulad {}", fixture.arg()));
            let limit = if ENDLESS.contains(&command.as_str()) { "timeout -s INT 8 " } else { "" };
            let output = Command::new("sh")
                .args(["-c", &format!("{limit}{given}")])
                .current_dir(root())
                .env("PATH", &path)
                .env("WEIR_DATA_DIR", weir.path())
                .env("WEIR_API__LISTEN", "127.0.0.1:0")
                .output()
                .unwrap();
            run += 1;
            // timeout has an exit code of its own for what it ended.
            let ended = output.status.success() || !limit.is_empty() && output.status.code() == Some(124);
            if !ended {
                failed.push(format!("{}: `{given}`: {output:?}", readme.display()));
            }
        }
    }
    up.terminate();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(run > 15, "commands are not seen any more: {run}");
    let stale: Vec<_> = EXEMPT.iter().filter(|(part, _)| !exempt.contains(part)).collect();
    assert!(stale.is_empty(), "exempt, and not there: {stale:?}");
}
