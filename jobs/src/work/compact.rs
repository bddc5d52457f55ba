//! `compact-history`

use futures::StreamExt;
use tokio_util::task::AbortOnDropHandle;
use weir_engine::BoxError;
use weir_history::{Compaction, HistoryTable};
use weir_postgres::job_run::Progress;
use weir_postgres::job_runs::Outcome;

use super::Work;

impl Work {
    fn compaction(&self) -> Result<Compaction, BoxError> {
        let settings = &self.maintenance;
        Ok(Compaction {
            target_bytes: settings.compaction_target_bytes,
            memory_bytes: settings.compaction_memory_bytes / self.cores,
            spill: self.dir.spill()?,
        })
    }

    /// Compacts every group of small files, then removes what neither the table nor a reader within the retention needs.
    pub(super) async fn compact_history(&self, progress: &Progress) -> Result<(Outcome, String), BoxError> {
        let options = self.compaction()?;
        let Some(mut table) = HistoryTable::open(&self.history).await? else {
            return Ok((Outcome::Ok, "there is no history yet".to_owned()));
        };
        let groups = table.groups(options.target_bytes)?;
        let files: usize = groups.iter().map(weir_history::Group::files).sum();
        progress.expect(i64::try_from(files).ok(), "files");
        let (mut made, mut rows, mut left) = (0, 0, 0);
        let rewriter = table.rewriter(options);
        // Tasks of their own, which use other cores too.
        let rewriting = groups.into_iter().map(|group| {
            let task = tokio::spawn(rewriter.clone().rewrite(group));
            AbortOnDropHandle::new(task)
        });
        let mut rewriting = futures::stream::iter(rewriting).buffered(self.cores);
        while let Some(rewritten) = rewriting.next().await {
            let rewritten = rewritten??;
            let group = rewritten.group();
            match table.put_in_place(&rewritten).await? {
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
