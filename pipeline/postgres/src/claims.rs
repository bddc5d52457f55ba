//! Lets no process claim partitions while the tables of a sink outside Postgres are exchanged: with the lane's epochs raised its ledger stands still then.

use deadpool_postgres::ClientWrapper;
use tokio_postgres::GenericClient;

use crate::database::Database;
use crate::error::{DbError, During};
use crate::job_run::JobFence;
use crate::locks;

/// While it is there no process claims.
pub struct ClaimsHeld {
    client: ClientWrapper,
}

impl ClaimsHeld {
    /// An error if its session is gone, and with it the hold.
    pub async fn check(&self) -> Result<(), DbError> {
        self.client.batch_execute("SELECT 1").await.during("asking whether claims are still held")
    }
}

/// Waits for claims that are under way. The session of another holder is ended: its run has been replaced, since this one is the job's last.
pub async fn hold(database: &Database, fence: &JobFence) -> Result<ClaimsHeld, DbError> {
    const ACTION: &str = "keeping processes from claiming";
    const END: &str = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = $1::int::oid \
         AND objid = $2::int::oid AND mode = 'ExclusiveLock' AND granted AND pid <> pg_backend_pid() \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let mut fencing = database.get().await?;
    let transaction = fencing.transaction().await.during(ACTION)?;
    fence.hold(&*transaction).await?;
    let client = deadpool_postgres::Object::take(database.get().await?);
    let (group, number) = locks::CLAIMS;
    client.query(END, &[&group, &number]).await.during(ACTION)?;
    client.batch_execute("SET statement_timeout = 0; SET lock_timeout = '60s'").await.during(ACTION)?;
    client.query_one("SELECT pg_advisory_lock($1, $2)", &[&group, &number]).await.during(ACTION)?;
    transaction.commit().await.during(ACTION)?;
    Ok(ClaimsHeld { client })
}

/// Whether a process may claim until the transaction ends.
pub async fn may_claim(transaction: &impl GenericClient) -> Result<bool, DbError> {
    const ACTION: &str = "asking whether partitions may be claimed";
    let (group, number) = locks::CLAIMS;
    let sql = "SELECT pg_try_advisory_xact_lock_shared($1, $2)";
    transaction.query_one(sql, &[&group, &number]).await.during(ACTION)?.try_get(0).during(ACTION)
}
