//! The table of events and its rollups made again beside those that serve, and how they take their place.
//!
//! 1. [`ClickHouse::begin_rebuild`]: empty tables like those that serve; they are filled out of history, below bounds that the caller knows;
//! 2. the caller lets no process claim ([`weir_postgres::claims`]) and raises the lane's epochs, so that its ledger stands still: a batch that is under way is
//!    refused there, and read again later;
//! 3. what the lane wrote above the bounds is copied from the serving table ([`Rebuild::keep_stretches`]), and the rollups are computed from all of it
//!    ([`Rebuild::finish`]);
//! 4. [`Rebuild::exchange`] exchanges the tables, each by one statement.
//!
//! A crash before 4 leaves tables that the next run drops. One within it leaves the new events with old rollups, and the lane goes on, since its ledger says
//! no more than either table holds; the next run makes all of it again. The table that served is kept as `events_stored_previous`. Readers go through views,
//! which name tables: a query that runs finishes on the table that it began with.

use std::collections::BTreeSet;

use weir_engine::{Partition, Span, failpoint};

use crate::backfill::Insertion;
use crate::carry::Months;
use crate::error::ClickHouseError;
use crate::migrate::VIEWS;
use crate::rollups;
use crate::schema::TABLE;
use crate::server::{ClickHouse, literal};

const ACTION: &str = "rebuilding the tables of ClickHouse";

/// The table that served before.
pub(crate) const PREVIOUS: &str = "events_stored_previous";

/// What the names of new tables have behind those that serve, before the run's number.
const REBUILT: &str = "_rebuilt_";

/// Stretches in one statement.
const STRETCHES_MAX: usize = 200;

/// A rebuild under way.
pub struct Rebuild<'a> {
    server: &'a ClickHouse,
    /// The run: a later one drops the tables of this one, which then exchanges nothing.
    run: i64,
}

/// A new table beside the one that serves.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Compared {
    /// Rows of the new one, each record once.
    pub rows: u64,
    /// Months whose rows are not as they were.
    pub months_different: Vec<String>,
}

fn stretch(partition: &Partition, from: i64, below: i64) -> String {
    format!(
        "(source = {} AND topic = {} AND `partition` = {} AND `offset` >= {from} AND `offset` < {below})",
        literal(&partition.source),
        literal(&partition.topic),
        partition.number
    )
}

impl ClickHouse {
    /// Makes the new tables, and drops what earlier runs left.
    pub async fn begin_rebuild(&self, run: i64) -> Result<Rebuild<'_>, ClickHouseError> {
        if self.options.cluster.is_some() {
            let cure = "name another clickhouse.database, and fill it with `weir backfill clickhouse`";
            return Err(ClickHouseError::new(ACTION, "a cluster's tables are not exchanged", cure));
        }
        self.drop_rebuilt().await?;
        let rebuild = Rebuild { server: self, run };
        for table in std::iter::once(TABLE).chain(rollups::tables()) {
            let sql =
                format!("CREATE TABLE {}.{} AS {}.{table}", self.database(), rebuild.name(table), self.database());
            self.execute(ACTION, &sql).await?;
        }
        Ok(rebuild)
    }

    async fn drop_rebuilt(&self) -> Result<(), ClickHouseError> {
        let ours: Vec<String> =
            std::iter::once(TABLE).chain(VIEWS).chain(rollups::tables()).map(str::to_owned).collect();
        let sql = format!(
            "SELECT name, engine FROM system.tables WHERE database = {} AND match(name, {})",
            literal(&self.options.database),
            literal(&format!("^({}){REBUILT}[0-9]+$", ours.join("|")))
        );
        for row in self.rows(ACTION, &sql).await? {
            let [name, engine] = &row[..] else { continue };
            let what = if engine == "View" { "VIEW" } else { "TABLE" };
            self.execute_long(ACTION, &format!("DROP {what} IF EXISTS {}.{name} SYNC", self.database())).await?;
        }
        Ok(())
    }

    /// Whether the table that served before is kept.
    pub async fn has_previous(&self) -> Result<bool, ClickHouseError> {
        Ok(!self
            .rows(ACTION, &format!("EXISTS TABLE {}.{PREVIOUS}", self.database()))
            .await?
            .concat()
            .contains(&"0".to_owned()))
    }

    /// Drops the table that served before.
    pub async fn drop_previous(&self) -> Result<(), ClickHouseError> {
        self.execute_long(ACTION, &format!("DROP TABLE IF EXISTS {}.{PREVIOUS} SYNC", self.database())).await
    }

    /// [`Self::begin_rebuild`] with the rows of the table that served before.
    pub async fn begin_roll_back(&self, run: i64) -> Result<Rebuild<'_>, ClickHouseError> {
        let rebuild = self.begin_rebuild(run).await?;
        // A copy: a crash leaves the version before as it is.
        rebuild.copy(PREVIOUS, &rebuild.name(TABLE), "1").await?;
        Ok(rebuild)
    }

    async fn count(&self, table: &str, condition: &str) -> Result<u64, ClickHouseError> {
        let sql = format!("SELECT count() FROM {}.{table} FINAL WHERE {condition}", self.database());
        Ok(self.rows_long(ACTION, &sql).await?.into_iter().flatten().find_map(|cell| cell.parse().ok()).unwrap_or(0))
    }
}

impl<'a> Rebuild<'a> {
    fn name(&self, table: &str) -> String {
        format!("{table}{REBUILT}{}", self.run)
    }

    /// Begins to insert rows of history.
    #[must_use]
    pub fn insertion(&self) -> Insertion<'a> {
        self.server.insertion_into(self.name(TABLE))
    }

    /// Rows of other services' events that only the serving table has: lanes may have chosen different copies.
    pub async fn keep_other_copies(&self) -> Result<(), ClickHouseError> {
        let database = self.server.database();
        let foreign = "position IS NULL";
        let sql = format!(
            "INSERT INTO {database}.{0} SETTINGS async_insert = 0, insert_deduplicate = 0 SELECT * FROM {database}.{TABLE} FINAL WHERE {foreign} AND \
             (tenant, event_id) NOT IN (SELECT tenant, event_id FROM {database}.{0} WHERE {foreign})",
            self.name(TABLE)
        );
        self.server.execute_long(ACTION, &sql).await
    }

    /// Rows from one offset to below another, as far as the serving table has them. Gives how many there are.
    pub async fn keep_stretches(&self, stretches: &[(Partition, i64, i64)]) -> Result<u64, ClickHouseError> {
        let of = |(partition, from, below): &(Partition, i64, i64)| stretch(partition, *from, *below);
        let mut kept = 0;
        for some in
            stretches.iter().filter(|(_, from, below)| from < below).map(of).collect::<Vec<_>>().chunks(STRETCHES_MAX)
        {
            let condition = some.join(" OR ");
            kept += self.server.count(TABLE, &condition).await?;
            self.copy(TABLE, &self.name(TABLE), &condition).await?;
        }
        Ok(kept)
    }

    /// Computes the rollups of the new table, and says in which months it differs from the serving one.
    pub async fn finish(&self) -> Result<Compared, ClickHouseError> {
        let server = self.server;
        let suffix = self.name("");
        for statement in server.views_over(&suffix) {
            server.execute(ACTION, &statement).await?;
        }
        rollups::compute_all(server, &self.name("analytics_events"), |table| self.name(table)).await?;
        let kept = server.kept_from();
        let (held, made) =
            (server.months(TABLE, Some(kept)).await?, server.months(&self.name(TABLE), Some(kept)).await?);
        Ok(Compared { rows: rows(&made), months_different: different(&held, &made) })
    }

    /// The new tables serve from here on: the events first, then the rollups.
    pub async fn exchange(&self) -> Result<(), ClickHouseError> {
        let database = self.server.database();
        failpoint::hit("clickhouse.before_exchange");
        for table in std::iter::once(TABLE).chain(rollups::tables()) {
            let sql = format!("EXCHANGE TABLES {database}.{table} AND {database}.{}", self.name(table));
            self.server.execute(ACTION, &sql).await?;
            failpoint::hit("clickhouse.after_exchange");
        }
        Ok(())
    }

    /// After [`Self::exchange`]: what a lane wrote into the table that served, though it was to write nothing.
    pub async fn fetch_back(&self, stretches: &[(Partition, i64, i64)]) -> Result<(), ClickHouseError> {
        for (partition, from, below) in stretches {
            self.copy(&self.name(TABLE), TABLE, &stretch(partition, *from, *below)).await?;
            let span = Span { partition: partition.clone(), start: *from, end: *below, position: None };
            let minutes = self.server.minutes_of(&[span]).await?;
            if !minutes.is_empty() {
                rollups::recompute(self.server, &minutes).await?;
            }
        }
        Ok(())
    }

    /// Keeps the table that served as the one before, and drops the rest.
    pub async fn keep_previous(&self) -> Result<(), ClickHouseError> {
        let (server, database) = (self.server, self.server.database());
        server.drop_previous().await?;
        let name = self.name(TABLE);
        server.execute(ACTION, &format!("RENAME TABLE {database}.{name} TO {database}.{PREVIOUS}")).await?;
        server.drop_rebuilt().await
    }

    async fn copy(&self, from: &str, to: &str, condition: &str) -> Result<(), ClickHouseError> {
        let database = self.server.database();
        let sql = format!(
            "INSERT INTO {database}.{to} SETTINGS async_insert = 0, insert_deduplicate = 0 SELECT * FROM {database}.{from} FINAL WHERE {condition}"
        );
        self.server.execute_long(ACTION, &sql).await
    }
}

fn rows(months: &Months) -> u64 {
    months.values().map(|(rows, _)| rows).sum()
}

fn different(held: &Months, made: &Months) -> Vec<String> {
    let all: BTreeSet<&String> = held.keys().chain(made.keys()).collect();
    all.into_iter().filter(|month| held.get(*month) != made.get(*month)).cloned().collect()
}
