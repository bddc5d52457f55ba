//! What `weir verify` reads from Postgres: everything from one snapshot, row by row, so that lanes may run meanwhile and
//! memory stays bounded.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;

use deadpool_postgres::ClientWrapper;
use futures::TryStreamExt;
use tokio_postgres::Row;
use weir_engine::{Partition, Record};
use weir_model::canonical::SetHash;
use weir_model::project::ReadModel;

use crate::database::Database;
use crate::dead_letters;
use crate::error::{DbError, During};
use crate::ledger::{Ledger, LedgerRow};
use crate::metric_totals::MetricTotals;
use crate::read_models::{self, stored};
use crate::repeats;

const ACTION: &str = "reading a sink for verification";

/// A REPEATABLE READ snapshot: the ledger, the dead letters and every table at one cut.
pub struct SinkSnapshot {
    client: ClientWrapper,
}

impl SinkSnapshot {
    /// Takes the snapshot. The connection is its own and closes with it.
    pub async fn open(database: &Database) -> Result<Self, DbError> {
        let client = deadpool_postgres::Object::take(database.get().await?);
        client
            .batch_execute(
                "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
                 BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT 1 FROM event_store",
            )
            .await
            .during(ACTION)?;
        Ok(Self { client })
    }

    /// The ledger at the cut.
    pub async fn ledger(&self) -> Result<Vec<LedgerRow>, DbError> {
        Ledger::rows(&*self.client).await
    }

    /// Offsets that are a lane's dead letters, by partition.
    pub async fn dead_offsets(&self, lane: &str) -> Result<HashMap<Partition, HashMap<i64, bool>>, DbError> {
        dead_letters::offsets(&*self.client, lane).await
    }

    /// What a lane left out because it came before, by partition: offsets and event ids.
    pub async fn left_out(&self, lane: &str) -> Result<HashMap<Partition, HashMap<i64, String>>, DbError> {
        repeats::left_out(&*self.client, lane).await
    }

    /// The metrics at the cut.
    pub async fn metrics(&self) -> Result<MetricTotals, DbError> {
        MetricTotals::read(&*self.client).await
    }

    /// Count and hash of each read model, by its table.
    pub async fn read_models(&self) -> Result<BTreeMap<&'static str, SetHash>, DbError> {
        let mut hashes = BTreeMap::new();
        for model in ReadModel::ALL {
            let hash = self.hash(&stored::query(model), |row| stored::canonical(model, row)).await?;
            hashes.insert(model.table(), hash);
        }
        let paths = self.hash(PATHS_WITHOUT_LEARNER, |row| row.try_get(0).during(ACTION)).await?;
        hashes.entry(ReadModel::Progress.table()).or_default().merge(paths);
        Ok(hashes)
    }

    /// Whether the read models are of an older layout, and wait to be rebuilt.
    pub async fn read_models_are_outdated(&self) -> Result<bool, DbError> {
        read_models::are_outdated(&*self.client).await
    }

    async fn hash(&self, sql: &str, text: impl Fn(&Row) -> Result<String, DbError>) -> Result<SetHash, DbError> {
        let mut hash = SetHash::default();
        let mut rows = pin!(self.client.query_raw(sql, std::iter::empty::<&str>()).await.during(ACTION)?);
        while let Some(row) = rows.try_next().await.during(ACTION)? {
            hash.add(&[text(&row)?.as_bytes()]);
        }
        Ok(hash)
    }
}

/// Paths without a row of progress: nothing expects them, so each is a difference.
const PATHS_WITHOUT_LEARNER: &str = "SELECT concat_ws(' ', 'a path without a learner', tenant, user_id, learning_path_id) \
     FROM learner_learning_paths l WHERE NOT EXISTS \
     (SELECT FROM learner_progress_read_model p WHERE p.tenant = l.tenant AND p.user_id = l.user_id)";

/// A page of the event store as records, from an offset on: the reference of every comparison.
pub async fn reference_page(
    database: &Database,
    partition: &Partition,
    from: i64,
    limit: i64,
) -> Result<Vec<Record>, DbError> {
    crate::source::records_from(database, partition, from, limit).await
}
