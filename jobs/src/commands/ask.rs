//! `weir ask NAME`: one of the questions of `sql/queries`.

use std::process::ExitCode;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use serde_json::Value;
use weir_engine::BoxError;
use weir_query::{Dialect, History, Question};

use super::questions;
use crate::attached::{Attached, Patience, Target, history_root};
use crate::output::{Format, Listing};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which one; without it, a list
    name: Option<String>,
    /// What it is told, such as days=30; the list says what each takes
    #[arg(value_name = "NAME=VALUE")]
    arguments: Vec<String>,
    /// Of whom
    #[arg(long, value_enum, default_value = "history")]
    on: Store,
    /// Print the SQL instead
    #[arg(long)]
    sql: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Store {
    History,
    Clickhouse,
    ReadModels,
}

impl Store {
    fn dialect(self) -> Dialect {
        match self {
            Self::History => Dialect::DataFusion,
            Self::Clickhouse => Dialect::ClickHouse,
            Self::ReadModels => Dialect::Postgres,
        }
    }
}

pub(crate) async fn run(target: &Target, args: Args, format: Format) -> Result<ExitCode, BoxError> {
    let Some(name) = args.name else {
        questions::list()?.print(format)?;
        return Ok(ExitCode::SUCCESS);
    };
    let question = questions::find(&name)?;
    let arguments = question.arguments(&args.arguments)?;
    let sql = question.statement(args.on.dialect(), &arguments);
    let sql = sql.ok_or_else(|| format!("the read models cannot answer {name}; ask history or clickhouse"))?;
    if args.sql {
        crate::output::say(&sql)?;
        return Ok(ExitCode::SUCCESS);
    }
    let answer = match args.on {
        Store::History => {
            let (dir, settings) = target.open()?;
            let history = History::open(&history_root(&dir, &settings)?, settings.sql.memory_max_bytes).await?;
            of_batches(&history.sql(&sql).await?)?
        }
        Store::Clickhouse => of_batches(&target.open()?.1.clickhouse.required()?.table(&sql).await?)?,
        Store::ReadModels => of_read_models(target, question, &sql).await?,
    };
    answer.print(format)?;
    Ok(ExitCode::SUCCESS)
}

fn of_batches((schema, batches): &(arrow::datatypes::SchemaRef, Vec<RecordBatch>)) -> Result<Listing, BoxError> {
    let batches = batches.iter().map(in_milliseconds).collect::<Result<Vec<_>, _>>()?;
    super::sql::to_rows(schema, &batches)
}

/// Stores keep times in units of their own; answers are the same.
fn in_milliseconds(batch: &RecordBatch) -> Result<RecordBatch, BoxError> {
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let is_time = matches!(field.data_type(), DataType::Timestamp(_, _));
        let milliseconds = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
        let to = if is_time { milliseconds } else { field.data_type().clone() };
        columns.push(cast(column, &to)?);
        fields.push(Field::new(field.name(), to, true));
    }
    Ok(RecordBatch::try_new(std::sync::Arc::new(Schema::new(fields)), columns)?)
}

/// Rows of Postgres, as JSON, which has a form for each of its types.
async fn of_read_models(target: &Target, question: &Question, sql: &str) -> Result<Listing, BoxError> {
    let (dir, settings) = target.open()?;
    let attached = Attached::new(dir, settings, Patience::None).await?;
    let rows = read(&attached, sql).await;
    attached.detach().await?;
    let columns: Vec<String> = question.columns.iter().map(|column| column.name.clone()).collect();
    let cells = |row: &Value| -> Vec<Value> {
        let cell = |column: &weir_query::Column| match (&row[&column.name], column.kind.as_str()) {
            (Value::String(text), "time") => utc(text).into(),
            (value, _) => value.clone(),
        };
        question.columns.iter().map(cell).collect()
    };
    Ok(Listing { columns, rows: rows?.iter().map(cells).collect() })
}

async fn read(attached: &Attached, sql: &str) -> Result<Vec<Value>, BoxError> {
    let mut client = attached.database.get().await?;
    let transaction = client.build_transaction().read_only(true).start().await?;
    let rows = transaction.query(&format!("SELECT to_jsonb(answer) FROM (\n{sql}\n) answer"), &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// As history's times are written: seconds, and milliseconds where there are any.
fn utc(text: &str) -> String {
    match text.parse::<jiff::Timestamp>() {
        Ok(at) if at.subsec_millisecond() != 0 => format!("{at:.3}"),
        Ok(at) => format!("{at:.0}"),
        Err(_) => text.to_owned(),
    }
}
