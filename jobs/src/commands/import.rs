//! `weir import oulad DIR`

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;
use weir_engine::BoxError;

use super::new_tenant;
use crate::attached::Target;
use crate::oulad::{self, Summary};
use crate::output::{Format, Listing, complain};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Import {
    /// The Open University Learning Analytics data set, as .csv or .csv.gz files
    Oulad {
        /// Where the files are
        dir: PathBuf,
        /// Write rows that cannot be imported here: file, line, reason
        #[arg(long, value_name = "FILE")]
        rejects: Option<PathBuf>,
        /// Exit 1 when any row was rejected
        #[arg(long)]
        strict: bool,
        /// Whose data it becomes
        #[arg(long, default_value = "default")]
        tenant: String,
    },
}

pub(crate) async fn run(place: &Target, import: Import, format: Format) -> Result<ExitCode, BoxError> {
    let Import::Oulad { dir, rejects, strict, tenant } = import;
    let tenant = new_tenant(tenant)?;
    let mut attached = place.attach().await?;
    let mut server = attached.server.take();
    let supervised = async {
        match &mut server {
            Some(server) => BoxError::from(server.supervise().await),
            None => std::future::pending().await,
        }
    };
    let imported = tokio::select! {
        imported = Box::pin(oulad::import(&attached, &dir, rejects.as_deref(), tenant)) => imported,
        error = supervised => Err(error),
    };
    attached.server = server;
    attached.detach().await?;
    let summary = imported?;
    print(&summary, format)?;
    if summary.rejected > 0 {
        let place = rejects
            .map_or_else(|| "name a file with --rejects to see them".to_owned(), |p| format!("see {}", p.display()));
        complain(&format!("{} rows were rejected; {place}", summary.rejected));
        if strict {
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(summary: &Summary, format: Format) -> Result<(), BoxError> {
    let mut rows = Listing::new(&["event_type", "appended", "present"]);
    for (event_type, (appended, present)) in &summary.events {
        rows.rows.push(vec![json!(event_type.as_str()), json!(appended), json!(present)]);
    }
    rows.rows.push(vec![json!("(rejected rows)"), json!(summary.rejected), json!(0)]);
    Ok(rows.print(format)?)
}
