//! The table of events of migration 1, carried over to today's: copied month by month, moved aside, and compared, before the migration is
//! recorded.
//!
//! 1. copy each month of which the new table does not hold as many rows;
//! 2. move the old table aside, and the view of its name into its place, by one statement. A lane of an older build that runs finds another id from
//!    here on; it looks at the schema, finds a view, and is refused;
//! 3. raise the lane's epochs in the ledger: what was under way when the table moved is refused there, and read again by the next owner. What
//!    the ledger took before is in the old table;
//! 4. copy again the months that have more rows since 1;
//! 5. compare both tables by month: count, and a hash of every column.
//!
//! After a crash anywhere the same command begins again with 1. Copied rows have the epoch 0, so that any owner's row replaces them, and the
//! same sort key, so that a month that is copied twice holds each of them once.

use std::collections::BTreeMap;

use weir_engine::{BoxError, LaneKind, failpoint};
use weir_model::Timestamp;
use weir_model::columns::Column;
use weir_postgres::{Database, Ledger};

use crate::error::ClickHouseError;
use crate::schema::{OLD_TABLE, OLD_TABLE_ASIDE, StoredColumn, TABLE, columns, event_columns, nested_columns};
use crate::server::{ClickHouse, literal, quoted};

const ACTION: &str = "carrying the table of events over";

/// The view that takes the old table's name, before it does.
const VIEW_NEXT: &str = "events_raw_next";

/// A month as `toYYYYMM` writes it: its rows, and a hash of all that they hold where that was asked for.
pub(crate) type Months = BTreeMap<String, (u64, String)>;

/// The old table, where it was not carried over yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OldTable {
    /// The name that it has now.
    name: &'static str,
    /// Its rows, repeats included.
    pub(crate) rows: u64,
    bytes: u64,
}

impl ClickHouse {
    /// The table of migration 1, if it is there under its own name or moved aside.
    pub(crate) async fn old_table(&self) -> Result<Option<OldTable>, ClickHouseError> {
        let sql = format!(
            "SELECT name, ifNull(total_rows, 0), ifNull(total_bytes, 0) FROM system.tables WHERE database = {} AND engine LIKE \
             '%ReplacingMergeTree' AND name IN ({}, {})",
            literal(&self.options.database),
            literal(OLD_TABLE),
            literal(OLD_TABLE_ASIDE)
        );
        let rows = self.rows(ACTION, &sql).await?;
        let [row] = &rows[..] else {
            let words = format!("{OLD_TABLE} and {OLD_TABLE_ASIDE} are both there");
            let cure = "drop the one that another weir or a restored copy left";
            return if rows.is_empty() { Ok(None) } else { Err(ClickHouseError::new(ACTION, words, cure)) };
        };
        let number = |cell: usize| row.get(cell).and_then(|text| text.parse().ok()).unwrap_or(0);
        let name = if row.first().is_some_and(|name| name == OLD_TABLE) { OLD_TABLE } else { OLD_TABLE_ASIDE };
        Ok(Some(OldTable { name, rows: number(1), bytes: number(2) }))
    }

    /// Why a lane does not carry the table over by itself.
    pub(crate) fn refuse_to_carry(&self, old: &OldTable) -> ClickHouseError {
        let words = format!("{}.{} has the columns of an older weir, and {} rows", self.database(), old.name, old.rows);
        let cure = match self.options.cluster {
            Some(_) => {
                "a cluster's is not carried over: name another clickhouse.database, and fill it with `weir ledger reset clickhouse \
                 --topic TOPIC --to earliest --yes`"
            }
            None => {
                "`weir clickhouse migrate` copies them month by month, compares, and leaves the old table where it can be looked at; the \
                 lane waits until then"
            }
        };
        ClickHouseError::new("bringing the schema of ClickHouse up to date", words, cure)
    }

    /// Steps 1 to 5; the new table is there. Then the old one is called [`OLD_TABLE_ASIDE`]. Gives what was done, for people.
    pub(crate) async fn carry_over(&self, old: &OldTable, database: &Database) -> Result<String, BoxError> {
        if self.options.cluster.is_some() {
            return Err(self.refuse_to_carry(old).into());
        }
        self.refuse_small_disk(old).await?;
        self.copy_months(old.name).await?;
        if let Some(statement) = self.moving_aside(old) {
            self.execute(ACTION, &self.create_view(VIEW_NEXT)).await?;
            self.execute(ACTION, &statement).await?;
        }
        failpoint::hit("clickhouse.old_table_aside");
        Ledger::fence(database, LaneKind::ClickHouse.name()).await?;
        self.copy_months(OLD_TABLE_ASIDE).await?;
        // One bound for both: what a TTL may take moves with the clock.
        let kept = self.kept_from();
        let (held, carried) = (self.months(OLD_TABLE_ASIDE, Some(kept)).await?, self.months(TABLE, Some(kept)).await?);
        if let Some((month, (rows, _))) = held.iter().find(|(month, held)| carried.get(*month) != Some(held)) {
            let words = format!(
                "the {rows} rows of month {month} are not the same in {TABLE}, which has {}",
                carried.get(month).map_or(0, |(rows, _)| *rows)
            );
            let cure = format!(
                "nothing is lost: {OLD_TABLE_ASIDE} has them. Drop {TABLE} and try again, or report what differs"
            );
            return Err(ClickHouseError::new(ACTION, words, &cure).into());
        }
        failpoint::hit("clickhouse.table_compared");
        let rows: u64 = held.values().map(|(rows, _)| rows).sum();
        Ok(format!(
            "{rows} rows carried over and compared; the old table is {}.{OLD_TABLE_ASIDE} until you drop it",
            self.database()
        ))
    }

    /// The statements of [`Self::carry_over`], as far as they can be said beforehand.
    pub(crate) async fn carrying(&self, old: &OldTable) -> Result<Vec<String>, ClickHouseError> {
        if self.options.cluster.is_some() {
            return Err(self.refuse_to_carry(old));
        }
        let months = self.months(old.name, None).await?;
        let mut statements: Vec<String> = months.keys().map(|month| self.copying(old.name, month)).collect();
        if let Some(statement) = self.moving_aside(old) {
            statements.extend([self.create_view(VIEW_NEXT), statement]);
        }
        Ok(statements)
    }

    fn moving_aside(&self, old: &OldTable) -> Option<String> {
        let database = self.database();
        // One statement: an older weir that found no table of that name would make one.
        (old.name != OLD_TABLE_ASIDE).then(|| {
            format!(
                "RENAME TABLE {database}.{OLD_TABLE} TO {database}.{OLD_TABLE_ASIDE}, {database}.{VIEW_NEXT} TO {database}.{OLD_TABLE}"
            )
        })
    }

    async fn copy_months(&self, from: &str) -> Result<(), ClickHouseError> {
        let (held, carried) = (self.months(from, None).await?, self.months(TABLE, None).await?);
        for (month, (rows, _)) in &held {
            if carried.get(month).is_none_or(|(carried, _)| carried < rows) {
                self.execute_long(ACTION, &self.copying(from, month)).await?;
                tracing::info!(month, rows, "copied to {TABLE}");
                failpoint::hit("clickhouse.month_copied");
            }
        }
        Ok(())
    }

    /// The statement that copies a month.
    fn copying(&self, from: &str, month: &str) -> String {
        let stored: Vec<StoredColumn> = columns().into_iter().filter(|column| column.nested.is_none()).collect();
        let names: Vec<String> = stored.iter().map(|column| quoted(column.name)).collect();
        let bit = |(_, column, bit): (_, &Column, u32)| format!("if(isNull({}), 0, {})", column.name, 1_u64 << bit);
        // A value stands in the text behind its name; should the same stand there twice, either place shows it.
        let place = |(_, column, _): (_, &Column, _)| {
            let (name, field) = (column.name, literal(&format!("\"{}\":", column.field)));
            format!(
                "if(isNull({name}), [], [toUInt32(position(data, concat({field}, assumeNotNull({name}))) + {}), \
                 toUInt32(length(assumeNotNull({name})))])",
                column.field.len() + "\"\":".len()
            )
        };
        let of_column = |column: &StoredColumn| match column.name {
            "epoch" => "0".to_owned(),
            "nested" => nested_columns().map(bit).collect::<Vec<_>>().join(" + "),
            "nested_places" => format!("arrayConcat({})", nested_columns().map(place).collect::<Vec<_>>().join(", ")),
            name => quoted(name),
        };
        let values: Vec<String> = stored.iter().map(of_column).collect();
        let database = self.database();
        format!(
            "INSERT INTO {database}.{TABLE} ({}) SELECT {} FROM {database}.{from} FINAL WHERE toYYYYMM(`timestamp`) = {month} \
             SETTINGS async_insert = 0, insert_deduplicate = 0, optimize_on_insert = 0",
            names.join(", "),
            values.join(", ")
        )
    }

    /// The months of a table, each record once; hashed where what was recorded before a time is left out, since a TTL may take it meanwhile.
    pub(crate) async fn months(
        &self,
        table: &str,
        hashed: Option<Option<Timestamp>>,
    ) -> Result<Months, ClickHouseError> {
        let names: Vec<String> = event_columns().iter().map(|column| quoted(column.name)).collect();
        let hash = match hashed.is_some() {
            true => format!("hex(sum(cityHash64(tuple(is_other, {}))))", names.join(", ")),
            false => "''".to_owned(),
        };
        let is_kept = match hashed.flatten() {
            Some(from) => format!("recorded_at IS NULL OR toUnixTimestamp64Milli(recorded_at) >= {}", from.as_millis()),
            None => "1".to_owned(),
        };
        let sql = format!(
            "SELECT toYYYYMM(`timestamp`) AS month, count(), {hash} FROM {}.{table} FINAL WHERE {is_kept} GROUP BY month \
             SETTINGS do_not_merge_across_partitions_select_final = 1",
            self.database()
        );
        let rows = self.rows_long(ACTION, &sql).await?;
        Ok(rows
            .into_iter()
            .filter_map(|row| {
                let [month, rows, hash] = <[String; 3]>::try_from(row).ok()?;
                Some((month, (rows.parse().ok()?, hash)))
            })
            .collect())
    }

    async fn refuse_small_disk(&self, old: &OldTable) -> Result<(), ClickHouseError> {
        if old.name != OLD_TABLE {
            return Ok(());
        }
        let sql = "SELECT toString(max(unreserved_space)) FROM system.disks";
        let free: u64 =
            self.rows(ACTION, sql).await?.iter().flatten().find_map(|cell| cell.parse().ok()).unwrap_or(u64::MAX);
        if free > old.bytes {
            return Ok(());
        }
        let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
        let words = format!("the copy may take {} MiB, and {} are free", mebibytes(old.bytes), mebibytes(free));
        Err(ClickHouseError::new(ACTION, words, "make room on the server's disk"))
    }
}
