//! Lanes of a program's own, which run beside weir's.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use weir_engine::retry::{Backoff, chain};
use weir_engine::{LaneKind, NO_LANES};
use weir_model::EventType;
use weir_postgres::{Database, DbError, During, ErrorKind, Handlers, Projection, locks};

/// A lane whose rows are in Postgres.
pub struct OwnLane {
    name: &'static str,
    tables: &'static str,
    event_types: Option<HashSet<EventType>>,
    projection: Arc<dyn Projection>,
}

impl OwnLane {
    /// A lane that applies the events of the types that someone subscribed to. `name` is lower-case words with hyphens; settings
    /// (`lanes.NAME`), ledger, `status` and metrics have it. Of two handlers that should not wait for each other, give each a lane.
    #[must_use]
    pub fn of_handlers(name: &'static str, handlers: Handlers) -> Self {
        Self { name, tables: "", event_types: Some(handlers.event_types()), projection: Arc::new(handlers) }
    }

    /// A lane that applies every event by a projection.
    #[must_use]
    pub fn of_projection(name: &'static str, projection: impl Projection + 'static) -> Self {
        Self { name, tables: "", event_types: None, projection: Arc::new(projection) }
    }

    /// SQL that makes the lane's tables. It runs each time before the lane starts, so it must not mind that they are there.
    #[must_use]
    pub fn with_tables(mut self, sql: &'static str) -> Self {
        self.tables = sql;
        self
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn filter(&self) -> Option<HashSet<EventType>> {
        self.event_types.clone()
    }

    pub(crate) fn projection(&self) -> Arc<dyn Projection> {
        self.projection.clone()
    }

    /// Makes the tables.
    async fn make_tables(&self, database: &Database) -> Result<(), DbError> {
        const ACTION: &str = "making the tables of a lane";
        let mut client = database.get().await?;
        let transaction = client.transaction().await.during(ACTION)?;
        transaction.batch_execute(&locks::until_end(locks::OWN_TABLES)).await.during(ACTION)?;
        transaction.batch_execute(self.tables).await.during(ACTION)?;
        transaction.commit().await.during(ACTION)
    }

    /// [`Self::make_tables`]; a database that is away is waited for, until told to stop.
    async fn prepare(&self, database: &Database, stop: &CancellationToken) -> Result<(), DbError> {
        let mut backoff = Backoff::default();
        loop {
            match self.make_tables(database).await {
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    tracing::warn!(lane = self.name, error = chain(&error), "waiting to make the lane's tables");
                    if !backoff.wait(stop).await {
                        return Ok(());
                    }
                }
                done => return done,
            }
        }
    }
}

impl fmt::Debug for OwnLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnLane").field("name", &self.name).finish_non_exhaustive()
    }
}

/// All of a program.
#[derive(Debug, Clone, Default)]
pub(crate) struct OwnLanes(Arc<[OwnLane]>);

impl OwnLanes {
    /// Refuses names that something else has, or that are none.
    pub(crate) fn new(lanes: Vec<OwnLane>) -> Result<Self, String> {
        let mut taken: HashSet<&str> = LaneKind::NAMES.into_iter().chain(NO_LANES).collect();
        for OwnLane { name, .. } in &lanes {
            let is_word =
                |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
            if !name.split('-').all(is_word) {
                return Err(format!("`{name}` is no name of a lane: write lower-case words with hyphens"));
            }
            if !taken.insert(name) {
                return Err(format!("the name `{name}` is taken; give the lane another one"));
            }
        }
        Ok(Self(lanes.into()))
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(OwnLane::name)
    }

    /// Makes a lane's tables, where it is one of these and has any.
    pub(crate) async fn prepare(
        &self,
        name: &str,
        database: &Database,
        stop: &CancellationToken,
    ) -> Result<(), DbError> {
        match self.get(name).filter(|lane| !lane.tables.is_empty()) {
            Some(lane) => lane.prepare(database, stop).await,
            None => Ok(()),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&OwnLane> {
        self.0.iter().find(|lane| lane.name == name)
    }
}
