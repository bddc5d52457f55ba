//! `compact-history`

use futures::StreamExt;
use tokio_util::task::AbortOnDropHandle;
use weir_engine::BoxError;
use weir_history::{Compaction, HistoryTable};
use weir_postgres::job_run::Progress;
use weir_postgres::job_runs::Outcome;

use super::Work;

/// What one sort needs at least, in bytes: with less it may not even hold the batches that it merges.
const SORT_MIN: usize = 64 << 20;

/// Groups that are rewritten at a time: no more than there are cores, and memory for.
fn at_once(cores: usize, memory_bytes: usize) -> usize {
    cores.min(memory_bytes / SORT_MIN).max(1)
}

impl Work {
    /// How each group is rewritten, and how many at a time.
    fn compaction(&self) -> Result<(Compaction, usize), BoxError> {
        let settings = &self.maintenance;
        let at_once = at_once(self.cores, settings.compaction_memory_bytes);
        let compaction = Compaction {
            target_bytes: settings.compaction_target_bytes,
            memory_bytes: settings.compaction_memory_bytes / at_once,
            spill: self.dir.spill()?,
        };
        Ok((compaction, at_once))
    }

    /// Compacts every group of small files, then removes what neither the table nor a reader within the retention needs.
    pub(super) async fn compact_history(&self, progress: &Progress) -> Result<(Outcome, String), BoxError> {
        let (options, at_once) = self.compaction()?;
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
        let mut rewriting = futures::stream::iter(rewriting).buffered(at_once);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sort_has_the_memory_that_it_needs() {
        assert_eq!(at_once(2, 256 << 20), 2);
        assert_eq!(at_once(64, 256 << 20), 4);
        assert_eq!(at_once(64, 32 << 20), 1);
    }
}
