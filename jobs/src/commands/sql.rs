//! `weir sql`

mod prompt;

use std::process::ExitCode;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use weir_engine::{BoxError, LaneKind, StatusBoard};
use weir_model::Position;
use weir_postgres::{EventStore, inspect};
use weir_query::History;

use super::told_to_stop;
use crate::attached::{Attached, Patience, Target, history_root};
use crate::output::{Format, Listing, say};
use crate::sql_server::SqlServer;
use crate::telling::{self, Telling};

use prompt::Prompt;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// SQL over `events` and a view per event type, such as assessment_completed; without it, a prompt
    query: Option<String>,
    /// Answer clients of Postgres (psql, drivers, Grafana) at this address until told to stop
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "127.0.0.1:8627", conflicts_with_all = ["query", "wait_for"])]
    serve: Option<String>,
    /// Wait until history holds this position, for those who read what they wrote
    #[arg(long, value_name = "POSITION")]
    wait_for: Option<i64>,
    /// Give up waiting after this many seconds
    #[arg(long, default_value_t = 30)]
    wait_seconds: u64,
}

pub(crate) async fn run(target: &Target, args: Args, format: Format) -> Result<ExitCode, BoxError> {
    if let Some(address) = args.serve {
        return serve(target, &address).await;
    }
    // History alone answers; Postgres is needed only to wait for a lane.
    let (dir, settings) = target.open()?;
    let history = history_root(&dir, &settings)?;
    if let Some(position) = args.wait_for {
        let attached = Attached::new(dir.clone(), settings.clone(), Patience::None).await?;
        let reached = wait_for(&attached, position, Duration::from_secs(args.wait_seconds)).await;
        attached.detach().await?;
        reached?;
    }
    let Some(query) = args.query else {
        let timing = std::io::IsTerminal::is_terminal(&std::io::stdin());
        let mut prompt = Prompt { root: history, memory_max: settings.sql.memory_max_bytes, format, timing };
        Box::pin(prompt.run(&dir)).await?;
        return Ok(ExitCode::SUCCESS);
    };
    let history = History::open(&history, settings.sql.memory_max_bytes).await?;
    let (schema, batches) = history.sql(&query).await?;
    to_rows(&schema, &batches)?.print(format)?;
    Ok(ExitCode::SUCCESS)
}

/// Serves until told to stop. Postgres is needed for logins.
async fn serve(target: &Target, address: &str) -> Result<ExitCode, BoxError> {
    let told = told_to_stop();
    tokio::pin!(told);
    let mut attached = tokio::select! {
        attached = Box::pin(target.attach_patiently()) => attached?,
        stopped = &mut told => { stopped?; return Ok(ExitCode::SUCCESS) }
    };
    let (stop, board) = (CancellationToken::new(), StatusBoard::default());
    let server = SqlServer::listen(&attached, address).await?;
    say(&format!(
        "clients of Postgres are answered at {}; `weir token create --scopes sql` makes a login",
        server.address
    ))?;
    let process = telling::process("sql", &format!("postgres://{}", server.address));
    let mut postgres = attached.server.take();
    let supervised = async {
        match postgres.as_mut() {
            Some(server) => BoxError::from(server.supervise().await),
            None => std::future::pending().await,
        }
    };
    // First, so that nothing is served if it cannot begin.
    let telling = Telling::start(&attached.database, process, &board).await?;
    let serving = server.serve(board, stop.clone())?;
    let failure = tokio::select! {
        stopped = &mut told => { stopped?; None }
        error = supervised => Some(error),
    };
    stop.cancel();
    let served = serving.ended().await;
    telling.end().await;
    attached.server = postgres;
    attached.detach().await?;
    served?;
    failure.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// Arrow's columns as rows.
pub(super) fn to_rows(schema: &Schema, batches: &[RecordBatch]) -> Result<Listing, BoxError> {
    let mut rows = Listing { columns: schema.fields().iter().map(|f| f.name().clone()).collect(), rows: Vec::new() };
    for batch in batches {
        append(&mut rows, batch)?;
    }
    Ok(rows)
}

async fn wait_for(attached: &Attached, position: i64, limit: Duration) -> Result<(), BoxError> {
    let deadline = tokio::time::Instant::now() + limit;
    let store = EventStore::new(attached.database.clone());
    let id = store.event_id_at(Position(position)).await?;
    let event = match id {
        Some(id) => store.find(id).await?,
        None => None,
    };
    let event = event.ok_or_else(|| format!("there is no event at position {position}"))?;
    let lane = LaneKind::History.name();
    match inspect::wait_until_applied(&attached.database, lane, &event, deadline).await? {
        true => Ok(()),
        false => Err(format!("history does not hold position {position} yet; is `weir up` running?").into()),
    }
}

fn append(rows: &mut Listing, batch: &RecordBatch) -> Result<(), BoxError> {
    let options = FormatOptions::default();
    let columns = batch
        .columns()
        .iter()
        .map(|array| Ok((array, ArrayFormatter::try_new(array.as_ref(), &options)?)))
        .collect::<Result<Vec<_>, arrow::error::ArrowError>>()?;
    for row in 0..batch.num_rows() {
        let cells = columns.iter().map(|(array, formatter)| {
            if array.is_null(row) {
                return Value::Null;
            }
            let text = formatter.value(row).to_string();
            match array.data_type() {
                t if t.is_numeric() || *t == DataType::Boolean => {
                    serde_json::from_str(&text).unwrap_or(Value::String(text))
                }
                _ => Value::String(text),
            }
        });
        rows.rows.push(cells.collect());
    }
    Ok(())
}
