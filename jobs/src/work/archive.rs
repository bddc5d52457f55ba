//! `archive-events`

use serde::{Deserialize, Serialize};
use weir_archive::Archive;
use weir_engine::BoxError;
use weir_postgres::job_run::Progress;
use weir_postgres::job_runs::Outcome;

use super::Work;

/// What was asked for, as it is kept with the run; the schedule asks for what is new, at `archive.url`.
#[derive(Debug, Clone, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ArchiveAsked {
    pub(crate) to: Option<String>,
    pub(crate) from: Option<i64>,
    pub(crate) below: Option<i64>,
}

impl Work {
    pub(super) async fn archive_events(
        &self,
        asked: &ArchiveAsked,
        progress: &Progress,
    ) -> Result<(Outcome, String), BoxError> {
        let address = asked.to.as_deref().unwrap_or(&self.archive_url);
        let archive = Archive::open(address)?;
        let told = |part: &weir_archive::Part, end: i64| {
            let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
            progress.expect(Some(end - part.from + progress.standing().done), "rows");
            progress.advance(part.below - part.from);
            progress.wrote(count(part.rows), count(part.bytes));
            progress.say(&format!("events {} and below {} are archived and read back", part.from, part.below));
        };
        let written = weir_archive::write(&archive, &self.database, (asked.from, asked.below), told).await?;
        Ok((
            Outcome::Ok,
            format!(
                "{} events in {} parts, {} bytes, read back; {} has everything below {}",
                written.rows,
                written.parts,
                written.bytes,
                archive.address(),
                written.below
            ),
        ))
    }
}
