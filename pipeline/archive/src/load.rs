//! Parts into an empty event store: whole, or not at all.

use tokio_postgres::GenericClient;
use weir_engine::failpoint;
use weir_model::canonical::SetHash;
use weir_postgres::Database;

use crate::error::{ArchiveError, during};
use crate::rows::{self, Column};
use crate::store::{Archive, Part};
use crate::write::{Written, read};

/// Whose id the event store has afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreId {
    /// That of the archived one: sinks that know it go on.
    Keep,
    /// Its own.
    New,
}

/// Loads an archive. `told` is called after each part.
pub async fn load(
    archive: &Archive,
    database: &Database,
    store_id: StoreId,
    mut told: impl FnMut(&Part),
) -> Result<Written, ArchiveError> {
    const ACTION: &str = "loading the archive";
    let of = archive.event_store().await?;
    let of = of
        .ok_or_else(|| ArchiveError::Refused(format!("{} is no archive: it has no archive.json", archive.address())))?;
    let parts = archive.parts().await?;
    let mut client = database.get().await.map_err(during(ACTION))?;
    client
        .batch_execute("SET TIME ZONE 'UTC'; SET DateStyle = 'ISO'; SET statement_timeout = 0")
        .await
        .map_err(during(ACTION))?;
    let transaction = client.transaction().await.map_err(during(ACTION))?;
    transaction.batch_execute("LOCK TABLE append_order IN EXCLUSIVE MODE").await.map_err(during(ACTION))?;
    refuse_what_is_there(&*transaction, store_id).await?;
    let columns = rows::columns(&*transaction).await?;
    let mut loaded = Written::default();
    for part in &parts {
        refuse_other_columns(part, &columns)?;
        read(archive, part, async |batch| rows::insert(&*transaction, &part.columns, &batch).await).await?;
        compare(&*transaction, part).await?;
        told(part);
        loaded = Written {
            parts: loaded.parts + 1,
            rows: loaded.rows + part.rows,
            bytes: loaded.bytes + part.bytes,
            below: part.below,
        };
    }
    if store_id == StoreId::Keep {
        let sql = "UPDATE event_store SET id = $1::text::uuid";
        transaction.execute(sql, &[&of]).await.map_err(during(ACTION))?;
        // Lanes that had begun and read nothing knew the id that is gone.
        let begun = "DELETE FROM ledger WHERE topic = 'events' AND coalesce(next_offset, 1) <= 1";
        transaction.execute(begun, &[]).await.map_err(during(ACTION))?;
    }
    failpoint::hit("archive.before_load");
    transaction.commit().await.map_err(during(ACTION))?;
    failpoint::hit("archive.after_load");
    Ok(loaded)
}

async fn refuse_what_is_there(client: &impl GenericClient, store_id: StoreId) -> Result<(), ArchiveError> {
    const SQL: &str = "SELECT (SELECT count(*) FROM (SELECT FROM events LIMIT 1) e), \
         (SELECT count(*) FROM ledger WHERE next_offset > 1 AND retired_at IS NULL), \
         (SELECT count(*) FROM parts WHERE phase <> 'stopped' AND heartbeat > now() - interval '15 s')";
    let row = client.query_one(SQL, &[]).await.map_err(during("looking into the event store"))?;
    if row.get::<_, i64>(0) > 0 {
        return Err(ArchiveError::Refused(
            "the event store holds events: an archive is loaded into an empty one only".to_owned(),
        ));
    }
    if row.get::<_, i64>(2) > 0 {
        return Err(ArchiveError::Refused(
            "processes of weir are at work on this Postgres, and know it by another id: stop them first".to_owned(),
        ));
    }
    if row.get::<_, i64>(1) > 0 && store_id == StoreId::Keep {
        return Err(ArchiveError::Refused(
            "the ledger of this Postgres knows lanes that have read something: load into a new data directory, or --store-id new".to_owned(),
        ));
    }
    Ok(())
}

/// A build may have more columns than the archive, and never fewer.
fn refuse_other_columns(part: &Part, columns: &[Column]) -> Result<(), ArchiveError> {
    match part.columns.iter().find(|column| !columns.contains(column)) {
        Some(Column { name, data_type }) => Err(ArchiveError::Refused(format!(
            "events has no column {name} {data_type}: a newer weir made the archive, use that one"
        ))),
        None => Ok(()),
    }
}

/// The rows of a part as the event store has them now.
async fn compare(client: &impl GenericClient, part: &Part) -> Result<(), ArchiveError> {
    let (mut hash, mut next) = (SetHash::default(), part.from);
    while let Some(batch) = rows::page(client, &part.columns, next, part.below).await? {
        let Some((_, last)) = rows::ends(&batch) else { break };
        rows::hash(&batch, &mut hash);
        next = last + 1;
    }
    if hash.hex() == part.hash {
        return Ok(());
    }
    Err(ArchiveError::Broken(format!(
        "{} is not the same in the event store after it was loaded; nothing was kept",
        part.file()
    )))
}
