//! What benchmarks begin with: an event store full of events, in a database of a server of their own.

use weir_postgres::{Database, DatabaseOptions};
use weir_tests::Postgres;
pub(crate) use weir_tests::fill::fill;

/// A database of a server, migrated.
pub(crate) async fn database(url: &str) -> Database {
    let second = std::time::Duration::from_secs(1);
    let url = url.to_owned();
    let options = DatabaseOptions {
        url,
        connections_max: 16,
        statement_timeout: 600 * second,
        lock_timeout: 60 * second,
        session: Vec::new(),
    };
    let database = Database::open(&options).unwrap();
    database.migrate().await.unwrap();
    database
}

/// A server, its database, and so many events in it.
pub(crate) async fn filled(events: i64) -> (Postgres, Database) {
    let server = Postgres::start();
    let database = database(&server.url()).await;
    fill(&server.url(), events).await;
    (server, database)
}

/// So many events as `WEIR_BENCH_EVENTS` says, or else these.
pub(crate) fn events_or(events: i64) -> i64 {
    std::env::var("WEIR_BENCH_EVENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(events)
}

/// For benchmarks that wait for servers.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}
