//! `compact-history`

use weir_engine::BoxError;
use weir_history::{Compaction, HistoryTable};
use weir_postgres::job_run::Progress;
use weir_postgres::job_runs::Outcome;

use super::Work;

impl Work {
    fn compaction<'a>(&self, spill: &'a std::path::Path) -> Compaction<'a> {
        let settings = &self.maintenance;
        Compaction {
            target_bytes: settings.compaction_target_bytes,
            memory_bytes: settings.compaction_memory_bytes,
            spill,
        }
    }

    /// Compacts every group of small files, then removes what neither the table nor a reader within the retention needs.
    pub(super) async fn compact_history(&self, progress: &Progress) -> Result<(Outcome, String), BoxError> {
        let spill = self.dir.spill()?;
        let options = self.compaction(&spill);
        let Some(mut table) = HistoryTable::open(&self.history).await? else {
            return Ok((Outcome::Ok, "there is no history yet".to_owned()));
        };
        let groups = table.groups(options.target_bytes)?;
        let files: usize = groups.iter().map(weir_history::Group::files).sum();
        progress.expect(i64::try_from(files).ok(), "files");
        let (mut made, mut rows, mut left) = (0, 0, 0);
        for group in &groups {
            match table.compact(group, &options).await? {
                Some(done) => {
                    made += done.files;
                    rows += done.rows;
                    progress.wrote(i64::try_from(done.rows).unwrap_or(0), i64::try_from(done.bytes).unwrap_or(0));
                    progress.say(&format!("{}: {} files are {} now", group.partition(), group.files(), done.files));
                }
                None => {
                    left += group.files();
                    progress.say(&format!("{}: another process was here; left alone", group.partition()));
                }
            }
            progress.advance(i64::try_from(group.files()).unwrap_or(0));
        }
        let removed = table.tidy(self.maintenance.vacuum_retention()).await?;
        let done = match files - left {
            0 => "no small files to compact".to_owned(),
            done => format!("{done} files are {made} now, {rows} rows"),
        };
        let elsewhere = if left > 0 { format!("; {left} files were another's") } else { String::new() };
        Ok((Outcome::Ok, format!("{done}{elsewhere}; {removed} old files removed")))
    }
}
