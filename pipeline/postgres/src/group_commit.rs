//! Group commit: the commands that arrive while one batch commits make up the next. The previous commit is the timer, so
//! a lone command does not wait and a crowd shares one disk flush.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weir_engine::retry::{Backoff, chain};
use weir_engine::{COMMANDS, LanePhase, StatusBoard, failpoint};

use crate::append::{self, Append, Appended, Expected};
use crate::database::Database;
use crate::error::{DbError, ErrorKind};
use crate::handover::Handover;

/// While commands are refused, how often it is tried whether one could be stored again: their senders may have been told to stay
/// away until then.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Limits of the queue and its batches (P8).
#[derive(Debug, Clone, Copy)]
pub struct GroupCommitLimits {
    /// Commands in one commit.
    pub commands_max: usize,
    /// Bytes of event data in one commit; one command may exceed it.
    pub bytes_max: usize,
    /// Commands that may wait; beyond it callers are told to come back.
    pub queue_max: usize,
    /// How long a batch is tried again while Postgres is away.
    pub give_up_after: Duration,
}

impl Default for GroupCommitLimits {
    fn default() -> Self {
        Self { commands_max: 256, bytes_max: 8 << 20, queue_max: 4096, give_up_after: Duration::from_secs(5) }
    }
}

/// Why a command has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// Postgres is away, or was for too long: the command may or may not be stored; repeat it under the same key.
    #[error("the event store is not available: {reason}")]
    Unavailable {
        /// The error and its causes.
        reason: String,
    },
    /// Too many commands wait already.
    #[error("too many commands wait for the event store")]
    Overloaded,
    /// Postgres cannot hold this command's data.
    #[error("the event store cannot hold this data: {reason}")]
    Data {
        /// The error and its causes.
        reason: String,
    },
}

struct Pending {
    command: Append,
    reply: oneshot::Sender<Result<Appended, AppendError>>,
}

/// The one appender of a process.
#[derive(Clone)]
pub struct GroupCommit {
    queue: mpsc::Sender<Pending>,
}

impl GroupCommit {
    /// Starts the appender; it ends when `stop` is cancelled and the queue is empty, or every handle is gone. It says on the board whether
    /// commands can be stored.
    #[must_use]
    pub fn start(database: Database, limits: GroupCommitLimits, board: StatusBoard, stop: CancellationToken) -> Self {
        Self::start_handing(database, limits, board, Handover::default(), stop)
    }

    /// [`Self::start`], with readers of the same process that get what was stored.
    #[must_use]
    pub fn start_handing(
        database: Database,
        limits: GroupCommitLimits,
        board: StatusBoard,
        handover: Handover,
        stop: CancellationToken,
    ) -> Self {
        let (queue, commands) = mpsc::channel(limits.queue_max);
        let (pending, refuses) = (VecDeque::new(), false);
        let mut worker = Worker { database, limits, commands, pending, board, refuses, handover, stop };
        worker.tell(None);
        tokio::spawn(worker.run());
        Self { queue }
    }

    /// Stores a command and tells what became of it.
    pub async fn append(&self, command: Append) -> Result<Appended, AppendError> {
        let (reply, answer) = oneshot::channel();
        self.queue.try_send(Pending { command, reply }).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => AppendError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => AppendError::Unavailable { reason: "shutting down".to_owned() },
        })?;
        let gone = |_| AppendError::Unavailable { reason: "shutting down".to_owned() };
        answer.await.map_err(gone)?
    }
}

struct Worker {
    database: Database,
    limits: GroupCommitLimits,
    commands: mpsc::Receiver<Pending>,
    pending: VecDeque<Pending>,
    board: StatusBoard,
    refuses: bool,
    handover: Handover,
    stop: CancellationToken,
}

impl Worker {
    async fn run(mut self) {
        loop {
            if self.pending.is_empty() {
                let next = tokio::select! {
                    next = self.commands.recv() => next,
                    () = self.stop.cancelled() => {
                        self.commands.close();
                        self.commands.recv().await
                    }
                    () = tokio::time::sleep(PROBE_INTERVAL), if self.refuses => {
                        self.probe().await;
                        continue;
                    }
                };
                match next {
                    Some(first) => self.pending.push_back(first),
                    None => return,
                }
            }
            self.gather().await;
            let batch = self.next_batch();
            metrics::histogram!("weir_append_batch_commands")
                .record(f64::from(u32::try_from(batch.len()).unwrap_or(0)));
            self.commit(batch).await;
        }
    }

    /// Takes in what waits. A client that was just answered is about to send again: the next batch is taken only when a turn of
    /// all tasks that are ready has brought nothing more, or it would be the first of them alone. No timer: where no task is
    /// ready, nothing is waited for.
    async fn gather(&mut self) {
        let mut turned = false;
        loop {
            let before = self.pending.len();
            while self.pending.len() < self.limits.commands_max {
                match self.commands.try_recv() {
                    Ok(next) => self.pending.push_back(next),
                    Err(_) => break,
                }
            }
            if turned && self.pending.len() == before || self.pending.len() >= self.limits.commands_max {
                return;
            }
            tokio::task::yield_now().await;
            turned = true;
        }
    }

    /// The longest run of waiting commands that may share a commit. Of one stream a batch takes either one command, or
    /// several that expect "any"; the rest keep their order for the next batch. The same command twice would meet
    /// itself before it is stored, so the second waits too.
    fn next_batch(&mut self) -> Vec<Pending> {
        let mut streams: HashMap<String, bool> = HashMap::new();
        let mut ids = HashSet::new();
        let (mut batch, mut later, mut bytes) = (Vec::new(), VecDeque::new(), 0);
        while let Some(pending) = self.pending.pop_front() {
            let command = &pending.command;
            let any = command.expected == Expected::Any;
            let stream = format!("{} {}", command.tenant, command.stream);
            let size: usize = command.events.iter().map(|e| e.data.len()).sum();
            let fits = batch.is_empty() || bytes + size <= self.limits.bytes_max;
            let shares = streams.get(&stream).is_none_or(|all_any| *all_any && any);
            if !fits {
                // Whatever comes after must not overtake it.
                later.push_back(pending);
                later.append(&mut self.pending);
                break;
            }
            if shares && !ids.contains(&command.command_id) {
                bytes += size;
                ids.insert(command.command_id);
                streams.insert(stream, any);
                batch.push(pending);
            } else {
                // Nothing of this stream may overtake it.
                streams.insert(stream, false);
                later.push_back(pending);
            }
        }
        self.pending = later;
        batch
    }

    /// Says whether commands can be stored.
    fn tell(&mut self, trouble: Option<String>) {
        self.refuses = trouble.is_some();
        self.board.update(COMMANDS, |status| {
            status.phase = if trouble.is_some() { LanePhase::Waiting } else { LanePhase::Running };
            status.trouble = trouble;
        });
    }

    async fn probe(&mut self) {
        let probed = async {
            let client = self.database.get().await?;
            append::probe(&client).await
        };
        let trouble = probed.await.err().map(|error| chain(&error));
        self.tell(trouble);
    }

    async fn commit(&mut self, batch: Vec<Pending>) {
        let (commands, replies): (Vec<_>, Vec<_>) = batch.into_iter().map(|p| (p.command, p.reply)).unzip();
        let answers = self.append_bisecting(&commands).await;
        for (reply, answer) in replies.into_iter().zip(&answers) {
            // A caller that went away gets no answer; its command id still finds the first one.
            drop(reply.send(answer.clone()));
        }
        self.handover.give(commands, &answers);
    }

    /// One command whose data Postgres cannot hold must not fail the others: halve until it stands alone.
    async fn append_bisecting(&mut self, commands: &[Append]) -> Vec<Result<Appended, AppendError>> {
        match self.append_retrying(commands).await {
            Ok(answers) => {
                if self.refuses {
                    self.tell(None);
                }
                answers.into_iter().map(Ok).collect()
            }
            Err(error) if error.kind() == ErrorKind::Data && commands.len() > 1 => {
                let (left, right) = commands.split_at(commands.len() / 2);
                let mut answers = Box::pin(self.append_bisecting(left)).await;
                answers.extend(Box::pin(self.append_bisecting(right)).await);
                answers
            }
            Err(error) => {
                let reason = chain(&error);
                let answer = match error.kind() {
                    ErrorKind::Data => AppendError::Data { reason },
                    ErrorKind::Unavailable | ErrorKind::Permanent => {
                        tracing::warn!(commands = commands.len(), error = reason, "not appended");
                        self.tell(Some(reason.clone()));
                        AppendError::Unavailable { reason }
                    }
                };
                commands.iter().map(|_| Err(answer.clone())).collect()
            }
        }
    }

    /// An unknown outcome repeats the same ids, which the event store recognises.
    async fn append_retrying(&mut self, commands: &[Append]) -> Result<Vec<Appended>, DbError> {
        let started = Instant::now();
        let mut backoff = Backoff::default();
        loop {
            let done = self.append_once(commands).await;
            let Err(error) = &done else { return done };
            if error.kind() != ErrorKind::Unavailable {
                return done;
            }
            // What comes back may be an older copy.
            self.handover.forget();
            if started.elapsed() >= self.limits.give_up_after {
                return done;
            }
            self.tell(Some(chain(error)));
            // Even while stopping: a caller that waits for an answer gets one.
            backoff.wait(&CancellationToken::new()).await;
        }
    }

    async fn append_once(&self, commands: &[Append]) -> Result<Vec<Appended>, DbError> {
        let client = self.database.get().await?;
        failpoint::hit("append.before_commit");
        let answers = append::append(&client, commands).await?;
        failpoint::hit("append.after_commit");
        Ok(answers)
    }
}
