//! Do readers that are not ours read the same? DuckDB reads the Delta table, psql the read models.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use weir_tests::{Facts, Fixture, Up, Weir, seed};

/// A Python with DuckDB and its Delta extension.
pub(crate) fn python() -> PathBuf {
    weir_tests::python::with("readers", &["duckdb==1.5.5", "duckdb-extension-delta==1.5.5"]).join("bin/python")
}

const SCRIPT: &str = "
import glob, json, os, sys, duckdb, duckdb_extension_delta
folder = os.path.dirname(duckdb_extension_delta.__file__)
db = duckdb.connect()
db.execute(\"LOAD '%s'\" % glob.glob(folder + '/extensions/*/delta.duckdb_extension')[0])
rows = db.execute(sys.argv[2].replace('HISTORY', \"delta_scan('%s')\" % sys.argv[1])).fetchall()
print(json.dumps(rows))
";

/// Rows of a query in which `HISTORY` stands for the Delta table.
pub(crate) fn duckdb(up: &Up<'_>, sql: &str) -> Value {
    let status = up.status();
    rows(status["addresses"]["history"].as_str().unwrap(), sql)
}

/// [`duckdb`] of a history at a path or an address.
pub(crate) fn rows(history: &str, sql: &str) -> Value {
    let output = Command::new(python()).args(["-c", SCRIPT, history, sql]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// DuckDB and psql say what the input says.
pub(crate) fn agree(up: &Up<'_>, facts: &Facts) {
    let rows = duckdb(
        up,
        "SELECT event_type, count(*), count(DISTINCT \"offset\"), CAST(coalesce(sum(score), 0) AS BIGINT) FROM HISTORY GROUP BY 1",
    );
    let rows = rows.as_array().unwrap();
    let counts = rows.iter().map(|r| (r[0].as_str().unwrap().to_owned(), r[1].as_i64().unwrap())).collect();
    assert_eq!(facts.events, counts);
    assert!(rows.iter().all(|r| r[1] == r[2]), "{rows:?}");
    assert_eq!(rows.iter().map(|r| r[3].as_i64().unwrap()).sum::<i64>(), facts.scores);

    let sql = "SELECT preferences->>'finalResult', count(*) FROM user_read_model GROUP BY 1";
    let output = Command::new("psql")
        .args(["--no-psqlrc", "--csv", "--tuples-only", "-c", sql])
        .arg(up.postgres())
        .output()
        .expect("psql runs; install Debian's postgresql-client");
    let text = String::from_utf8(output.stdout).unwrap();
    let results = text.lines().filter_map(|l| l.split_once(',')).map(|(r, n)| (r.to_owned(), n.parse().unwrap()));
    assert_eq!(facts.results, results.collect(), "{}", String::from_utf8_lossy(&output.stderr));
    // The address that everyone gets cannot write.
    let refused = Command::new("psql")
        .args(["--no-psqlrc", "-c", "DELETE FROM user_read_model"])
        .arg(up.postgres())
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(words.contains("read-only transaction") || words.contains("permission denied"), "{words}");
}

#[tokio::test]
async fn duckdb_and_psql_read_what_the_lanes_wrote() {
    let fixture = Fixture::new(3000, seed("readers"));
    let facts = Facts::of_input(fixture.path());
    let weir = Weir::new();
    weir.ok(&["import", "oulad", fixture.arg()]);
    let up = weir.up();
    up.caught_up().await;

    agree(&up, &facts);
    up.terminate();
}
