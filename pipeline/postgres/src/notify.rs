//! Tells waiting readers that something was appended. Only a hint: readers poll as well, so nothing depends on it.

use std::future::poll_fn;

use tokio::sync::watch;
use tokio_postgres::AsyncMessage;
use tokio_util::sync::CancellationToken;
use weir_engine::retry::Backoff;

use crate::database::Database;
use crate::error::{DbError, During};

/// Changes whenever something was appended, by any process.
#[derive(Debug, Clone)]
pub struct AppendSignal {
    /// The newest position that was told, and how often something was.
    appended: watch::Receiver<(i64, u64)>,
}

impl AppendSignal {
    /// Listens until `stop`, over one connection of its own.
    #[must_use]
    pub fn start(database: Database, stop: CancellationToken) -> Self {
        let (sender, appended) = watch::channel((0, 0));
        tokio::spawn(async move {
            let mut backoff = Backoff::default();
            loop {
                let ended = tokio::select! {
                    () = stop.cancelled() => return,
                    ended = listen(&database, &sender) => ended,
                };
                if let Err(error) = ended {
                    tracing::debug!(%error, "not listening for appended events; readers poll");
                } else {
                    backoff = Backoff::default();
                }
                if !backoff.wait(&stop).await {
                    return;
                }
            }
        });
        Self { appended }
    }

    /// Waits for the next append since the last call.
    pub async fn changed(&mut self) {
        if self.appended.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until there may be an event at a position or behind it, of which was told since the last call.
    pub(crate) async fn reaches(&mut self, position: i64) {
        loop {
            self.changed().await;
            if self.appended.borrow().0 >= position {
                return;
            }
        }
    }
}

async fn listen(database: &Database, sender: &watch::Sender<(i64, u64)>) -> Result<(), DbError> {
    const ACTION: &str = "listening for appended events";
    let (client, mut connection) = database.connect().await?;
    let listening = client.batch_execute("LISTEN weir_events");
    tokio::pin!(listening);
    let mut asked = true;
    loop {
        let message = tokio::select! {
            done = &mut listening, if asked => {
                done.during(ACTION)?;
                asked = false;
                continue;
            }
            message = poll_fn(|cx| connection.poll_message(cx)) => message,
        };
        match message {
            Some(Ok(AsyncMessage::Notification(told))) => {
                // Without a position there may be anything.
                let position = told.payload().parse().unwrap_or(i64::MAX);
                sender.send_modify(|last| *last = (position, last.1 + 1));
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error).during(ACTION),
            None => return Ok(()),
        }
    }
}
