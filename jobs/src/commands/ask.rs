//! `weir ask NAME`: one of the questions of `sql/queries`.

use std::process::ExitCode;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use serde_json::json;
use weir_engine::BoxError;
use weir_query::{History, QUESTIONS, Question};

use crate::attached::{Target, history_root};
use crate::output::{Format, Listing};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which one; without it, a list
    name: Option<String>,
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
}

pub(crate) async fn run(target: &Target, args: Args, format: Format) -> Result<ExitCode, BoxError> {
    let Some(name) = args.name else {
        let mut rows = Listing::new(&["question", "asks"]);
        rows.rows.extend(QUESTIONS.iter().map(|question| vec![json!(question.name), json!(question.words())]));
        rows.print(format)?;
        return Ok(ExitCode::SUCCESS);
    };
    let question =
        Question::named(&name).ok_or_else(|| format!("there is no question {name}; `weir ask` lists them"))?;
    let sql = question.sql;
    if args.sql {
        crate::output::say(sql.trim_end())?;
        return Ok(ExitCode::SUCCESS);
    }
    let (dir, settings) = target.open()?;
    let (schema, batches) = match args.on {
        Store::History => {
            let history = History::open(&history_root(&dir, &settings)?, settings.sql.memory_max_bytes).await?;
            history.sql(sql).await?
        }
        Store::Clickhouse => settings.clickhouse.required()?.table(sql).await?,
    };
    let batches = batches.iter().map(in_milliseconds).collect::<Result<Vec<_>, _>>()?;
    super::sql::to_rows(&schema, &batches)?.print(format)?;
    Ok(ExitCode::SUCCESS)
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
