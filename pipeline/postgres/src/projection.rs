//! What turns a lane's events into rows in Postgres: a projection of ours, or handlers of a user's own.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use deadpool_postgres::Transaction;
use weir_engine::{BoxError, Located, Partition, SinkError};
use weir_model::{Event, EventType, TenantId};

use crate::error::{DbError, ErrorKind};

/// Why events were not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Postgres said so.
    #[error(transparent)]
    Db(#[from] DbError),
    /// A handler cannot apply this event, now or ever: it becomes a dead letter.
    #[error("the handler refused the event")]
    Refused(#[source] BoxError),
}

impl ApplyError {
    /// Whether one of the events is at fault, not a dependency.
    pub(crate) fn blames_an_event(&self) -> bool {
        match self {
            Self::Db(error) => error.kind() == ErrorKind::Data,
            Self::Refused(_) => true,
        }
    }
}

impl From<ApplyError> for SinkError {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Db(error) => error.into(),
            ApplyError::Refused(_) => Self::Fatal(error.into()),
        }
    }
}

/// Turns events into rows, inside the transaction that also moves the ledger.
///
/// Called once for each event as far as committed effects go; must have no effect outside the transaction.
#[async_trait]
pub trait Projection: Send + Sync {
    /// Whether an event must be applied in the order of its key. If so, one that fails holds later ones up that depend on it too.
    fn depends_on_order(&self, event: &Event) -> bool;

    /// Applies the events, in order.
    async fn apply(&self, transaction: &Transaction<'_>, events: &[&Located]) -> Result<(), ApplyError>;

    /// What tells this projection apart from others that write the same tables; a lane waits where its tables were made by another one. `None`: it is
    /// not looked at.
    fn fingerprint(&self) -> Option<String> {
        None
    }
}

#[async_trait]
impl Projection for Arc<dyn Projection> {
    fn depends_on_order(&self, event: &Event) -> bool {
        (**self).depends_on_order(event)
    }

    async fn apply(&self, transaction: &Transaction<'_>, events: &[&Located]) -> Result<(), ApplyError> {
        (**self).apply(transaction, events).await
    }

    fn fingerprint(&self) -> Option<String> {
        (**self).fingerprint()
    }
}

/// A user's own code for one event type.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Handles one event inside the lane's transaction.
    async fn handle(&self, transaction: &Transaction<'_>, event: &Event) -> Result<(), ApplyError>;
}

/// Handlers by event type: the specification's `subscribe`. A lane over it should filter by [`Handlers::event_types`].
#[derive(Default)]
pub struct Handlers {
    by_type: HashMap<EventType, Vec<Arc<dyn Handler>>>,
}

impl Handlers {
    /// Adds a handler; several for one type run in the order of subscription.
    #[must_use]
    pub fn subscribe(mut self, event_type: EventType, handler: Arc<dyn Handler>) -> Self {
        self.by_type.entry(event_type).or_default().push(handler);
        self
    }

    /// The types that anyone subscribed to.
    #[must_use]
    pub fn event_types(&self) -> HashSet<EventType> {
        self.by_type.keys().copied().collect()
    }
}

#[async_trait]
impl Projection for Handlers {
    fn depends_on_order(&self, _: &Event) -> bool {
        true
    }

    async fn apply(&self, transaction: &Transaction<'_>, events: &[&Located]) -> Result<(), ApplyError> {
        for located in events {
            for handler in self.by_type.get(&located.event.event_type).into_iter().flatten() {
                handler.handle(transaction, &located.event).await?;
            }
        }
        Ok(())
    }
}

/// A key within its partition.
pub(crate) type Key = (Partition, TenantId, Arc<str>);

/// An event that failed, or waits behind one that did.
pub(crate) struct Unapplied<'a> {
    pub(crate) located: &'a Located,
    /// `None`: it only waits.
    pub(crate) reason: Option<String>,
    /// Whether later events of its key wait behind it.
    pub(crate) ordered: bool,
}

impl<'a> Unapplied<'a> {
    /// It waits behind an earlier event of its key.
    pub(crate) fn waiting(located: &'a Located) -> Self {
        Self { located, reason: None, ordered: true }
    }
}
