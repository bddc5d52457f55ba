//! The advisory locks of weir, in one place: `pg_advisory_lock(GROUP, number)`. A number is never used for something else again; 1 was the
//! order of appends, which is a lock of the table `append_order` now.

/// The first number of all of them.
pub const GROUP: i32 = 8626;

/// Two processes may start at once: one brings the schema up to date.
pub const MIGRATIONS: (i32, i32) = (GROUP, 2);

/// One rebuild of a lane's tables at a time.
pub const REBUILD: (i32, i32) = (GROUP, 3);

/// Held by the process that publishes.
pub const PUBLISHER: (i32, i32) = (GROUP, 4);

/// One process brings the schema of ClickHouse up to date.
pub const CLICKHOUSE_SCHEMA: (i32, i32) = (GROUP, 5);

/// `CREATE TABLE IF NOT EXISTS` does not wait: one process makes the tables of a program's own lane.
pub const OWN_TABLES: (i32, i32) = (GROUP, 6);

/// One process merges the runs of the index of repeats.
pub const DEDUP_MERGE: (i32, i32) = (GROUP, 7);

/// Held together by those who claim for a sink whose tables are exchanged outside Postgres, and alone by the one that exchanges them.
pub const CLAIMS: (i32, i32) = (GROUP, 8);

/// A statement that takes a lock until the transaction ends.
#[must_use]
pub fn until_end((group, number): (i32, i32)) -> String {
    format!("SELECT pg_advisory_xact_lock({group}, {number})")
}
