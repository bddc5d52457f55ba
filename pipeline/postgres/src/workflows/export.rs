//! A workflow's table on its way to another store: columns, rows as JSON, and of which computation they are, of one moment.

use deadpool_postgres::ClientWrapper;

use super::{ACTION, Workflow, session, states};
use crate::database::Database;
use crate::error::{DbError, During};

/// Rows of a page.
const ROWS: usize = 5000;

/// A column of a workflow's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type with what limits it, as Postgres calls it.
    pub sql_type: String,
    /// Whether it is one of those that name a row.
    pub is_key: bool,
}

/// A table as it is at one moment.
pub struct Export {
    client: ClientWrapper,
    /// In their order.
    pub columns: Vec<Column>,
    /// Of which computation its rows are.
    pub version: String,
}

/// As text where JSON would lose something: digits of a number, or the zone that a time is in.
fn as_json(column: &Column) -> String {
    let name = &column.name;
    match column.sql_type.as_str() {
        zoned if zoned.ends_with("with time zone") => {
            format!("to_char({name} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') AS {name}")
        }
        "boolean" | "smallint" | "integer" => name.clone(),
        _ => format!("{name}::text AS {name}"),
    }
}

impl Export {
    /// Begins; `None` while the table was never computed.
    pub async fn begin(database: &Database, workflow: &Workflow) -> Result<Option<Self>, DbError> {
        let client = session(database).await?;
        client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.during(ACTION)?;
        let Some(state) = states(&*client).await?.remove(&workflow.name) else { return Ok(None) };
        let table = format!("workflows.{}", workflow.name);
        const COLUMNS: &str = "SELECT quote_ident(attname), format_type(atttypid, atttypmod) FROM pg_attribute \
             WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
        let mut columns = Vec::new();
        for row in client.query(COLUMNS, &[&table]).await.during(ACTION)? {
            let name: String = row.try_get(0).during(ACTION)?;
            let is_key = workflow.keys.contains(&name);
            columns.push(Column { name, sql_type: row.try_get(1).during(ACTION)?, is_key });
        }
        let list: Vec<String> = columns.iter().map(as_json).collect();
        let declare = format!(
            "DECLARE exported CURSOR FOR SELECT to_jsonb(r)::text FROM (SELECT {} FROM {table}) r",
            list.join(", ")
        );
        client.batch_execute(&declare).await.during(ACTION)?;
        Ok(Some(Self { client, columns, version: state.version() }))
    }

    /// The next rows, a JSON object each; none at the end.
    pub async fn page(&mut self) -> Result<Vec<String>, DbError> {
        let rows = self.client.query(&format!("FETCH {ROWS} FROM exported"), &[]).await.during(ACTION)?;
        rows.iter().map(|row| row.try_get(0).during(ACTION)).collect()
    }
}
