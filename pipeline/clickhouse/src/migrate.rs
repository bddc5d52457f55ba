//! The schema, brought up to date by numbered migrations: checked, under a lock, and never destructive.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};
use weir_engine::BoxError;
use weir_postgres::{Database, locks};

use crate::error::ClickHouseError;
use crate::schema::{StoredColumn, columns};
use crate::server::{ClickHouse, literal, quoted};

const ACTION: &str = "bringing the schema of ClickHouse up to date";

/// Number, name, statements.
type Migration = (u32, &'static str, &'static str);

/// What is applied is never changed: a later number mends it.
const MIGRATIONS: [Migration; 5] = [
    (1, "events", include_str!("../../../sql/clickhouse/V1__events.sql")),
    (2, "rollups", include_str!("../../../sql/clickhouse/V2__rollups.sql")),
    (3, "views", include_str!("../../../sql/clickhouse/V3__views.sql")),
    (4, "durable_rollups", include_str!("../../../sql/clickhouse/V4__durable_rollups.sql")),
    (5, "user_and_payload", include_str!("../../../sql/clickhouse/V5__user_and_payload.sql")),
];

/// Where applied migrations are remembered.
const RECORDS: &str = "weir_migrations";

/// Postgres is the arbiter of who migrates.
const PATIENCE: &str = "SET LOCAL idle_in_transaction_session_timeout = '10min'; SET LOCAL lock_timeout = '60s'";

impl ClickHouse {
    /// What [`Self::migrate`] would run.
    pub async fn pending(&self) -> Result<Vec<String>, ClickHouseError> {
        self.check_version().await?;
        let present = self.present().await?;
        let mut statements = self.preparing(&present);
        for (_, due) in self.due(&present).await? {
            statements.extend(due);
        }
        statements.extend(self.ttl_change(&present).await?);
        Ok(statements)
    }

    /// Applies what is not there yet, and checks what is. Gives the names of what was applied.
    pub async fn migrate(&self, database: &Database) -> Result<Vec<String>, BoxError> {
        self.check_version().await?;
        let mut client = database.get().await?;
        let lock = client.transaction().await?;
        lock.batch_execute(&format!("{PATIENCE}; {}", locks::until_end(locks::CLICKHOUSE_SCHEMA))).await?;
        let applied = self.apply().await;
        // Nothing was written: this only lets the next one in.
        drop(lock.rollback().await);
        let applied = applied?;
        self.check().await?;
        Ok(applied)
    }

    async fn apply(&self) -> Result<Vec<String>, ClickHouseError> {
        let present = self.present().await?;
        for statement in self.preparing(&present) {
            self.execute(ACTION, &statement).await?;
        }
        let mut applied = Vec::new();
        for (record, statements) in self.due(&present).await? {
            for statement in statements {
                self.execute(ACTION, &statement).await?;
            }
            if let Some((number, name, sql)) = record {
                let record = format!(
                    "INSERT INTO {}.weir_migrations (number, name, checksum) SETTINGS async_insert = 0 VALUES ({number}, {}, {})",
                    self.database(),
                    literal(name),
                    literal(&checksum(sql))
                );
                self.execute(ACTION, &record).await?;
                applied.push(format!("V{number}__{name}"));
            }
        }
        if let Some(change) = self.ttl_change(&self.present().await?).await? {
            self.execute(ACTION, &change).await?;
            applied.push(change);
        }
        Ok(applied)
    }

    /// Of each migration the statements that are to run, and the migration itself where it is not recorded. Of those that are,
    /// only what makes a table or a view that someone dropped: it comes back, empty.
    async fn due(&self, present: &BTreeSet<String>) -> Result<Vec<(Option<Migration>, Vec<String>)>, ClickHouseError> {
        let known = if present.contains(RECORDS) { self.applied().await?.len() } else { 0 };
        let of = |(place, migration): (usize, &Migration)| {
            let mut statements = self.statements(migration.0, migration.2);
            if place < known {
                statements.retain(|statement| !present.contains(made_by(statement)));
            }
            ((place >= known).then_some(*migration), statements)
        };
        Ok(MIGRATIONS.iter().enumerate().map(of).collect())
    }

    /// The tables and views that are there.
    async fn present(&self) -> Result<BTreeSet<String>, ClickHouseError> {
        let sql = format!("SELECT name FROM system.tables WHERE database = {}", literal(&self.options.database));
        Ok(self.rows(ACTION, &sql).await?.into_iter().flatten().collect())
    }

    /// The migrations that are recorded, which must be the first of ours, unchanged.
    async fn applied(&self) -> Result<Vec<u32>, ClickHouseError> {
        let sql = format!(
            "SELECT number, any(name), any(checksum) FROM {}.weir_migrations GROUP BY number ORDER BY number",
            self.database()
        );
        let mut numbers = Vec::new();
        for (row, place) in self.rows(ACTION, &sql).await?.iter().zip(0_usize..) {
            let [number, name, sum] = &row[..] else {
                return Err(ClickHouseError::new(ACTION, "weir_migrations has another form", ""));
            };
            let Some((ours, _, sql)) = MIGRATIONS.get(place).filter(|(ours, ..)| ours.to_string() == *number) else {
                let words = format!("migration {number} ({name}) is not known here");
                return Err(ClickHouseError::new(ACTION, words, "a newer weir made this schema: use that one"));
            };
            if *sum != checksum(sql) {
                let words = format!("migration {number} ({name}) was applied in another form");
                return Err(ClickHouseError::new(
                    ACTION,
                    words,
                    "use the weir that applied it, or another clickhouse.database",
                ));
            }
            numbers.push(*ours);
        }
        Ok(numbers)
    }

    fn on_cluster(&self) -> String {
        self.options.cluster.as_ref().map_or_else(String::new, |cluster| format!("ON CLUSTER {}", quoted(cluster)))
    }

    /// The database, and where migrations are remembered, if that is not there.
    fn preparing(&self, present: &BTreeSet<String>) -> Vec<String> {
        if present.contains(RECORDS) {
            return Vec::new();
        }
        let (database, on_cluster) = (self.database(), self.on_cluster());
        let engine = match &self.options.cluster {
            Some(_) => "ReplicatedMergeTree('/clickhouse/tables/all/{database}/{table}', '{replica}')",
            None => "MergeTree",
        };
        vec![
            format!("CREATE DATABASE IF NOT EXISTS {database} {on_cluster}"),
            format!(
                "CREATE TABLE IF NOT EXISTS {database}.{RECORDS} {on_cluster} (number UInt32, name String, checksum String, \
                 applied_at DateTime64(3, 'UTC') DEFAULT now64(3)) ENGINE = {engine} ORDER BY number"
            ),
        ]
    }

    /// A migration's statements, for this database and cluster.
    fn statements(&self, number: u32, sql: &str) -> Vec<String> {
        let (database, on_cluster) = (self.database(), self.on_cluster());
        let is_cluster = self.options.cluster.is_some();
        let (local_table, engine, rollup_engine) = match is_cluster {
            true => (
                "events_local",
                "ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')",
                // Every replica of every shard holds all of it.
                "ReplicatedReplacingMergeTree",
            ),
            false => ("events_raw", "ReplacingMergeTree", "ReplacingMergeTree"),
        };
        let text: String = sql
            .lines()
            .filter(|line| !line.trim_start().starts_with("--"))
            .fold(String::new(), |text, line| text + line + "\n");
        let mut statements: Vec<String> = text
            .split(";\n")
            .map(|statement| {
                statement
                    .trim()
                    .trim_end_matches(';')
                    .replace("{database}", &database)
                    .replace("{on_cluster}", &on_cluster)
                    .replace("{local_table}", local_table)
                    .replace("{engine}", engine)
                    .replace("{rollup_engine}(", &rollup_head(rollup_engine, is_cluster))
            })
            .filter(|statement| !statement.is_empty())
            .collect();
        if let (1, Some(cluster)) = (number, &self.options.cluster) {
            let distributed = format!(
                "CREATE TABLE IF NOT EXISTS {database}.events_raw {on_cluster} AS {database}.events_local ENGINE = \
                 Distributed({}, {}, events_local, cityHash64(source, topic, `partition`, `offset`))",
                quoted(cluster),
                literal(&self.options.database)
            );
            statements.insert(1, distributed);
        }
        statements
    }

    /// The id that the server gave to the table of events; `None` where there is none, and in a cluster, whose replicas may each
    /// have their own.
    pub(crate) async fn table_id(&self) -> Result<Option<String>, ClickHouseError> {
        if self.options.cluster.is_some() {
            return Ok(None);
        }
        let sql = format!(
            "SELECT toString(uuid) FROM system.tables WHERE database = {} AND name = {}",
            literal(&self.options.database),
            literal(self.local_table())
        );
        Ok(self.rows("looking for the table of events", &sql).await?.pop().and_then(|mut row| row.pop()))
    }

    fn local_table(&self) -> &'static str {
        if self.options.cluster.is_some() { "events_local" } else { "events_raw" }
    }

    /// The TTL expression of `clickhouse.ttl_days`; `None` for 0 days. A record without `recorded_at` is kept.
    fn ttl(&self) -> Option<String> {
        let days = self.options.ttl_days;
        let recorded_at = "ifNull(recorded_at, toDateTime64('2199-01-01 00:00:00', 3, 'UTC'))";
        (days > 0).then(|| format!("{recorded_at} + toIntervalDay({days})"))
    }

    /// The statement that sets the table's TTL to the configured one; `None` where none is configured (see `check`) or it is set.
    async fn ttl_change(&self, present: &BTreeSet<String>) -> Result<Option<String>, ClickHouseError> {
        let Some(ttl) = self.ttl() else { return Ok(None) };
        let is_there = present.contains(self.local_table()) && self.table_ttl().await?.contains(&day_interval(&ttl));
        let alter =
            format!("ALTER TABLE {}.{} {} MODIFY TTL {ttl}", self.database(), self.local_table(), self.on_cluster());
        Ok((!is_there).then_some(alter))
    }

    /// The table's TTL clause as the server writes it; empty where the table has none.
    async fn table_ttl(&self) -> Result<String, ClickHouseError> {
        let sql = format!(
            "SELECT replaceAll(engine_full, '\\n', ' ') FROM system.tables WHERE database = {} AND name = {}",
            literal(&self.options.database),
            literal(self.local_table())
        );
        let engine = self.rows(ACTION, &sql).await?.pop().and_then(|mut row| row.pop()).unwrap_or_default();
        Ok(engine.split_once(" TTL ").map(|(_, rest)| rest.to_owned()).unwrap_or_default())
    }

    /// Compares the table with what the lane writes.
    async fn check(&self) -> Result<(), ClickHouseError> {
        const ACTION: &str = "checking the schema of ClickHouse";
        let (database, table) = (literal(&self.options.database), literal(self.local_table()));
        let found = self
            .rows(
                ACTION,
                &format!("SELECT name, type FROM system.columns WHERE database = {database} AND table = {table}"),
            )
            .await?;
        let name = format!("{}.{}", self.database(), self.local_table());
        for StoredColumn { name: column, data_type } in columns() {
            let is = found.iter().find(|row| row[0] == column).map(|row| row[1].as_str());
            if is == Some(data_type.as_str()) {
                continue;
            }
            let column = quoted(column);
            return Err(match is {
                Some(is) => ClickHouseError::new(
                    ACTION,
                    format!("{name} was altered: the column {column} is {is} and should be {data_type}"),
                    &format!("ALTER TABLE {name} MODIFY COLUMN {column} {data_type}"),
                ),
                None => ClickHouseError::new(
                    ACTION,
                    format!("{name} was altered: the column {column} {data_type} is missing"),
                    &format!(
                        "ALTER TABLE {name} ADD COLUMN {column} {data_type}, then fill it again: `weir ledger reset clickhouse --topic TOPIC --to earliest --yes`"
                    ),
                ),
            });
        }
        self.check_keys(&name, &database, &table).await
    }

    async fn check_keys(&self, name: &str, database: &str, table: &str) -> Result<(), ClickHouseError> {
        const ACTION: &str = "checking the schema of ClickHouse";
        const SORTING: &str = "event_type, tenant, timestamp, source, topic, partition, offset";
        let sql = format!(
            "SELECT engine, replaceAll(sorting_key, '`', ''), replaceAll(partition_key, '`', '') FROM system.tables \
             WHERE database = {database} AND name = {table}"
        );
        let row = self.rows(ACTION, &sql).await?.pop().unwrap_or_default();
        let [engine, sorting, partitioning] = &row[..] else {
            return Err(ClickHouseError::new(
                ACTION,
                format!("{name} is not there"),
                "`weir clickhouse migrate` makes it",
            ));
        };
        if !engine.ends_with("ReplacingMergeTree") || sorting != SORTING || partitioning != "toYYYYMM(timestamp)" {
            let words = format!("{name} is {engine}, sorted by {sorting}, in partitions by {partitioning}");
            let cure = "repeats are recognised by the sort key: move the table aside, `weir clickhouse migrate`, then \
                        `weir ledger reset clickhouse --topic TOPIC --to earliest --yes`";
            return Err(ClickHouseError::new(ACTION, words, cure));
        }
        let ttl = self.table_ttl().await?;
        if self.options.ttl_days == 0 && !ttl.is_empty() {
            let words = format!("{name} drops rows by a TTL that is not in the configuration");
            let cure = format!("set clickhouse.ttl_days, or ALTER TABLE {name} REMOVE TTL");
            return Err(ClickHouseError::new(ACTION, words, &cure));
        }
        Ok(())
    }
}

/// The table or view that a statement makes.
fn made_by(statement: &str) -> &str {
    let name = statement.split_whitespace().find_map(|word| word.rsplit_once("`.")).map_or("", |(_, name)| name);
    name.trim_matches('`')
}

fn rollup_head(engine: &str, is_cluster: bool) -> String {
    match is_cluster {
        true => format!("{engine}('/clickhouse/tables/all/{{database}}/{{table}}', '{{replica}}', "),
        false => format!("{engine}("),
    }
}

/// The interval of a TTL expression, `toIntervalDay(…)`: the one part that the server shows as it was given.
fn day_interval(ttl: &str) -> String {
    ttl.rsplit_once(" + ").map(|(_, interval)| interval.to_owned()).unwrap_or_default()
}

fn checksum(sql: &str) -> String {
    hex::encode(Sha256::digest(sql.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::server::ClickHouseOptions;

    fn server(cluster: Option<&str>) -> ClickHouse {
        ClickHouse::new(ClickHouseOptions {
            url: "http://localhost:1".to_owned(),
            user: "default".to_owned(),
            password: String::new(),
            database: "o`dd".to_owned(),
            cluster: cluster.map(str::to_owned),
            ttl_days: 0,
            settings: BTreeMap::new(),
            insert_interval: Duration::ZERO,
        })
    }

    #[test]
    fn a_cluster_makes_replicated_tables_behind_a_distributed_one() {
        let alone: Vec<String> = MIGRATIONS.iter().flat_map(|(n, _, sql)| server(None).statements(*n, sql)).collect();
        assert!(
            // An empty object in JSON is no placeholder.
            alone
                .iter()
                .all(|s| !s.contains("CLUSTER") && !s.contains("Replicated") && !s.replace("'{}'", "").contains('{')),
            "{alone:#?}"
        );
        assert!(alone[0].starts_with("CREATE TABLE IF NOT EXISTS `o\\`dd`.events_raw"), "{}", alone[0]);
        let made: Vec<&str> = alone.iter().map(|statement| made_by(statement)).collect();
        assert_eq!(made[..3], ["events_raw", "analytics_events", "events_per_minute"]);
        assert!(made.contains(&"task_completed") && !made.contains(&""), "{made:?}");
        let of_cluster: Vec<String> =
            MIGRATIONS.iter().flat_map(|(n, _, sql)| server(Some("main")).statements(*n, sql)).collect();
        assert_eq!(of_cluster.len(), alone.len() + 1);
        assert!(of_cluster.iter().all(|s| s.contains("ON CLUSTER `main`")), "{of_cluster:#?}");
        assert!(of_cluster[1].contains("Distributed(`main`, 'o`dd', events_local, cityHash64("), "{}", of_cluster[1]);
        assert!(of_cluster[3].contains("'{replica}', events)"), "{}", of_cluster[3]);
    }

    #[test]
    fn every_column_is_in_the_first_migration_in_its_type() {
        for StoredColumn { name, data_type } in columns() {
            let found = MIGRATIONS[0].2.lines().any(|line| {
                let line = line.trim().replace('`', "");
                line.strip_prefix(&format!("{name} {data_type}"))
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with([',', ' ']))
            });
            assert!(found, "{name} {data_type}");
        }
    }
}
