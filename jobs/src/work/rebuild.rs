//! `rebuild-read-models`, `rebuild-metrics`, `rebuild-history` and `backfill-history`: what a lane holds made again from its sources.

use serde::{Deserialize, Serialize};
use weir_engine::{BoxError, LaneKind};
use weir_postgres::job_run::Progress;
use weir_postgres::job_runs::Outcome;
use weir_postgres::versions;
use weir_verify::{Fill, FillFrom, HistoryFilled, HistoryFilling, Rebuilding, Subject};

use super::Work;

/// What was asked for, as it is kept with the run.
#[derive(Debug, Clone, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RebuildAsked {
    /// The number that the new version is to have: a second request for it does nothing.
    pub(crate) version: Option<i32>,
    /// Counters may fall.
    pub(crate) accept_reset: bool,
    /// The version before serves again.
    pub(crate) rollback: bool,
}

impl Work {
    pub(super) async fn rebuild(&self, subject: Subject, asked: &RebuildAsked) -> Result<(Outcome, String), BoxError> {
        let lane = subject.lane();
        if let Some(words) = self.version_asked(lane, asked).await? {
            return Ok((Outcome::Ok, words));
        }
        let spill = self.dir.spill()?;
        let asked_of = Rebuilding { subject, units: self.units, spill: &spill, accepts_reset: asked.accept_reset };
        let done = match asked.rollback {
            true => Box::pin(weir_verify::roll_back(self.stores(), asked_of)).await?,
            false => Box::pin(weir_verify::rebuild(self.stores(), asked_of)).await?,
        };
        let tables: Vec<_> = done.different.iter().map(|(table, rows)| format!("{rows} rows of {table}")).collect();
        let differed = match (tables.is_empty(), asked.rollback) {
            (true, _) => "nothing differed".to_owned(),
            (false, true) => format!("as they were: {}", tables.join(", ")),
            (false, false) => format!("put right: {}", tables.join(", ")),
        };
        let serves = done.versions.map_or_else(String::new, |(serving, previous)| {
            format!(
                "; version {serving} serves, and {previous} is kept for {} days (`weir rebuild {lane} --rollback`)",
                self.maintenance.keep_versions_days
            )
        });
        let what = if asked.rollback { "rolled back" } else { "rebuilt" };
        Ok((Outcome::Ok, format!("{what}; {differed}{serves}")))
    }

    /// Whether the version that was asked for serves already: then there is nothing to do. Refuses one that is not the next.
    pub(super) async fn version_asked(&self, lane: &str, asked: &RebuildAsked) -> Result<Option<String>, BoxError> {
        let Some(version) = asked.version else { return Ok(None) };
        let found = versions::of_lane(&**self.database.get().await?, lane).await?;
        let (serving, next) = found.map_or((1, 2), |found| (found.serving, found.next()));
        if version == serving {
            return Ok(Some(format!("version {version} of {lane} serves already")));
        }
        if version != next && !asked.rollback {
            return Err(format!("version {serving} of {lane} serves, and the next one is {next}").into());
        }
        Ok(None)
    }

    pub(super) async fn fill_history(
        &self,
        (fill, from): (Fill, FillFrom),
        rate: Option<u64>,
        progress: &Progress,
    ) -> Result<(Outcome, String), BoxError> {
        let is_rebuild = matches!(fill, Fill::Everything);
        let asked = HistoryFilling { fill, from, is_dry: false, rate };
        self.refuse_small_disk(is_rebuild).await?;
        let done = Box::pin(weir_verify::fill_history(self.stores(), &asked, progress)).await?;
        for note in notes(&done) {
            progress.say(&note);
        }
        if is_rebuild {
            // Every row is as this build reads it.
            let (lane, fingerprint) = (LaneKind::History, versions::fingerprint(LaneKind::History, self.units));
            versions::declare_compatible(&self.database, lane.name(), &fingerprint).await?;
        }
        let words = match is_rebuild {
            true => format!(
                "{} rows in {} files, read back; they took the place of {}",
                done.rows,
                done.files,
                files(done.replaced)
            ),
            false => format!("{} rows inserted in {}; {} looked at", done.rows, files(done.files), done.looked_at),
        };
        let lost = match done.lost_files.len() {
            0 => String::new(),
            n => format!("; {} of the table were gone", files(n)),
        };
        let damaged = match done.damaged_files.len() {
            0 => String::new(),
            n => format!("; {} of the table could not be read", files(n)),
        };
        Ok((Outcome::Ok, format!("{words}{lost}{damaged}")))
    }

    /// What `backfill-history` would write.
    pub(crate) async fn history_plan(&self, (fill, from): (Fill, FillFrom)) -> Result<HistoryFilled, BoxError> {
        let asked = HistoryFilling { fill, from, is_dry: true, rate: None };
        Ok(Box::pin(weir_verify::fill_history(self.stores(), &asked, &Progress::default())).await?)
    }

    /// New files stand beside the old ones until the vacuum removes those.
    async fn refuse_small_disk(&self, is_rebuild: bool) -> Result<(), BoxError> {
        let (Ok(path), true) = (self.history.url.to_file_path(), is_rebuild) else { return Ok(()) };
        let Ok(stat) = rustix::fs::statvfs(&path) else { return Ok(()) };
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let needed = match weir_history::HistoryTable::open(&self.history).await? {
            Some(table) => table.bytes()?,
            None => 0,
        };
        if free > needed {
            return Ok(());
        }
        let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
        Err(format!(
            "a second copy of history may take {} MiB, and {} are free in {}: make room first",
            mebibytes(needed),
            mebibytes(free),
            path.display()
        )
        .into())
    }
}

fn files(n: usize) -> String {
    format!("{n} file{}", if n == 1 { "" } else { "s" })
}

/// What to know about a run.
pub(crate) fn notes(done: &HistoryFilled) -> Vec<String> {
    let lost = done.lost_files.iter().map(|path| format!("{path} was named by the table, and is gone"));
    let damaged = done.damaged_files.iter().map(|path| format!("{path} could not be read"));
    lost.chain(damaged).chain(done.notes.iter().cloned()).collect()
}
