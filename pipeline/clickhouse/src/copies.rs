//! Copies of small tables of Postgres, each replaced as a whole: a query finishes on the one that it began with, and none sees half of one.
//!
//! The new rows are put into a table beside the one that serves, whose comment says of what they are a copy; then the two are exchanged by one statement.
//! A crash before that leaves a table that the next copy drops; one after it leaves nothing to do.

use bytes::Bytes;
use weir_engine::failpoint;

use crate::error::ClickHouseError;
use crate::server::{ClickHouse, literal, quoted};

const ACTION: &str = "copying a table to ClickHouse";

/// What the names of copies begin with, and those of new ones end with.
const PREFIX: &str = "workflow_";
const NEW: &str = "__new";

/// A column of a copy.
#[derive(Debug, Clone, Copy)]
pub struct CopyColumn<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its type with what limits it, as Postgres calls it.
    pub sql_type: &'a str,
    /// Part of the sort key, and never null.
    pub is_key: bool,
}

impl CopyColumn<'_> {
    fn declaration(self) -> String {
        let kind = match self.sql_type {
            "boolean" => "Bool".to_owned(),
            "smallint" => "Int16".to_owned(),
            "integer" => "Int32".to_owned(),
            "bigint" => "Int64".to_owned(),
            "real" => "Float32".to_owned(),
            // A mean or a sum of any size: ClickHouse's own decimals of so many digits become floats by a division, and 97 one that is not 97.
            "double precision" | "numeric" => "Float64".to_owned(),
            "date" => "Date32".to_owned(),
            zoned if zoned.ends_with("with time zone") => "DateTime64(6, 'UTC')".to_owned(),
            sized => sized.strip_prefix("numeric").map_or_else(|| "String".to_owned(), |size| format!("Decimal{size}")),
        };
        let name = quoted(self.name.trim_matches('"'));
        if self.is_key { format!("{name} {kind}") } else { format!("{name} Nullable({kind})") }
    }
}

/// A copy that is being made.
pub struct TableCopy<'a> {
    server: &'a ClickHouse,
    name: String,
}

impl ClickHouse {
    /// Of what the table of this name is a copy; `None` if there is none.
    pub async fn copied(&self, name: &str) -> Result<Option<String>, ClickHouseError> {
        let sql = format!(
            "SELECT comment FROM system.tables WHERE database = {} AND name = {}",
            literal(&self.options.database),
            literal(&format!("{PREFIX}{name}"))
        );
        Ok(self.rows(ACTION, &sql).await?.into_iter().flatten().next())
    }

    /// Begins a copy of a table; `of` says of which version.
    pub async fn begin_copy(
        &self,
        name: &str,
        columns: &[CopyColumn<'_>],
        of: &str,
    ) -> Result<TableCopy<'_>, ClickHouseError> {
        if self.options.cluster.is_some() {
            let words = "clickhouse.cluster is set, and copies are exchanged on a single server only";
            return Err(ClickHouseError::new(ACTION, words, "let its target be postgres"));
        }
        let database = self.database();
        self.execute(ACTION, &format!("CREATE DATABASE IF NOT EXISTS {database}")).await?;
        let copy = TableCopy { server: self, name: format!("{PREFIX}{name}") };
        let new = copy.new_table();
        self.execute(ACTION, &format!("DROP TABLE IF EXISTS {new} SYNC")).await?;
        let declared: Vec<String> = columns.iter().map(|column| column.declaration()).collect();
        let keys: Vec<String> =
            columns.iter().filter(|column| column.is_key).map(|column| quoted(column.name.trim_matches('"'))).collect();
        let create = format!(
            "CREATE TABLE {new} ({}) ENGINE = MergeTree ORDER BY ({}) COMMENT {}",
            declared.join(", "),
            keys.join(", "),
            literal(of)
        );
        self.execute(ACTION, &create).await?;
        Ok(copy)
    }
}

impl TableCopy<'_> {
    fn new_table(&self) -> String {
        format!("{}.{}{NEW}", self.server.database(), self.name)
    }

    /// Puts rows into it, a JSON object each.
    pub async fn push(&self, rows: Vec<String>) -> Result<(), ClickHouseError> {
        let pieces = std::iter::once(Bytes::from(rows.join("\n")));
        self.server.insert_as(&format!("{}{NEW}", self.name), "JSONEachRow", pieces).await
    }

    /// Lets it serve.
    pub async fn exchange(self) -> Result<(), ClickHouseError> {
        let (new, serving) = (self.new_table(), format!("{}.{}", self.server.database(), self.name));
        // What there is to be exchanged the first time.
        self.server.execute(ACTION, &format!("CREATE TABLE IF NOT EXISTS {serving} AS {new}")).await?;
        failpoint::hit("workflow.before_exchange");
        self.server.execute(ACTION, &format!("EXCHANGE TABLES {serving} AND {new}")).await?;
        failpoint::hit("workflow.after_exchange");
        self.server.execute(ACTION, &format!("DROP TABLE IF EXISTS {new} SYNC")).await
    }
}
