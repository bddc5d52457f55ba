//! Every question that the real records can answer: of history, ClickHouse, the read models, DuckDB on history's files, and the plain model, which
//! reads the CSV files itself. A command of its own, some minutes long: `tests/README.md`.

use std::io::Write;

use weir_tests::{ClickHouse, Weir};

use crate::queries::{PlainInput, agree, duckdb_agrees, expected_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_question_on_the_real_records() {
    let dir = std::env::var_os("WEIR_OULAD").filter(|_| std::env::var_os("OULAD_QUESTIONS").is_some());
    let Some(dir) = dir.map(std::path::PathBuf::from) else {
        let words = "NOT RUN: oulad::questions; WEIR_OULAD=DIR and OULAD_QUESTIONS=1 run it, for some minutes";
        writeln!(std::io::stderr(), "{words}").unwrap();
        return;
    };
    let server = ClickHouse::start();
    let weir = Weir::new().with_all(server.settings());
    weir.ok(&["import", "oulad", dir.to_str().unwrap()]);
    weir.ok(&["up", "--until-caught-up"]);
    let mut expected = expected_of(PlainInput::Files(&dir));
    // No content, agent or session id is in the files.
    expected.retain(|_, (_, rows)| !rows.is_empty());
    assert!(expected.len() >= 12, "{:?}", expected.keys());
    let up = weir.up();
    agree(&weir, &["history", "clickhouse"], &expected);
    duckdb_agrees(up.status()["addresses"]["history"].as_str().unwrap(), &expected);
    up.terminate();
}
