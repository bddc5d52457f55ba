//! The schema, brought up to date by numbered migrations: checked, under a lock, and never destructive.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};
use weir_engine::BoxError;
use weir_postgres::{Database, locks};

use crate::carry::OldTable;
use crate::error::ClickHouseError;
use crate::schema::{StoredColumn, TABLE, columns};
use crate::server::{ClickHouse, literal, quoted};

const ACTION: &str = "bringing the schema of ClickHouse up to date";

/// Number, name, statements.
type Migration = (u32, &'static str, &'static str);

/// What is applied is never changed: a later number mends it.
const MIGRATIONS: [Migration; 6] = [
    (1, "events", include_str!("../../../sql/clickhouse/V1__events.sql")),
    (2, "rollups", include_str!("../../../sql/clickhouse/V2__rollups.sql")),
    (3, "views", include_str!("../../../sql/clickhouse/V3__views.sql")),
    (4, "durable_rollups", include_str!("../../../sql/clickhouse/V4__durable_rollups.sql")),
    (5, "user_and_payload", include_str!("../../../sql/clickhouse/V5__user_and_payload.sql")),
    (NARROWER, "narrower_events", include_str!("../../../sql/clickhouse/V6__narrower_events.sql")),
];

/// The migration that makes the table of events as it is today. The others stand on it, so it runs first.
const NARROWER: u32 = 6;

/// Migrations whose tables and views it makes otherwise: they are recorded, and not run.
const REPLACED: [u32; 2] = [1, 5];

/// The views that stand on the table of events, one on the other.
pub(crate) const VIEWS: [&str; 2] = ["events_raw", "analytics_events"];

/// Where applied migrations are remembered.
const RECORDS: &str = "weir_migrations";

/// Postgres is the arbiter of who migrates. A table may be carried over for hours.
const PATIENCE: &str = "SET LOCAL idle_in_transaction_session_timeout = '24h'; SET LOCAL lock_timeout = '60s'";

/// A part of a schema that is not there yet.
struct Due {
    statements: Vec<String>,
    /// To be recorded afterwards, in this order.
    migrations: Vec<Migration>,
}

impl ClickHouse {
    /// What [`Self::migrate`] would run.
    pub async fn pending(&self) -> Result<Vec<String>, ClickHouseError> {
        self.check_version().await?;
        let present = self.present().await?;
        let mut statements = self.preparing(&present);
        let due = self.due(&present).await?;
        if let Some(old) = self.old_table_if(&due).await? {
            statements.push(self.create_table());
            statements.extend(self.carrying(&old).await?);
        }
        statements.extend(due.statements);
        statements.extend(self.ttl_change(&present).await?);
        Ok(statements)
    }

    /// Applies what is not there yet, and checks what is. Gives what was done, for people. The table of an older weir is left to
    /// [`Self::migrate_and_carry_over`] unless it is empty.
    pub async fn migrate(&self, database: &Database) -> Result<Vec<String>, BoxError> {
        self.migrate_with(database, false).await
    }

    /// [`Self::migrate`], and what the table of an older weir holds is copied to today's, however long that takes.
    pub async fn migrate_and_carry_over(&self, database: &Database) -> Result<Vec<String>, BoxError> {
        self.migrate_with(database, true).await
    }

    async fn migrate_with(&self, database: &Database, carries_rows: bool) -> Result<Vec<String>, BoxError> {
        self.check_version().await?;
        let mut client = database.get().await?;
        let lock = client.transaction().await?;
        lock.batch_execute(&format!("{PATIENCE}; {}", locks::until_end(locks::CLICKHOUSE_SCHEMA))).await?;
        let applied = self.apply(database, carries_rows).await;
        // Nothing was written: this only lets the next one in.
        drop(lock.rollback().await);
        let applied = applied?;
        self.check().await?;
        Ok(applied)
    }

    async fn apply(&self, database: &Database, carries_rows: bool) -> Result<Vec<String>, BoxError> {
        let present = self.present().await?;
        for statement in self.preparing(&present) {
            self.execute(ACTION, &statement).await?;
        }
        let due = self.due(&present).await?;
        let mut applied = Vec::new();
        if let Some(old) = self.old_table_if(&due).await? {
            if old.rows > 0 && !carries_rows {
                return Err(self.refuse_to_carry(&old).into());
            }
            self.execute(ACTION, &self.create_table()).await?;
            applied.push(self.carry_over(&old, database).await?);
        }
        for statement in &due.statements {
            self.execute(ACTION, statement).await?;
        }
        for (number, name, sql) in due.migrations {
            let record = format!(
                "INSERT INTO {}.weir_migrations (number, name, checksum) SETTINGS async_insert = 0 VALUES ({number}, {}, {})",
                self.database(),
                literal(name),
                literal(&checksum(sql))
            );
            self.execute(ACTION, &record).await?;
            applied.push(format!("V{number}__{name}"));
        }
        if let Some(change) = self.ttl_change(&self.present().await?).await? {
            self.execute(ACTION, &change).await?;
            applied.push(change);
        }
        Ok(applied)
    }

    /// What is not recorded yet; of what is, only the statements that make a table or a view that someone dropped: it comes back, empty.
    async fn due(&self, present: &BTreeSet<String>) -> Result<Due, ClickHouseError> {
        let known = if present.contains(RECORDS) { self.applied().await?.len() } else { 0 };
        let (known, new) = MIGRATIONS.split_at(known.min(MIGRATIONS.len()));
        let of = |(number, _, sql): &Migration| self.statements(*number, sql);
        let are_dropped = |statement: &String| !present.contains(made_by(statement));
        let again = run_order(known).flat_map(of).filter(are_dropped);
        let statements = again.chain(run_order(new).flat_map(of)).collect();
        Ok(Due { statements, migrations: new.to_vec() })
    }

    /// The table of an older weir, if what is due would take its place.
    async fn old_table_if(&self, due: &Due) -> Result<Option<OldTable>, ClickHouseError> {
        match due.migrations.iter().any(|(number, ..)| *number == NARROWER) {
            true => self.old_table().await,
            false => Ok(None),
        }
    }

    /// The statement that makes today's table of events.
    fn create_table(&self) -> String {
        let narrower = MIGRATIONS.iter().filter(|(number, ..)| *number == NARROWER);
        narrower.flat_map(|(number, _, sql)| self.statements(*number, sql)).next().unwrap_or_default()
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

    /// The statement that makes the view `events_raw`, under another name.
    pub(crate) fn create_view(&self, name: &str) -> String {
        let narrower = MIGRATIONS.iter().filter(|(number, ..)| *number == NARROWER);
        let mut all = narrower.flat_map(|(number, _, sql)| self.statements(*number, sql));
        let view = all.find(|statement| made_by(statement) == "events_raw").unwrap_or_default();
        view.replacen(".events_raw ", &format!(".{name} "), 1)
    }

    /// The statements that make the views `events_raw` and `analytics_events` over another table, all three names with `suffix` behind them.
    pub(crate) fn views_over(&self, suffix: &str) -> Vec<String> {
        let narrower = MIGRATIONS.iter().filter(|(number, ..)| *number == NARROWER);
        let all = narrower.flat_map(|(number, _, sql)| self.statements(*number, sql));
        let views = all.filter(|statement| VIEWS.contains(&made_by(statement)));
        let named = |statement: String| {
            let named = VIEWS.iter().chain([&TABLE]).fold(statement + " ", |text, name| {
                text.replace(&format!(".{name} "), &format!(".{name}{suffix} "))
                    .replace(&format!(".{name}\n"), &format!(".{name}{suffix}\n"))
            });
            named.trim_end().to_owned()
        };
        views.map(named).collect()
    }

    /// A migration's statements, for this database and cluster.
    fn statements(&self, number: u32, sql: &str) -> Vec<String> {
        let (database, on_cluster) = (self.database(), self.on_cluster());
        let is_cluster = self.options.cluster.is_some();
        let (engine, rollup_engine) = match is_cluster {
            true => (
                "ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', epoch)",
                // Every replica of every shard holds all of it.
                "ReplicatedReplacingMergeTree",
            ),
            false => ("ReplacingMergeTree(epoch)", "ReplacingMergeTree"),
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
                    .replace("{local_table}", self.local_table())
                    .replace("{versioned_engine}(epoch)", engine)
                    .replace("{rollup_engine}(", &rollup_head(rollup_engine, is_cluster))
            })
            .filter(|statement| !statement.is_empty())
            .collect();
        if let (NARROWER, Some(cluster)) = (number, &self.options.cluster) {
            let local_table = self.local_table();
            let distributed = format!(
                "CREATE TABLE IF NOT EXISTS {database}.{TABLE} {on_cluster} AS {database}.{local_table} ENGINE = \
                 Distributed({}, {}, {local_table}, cityHash64(source, topic, `partition`, `offset`))",
                quoted(cluster),
                literal(&self.options.database)
            );
            statements.insert(1, distributed);
        }
        statements
    }

    /// The id that the server gave to the table of events; `None` where there is none, and in a cluster, whose replicas may each
    /// have their own.
    pub async fn table_id(&self) -> Result<Option<String>, ClickHouseError> {
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
        if self.options.cluster.is_some() { "events_stored_local" } else { TABLE }
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
                &format!("SELECT name, type, default_kind FROM system.columns WHERE database = {database} AND table = {table}"),
            )
            .await?;
        let name = format!("{}.{}", self.database(), self.local_table());
        for StoredColumn { name: column, data_type, nested } in columns() {
            let row = found.iter().find(|row| row[0] == column);
            if row.is_some_and(|row| row[1] == data_type && (row[2] == "ALIAS") == nested.is_some()) {
                continue;
            }
            let is = row.map(|row| row[1].as_str());
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
            "SELECT engine, replaceAll(sorting_key, '`', ''), replaceAll(partition_key, '`', ''), engine_full LIKE '%epoch)%' \
             FROM system.tables WHERE database = {database} AND name = {table}"
        );
        let row = self.rows(ACTION, &sql).await?.pop().unwrap_or_default();
        let [engine, sorting, partitioning, is_versioned] = &row[..] else {
            return Err(ClickHouseError::new(
                ACTION,
                format!("{name} is not there"),
                "`weir clickhouse migrate` makes it",
            ));
        };
        let is_ours = engine.ends_with("ReplacingMergeTree") && is_versioned == "1";
        if !is_ours || sorting != SORTING || partitioning != "toYYYYMM(timestamp)" {
            let words = format!(
                "{name} is {engine}, sorted by {sorting}, in partitions by {partitioning}, versions by epoch: {is_versioned}"
            );
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

/// Migrations in the order in which they run: what others stand on first, and not what it replaces.
fn run_order(migrations: &[Migration]) -> impl Iterator<Item = &Migration> {
    let first = migrations.iter().filter(|(number, ..)| *number == NARROWER);
    first.chain(migrations.iter().filter(|(number, ..)| *number != NARROWER && !REPLACED.contains(number)))
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
        let alone: Vec<String> =
            run_order(&MIGRATIONS).flat_map(|(n, _, sql)| server(None).statements(*n, sql)).collect();
        assert!(
            // An empty object in JSON is no placeholder.
            alone
                .iter()
                .all(|s| !s.contains("CLUSTER") && !s.contains("Replicated") && !s.replace("'{}'", "").contains('{')),
            "{alone:#?}"
        );
        assert!(alone[0].starts_with("CREATE TABLE IF NOT EXISTS `o\\`dd`.events_stored"), "{}", alone[0]);
        let made: Vec<&str> = alone.iter().map(|statement| made_by(statement)).collect();
        assert_eq!(made[..4], ["events_stored", "events_raw", "analytics_events", "events_per_minute"]);
        assert!(made.contains(&"task_completed") && !made.contains(&""), "{made:?}");
        let of_cluster: Vec<String> =
            run_order(&MIGRATIONS).flat_map(|(n, _, sql)| server(Some("main")).statements(*n, sql)).collect();
        assert_eq!(of_cluster.len(), alone.len() + 1);
        assert!(of_cluster.iter().all(|s| s.contains("ON CLUSTER `main`")), "{of_cluster:#?}");
        assert!(
            of_cluster[0].contains("events_stored_local") && of_cluster[0].contains("'{replica}', epoch)"),
            "{}",
            of_cluster[0]
        );
        let distributed = "Distributed(`main`, 'o`dd', events_stored_local, cityHash64(";
        assert!(of_cluster[1].contains(distributed), "{}", of_cluster[1]);
        assert!(of_cluster[4].contains("'{replica}', events)"), "{}", of_cluster[4]);
    }

    #[test]
    fn every_column_is_in_the_migration_in_its_type() {
        let sql = MIGRATIONS.iter().find(|(number, ..)| *number == NARROWER).map_or("", |(_, _, sql)| *sql);
        let mut shown = Vec::new();
        for StoredColumn { name, data_type, nested } in columns() {
            let rest = sql.lines().find_map(|line| {
                let line = line.trim().trim_end_matches(',').replace('`', "");
                let rest = line.strip_prefix(&format!("{name} {data_type}"))?;
                (rest.is_empty() || rest.starts_with(' ')).then(|| rest.trim().to_owned())
            });
            let rest = rest.unwrap_or_else(|| panic!("{name} {data_type}"));
            // The bits below its own say how many values stand before it.
            let expected = nested.map(|bit| {
                let at = |n| format!("nested_places[2 * bitCount(bitAnd(nested, {})) + {n}]", (1_u64 << bit) - 1);
                format!("ALIAS if(bitTest(nested, {bit}), substring(data, {}, {}), NULL)", at(1), at(2))
            });
            assert!(expected.as_ref().map_or(!rest.contains("ALIAS"), |expected| rest == *expected), "{name} {rest}");
            shown.extend(expected.map(|_| name));
        }
        assert!(shown.len() <= 32, "a bit each");
        // `*` leaves them out.
        assert!(sql.contains(&format!("    {}\nFROM", shown.join(", "))), "{shown:?}");
    }
}
