//! Postgres' side of publishing: one publisher at a time, and a lower bound of how far it is.

use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use uuid::Uuid;
use weir_model::Position;

use crate::database::Database;
use crate::error::{DbError, During};
use crate::event_store::EventStore;
use crate::locks;
use crate::source::EVENT_STORE_TOPIC;

/// Seconds without a sign of life after which a publisher that does not hold the lock is gone.
const LOCKED_SILENCE: f64 = 3.0;

/// The publisher's row of one event store.
pub struct Publishing {
    database: Database,
    event_store: Uuid,
}

/// The right to publish, until another process takes it. It only keeps publishers from fencing each other in turn: that nothing
/// is published twice rests on Kafka's fencing of the transactional id.
pub struct Lead {
    database: Database,
    event_store: Uuid,
    epoch: i64,
    // Holds the lock, unless it was taken over from one that gave no sign of life.
    _connection: ClientWrapper,
}

impl Publishing {
    /// For the event store of this database.
    pub async fn new(database: Database) -> Result<Self, DbError> {
        let event_store = EventStore::new(database.clone()).id().await?;
        Ok(Self { database, event_store })
    }

    /// Names the event store.
    #[must_use]
    pub fn event_store(&self) -> Uuid {
        self.event_store
    }

    /// Begins to publish, unless another does. One that gave no sign of life for `takeover_after` counts as gone even while
    /// its connection stands: it may be stopped, or cut off.
    pub async fn lead(&self, takeover_after: Duration) -> Result<Option<Lead>, DbError> {
        const ACTION: &str = "beginning to publish";
        const SQL: &str = "INSERT INTO publisher AS p (source, epoch, owner) VALUES ($1, 1, $2) \
             ON CONFLICT (source) DO UPDATE SET epoch = p.epoch + 1, owner = excluded.owner, seen_at = now() \
             WHERE p.seen_at < now() - make_interval(secs => CASE WHEN $3 THEN $5::float8 ELSE $4::float8 END) RETURNING epoch";
        let connection = deadpool_postgres::Object::take(self.database.get().await?);
        let (group, number) = locks::PUBLISHER;
        let row =
            connection.query_one("SELECT pg_try_advisory_lock($1, $2)", &[&group, &number]).await.during(ACTION)?;
        let locked: bool = row.try_get(0).during(ACTION)?;
        let owner = format!("{}-{}", std::process::id(), Uuid::now_v7());
        let silence = takeover_after.as_secs_f64();
        let row = connection
            .query_opt(SQL, &[&self.event_store, &owner, &locked, &silence, &LOCKED_SILENCE])
            .await
            .during(ACTION)?;
        let Some(row) = row else { return Ok(None) };
        let epoch = row.try_get(0).during(ACTION)?;
        let (database, event_store) = (self.database.clone(), self.event_store);
        Ok(Some(Lead { database, event_store, epoch, _connection: connection }))
    }

    /// The lanes that read this event store themselves: what is published would reach them a second time.
    pub async fn embedded_lanes(&self) -> Result<Vec<String>, DbError> {
        const ACTION: &str = "looking for lanes on the event store";
        const SQL: &str =
            "SELECT lane FROM ledger WHERE topic = $1 AND source = $2 AND retired_at IS NULL ORDER BY lane";
        let client = self.database.get().await?;
        let rows = client.query(SQL, &[&EVENT_STORE_TOPIC, &self.event_store.to_string()]).await.during(ACTION)?;
        rows.iter().map(|row| row.try_get(0).during(ACTION)).collect()
    }

    /// Who publishes now: who gave a sign of life within this time.
    pub async fn at_work(&self, takeover_after: Duration) -> Result<Option<String>, DbError> {
        const ACTION: &str = "looking for a publisher";
        const SQL: &str =
            "SELECT owner FROM publisher WHERE source = $1 AND seen_at > now() - make_interval(secs => $2)";
        let client = self.database.get().await?;
        let row = client.query_opt(SQL, &[&self.event_store, &takeover_after.as_secs_f64()]).await.during(ACTION)?;
        row.map(|row| row.try_get(0)).transpose().during(ACTION)
    }

    /// The position up to which everything was published (0 for none), and whether `weir source switch kafka` set it and nothing was
    /// published since.
    pub async fn lower_bound(&self) -> Result<(i64, bool), DbError> {
        const ACTION: &str = "reading the publisher's lower bound";
        const SQL: &str = "SELECT position, switched FROM publisher WHERE source = $1";
        let client = self.database.get().await?;
        let row = client.query_opt(SQL, &[&self.event_store]).await.during(ACTION)?;
        let Some(row) = row else { return Ok((0, false)) };
        Ok((row.try_get(0).during(ACTION)?, row.try_get(1).during(ACTION)?))
    }

    /// The id of the event at a position.
    pub async fn event_id_at(&self, position: i64) -> Result<Option<String>, DbError> {
        let id = EventStore::new(self.database.clone()).event_id_at(Position(position)).await?;
        Ok(id.map(|id| id.to_string()))
    }
}

impl Lead {
    /// Lets the next publisher begin at once.
    pub async fn release(&mut self) -> Result<(), DbError> {
        const SQL: &str = "UPDATE publisher SET seen_at = '-infinity' WHERE source = $1 AND epoch = $2";
        let client = self.database.get().await?;
        client.execute(SQL, &[&self.event_store, &self.epoch]).await.during("letting the next publisher begin")?;
        Ok(())
    }

    /// Gives a sign of life and moves the lower bound; `false` when someone else publishes now.
    pub async fn note(&mut self, position: i64, event_id: Option<&str>) -> Result<bool, DbError> {
        const ACTION: &str = "noting the publisher's progress";
        const SQL: &str = "UPDATE publisher SET switched = switched AND position >= $3, position = greatest(position, $3), \
             event_id = $4, seen_at = now() WHERE source = $1 AND epoch = $2";
        let client = self.database.get().await?;
        let noted =
            client.execute(SQL, &[&self.event_store, &self.epoch, &position, &event_id]).await.during(ACTION)?;
        Ok(noted == 1)
    }
}
