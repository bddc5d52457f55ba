//! The command side: load, decide, append. The deciding is pure (`weir_model::decide`); here is the I/O around it.

use std::sync::Arc;

use futures::FutureExt;
use serde_json::Value;
use tracing::Instrument as _;
use uuid::Uuid;
use weir_model::Metadata;
use weir_model::contract::door::{self, DATA_MAX, Refusal, VALUES_MAX};
use weir_model::contract::{self, ContractViolation};
use weir_model::decide::{CommandType, NewEvent, Rejection, Rules, STATE_VERSION, stream_of};
use weir_model::{
    AggregateType, Clock, EventType, InvalidId, Object, Position, StreamId, TenantId, Timestamp, Violation, canonical,
};

use crate::append::{Append, Appended, Expected};
use crate::coalesce::Coalesced;
use crate::error::{DbError, ErrorKind};
use crate::event_store::{EventStore, Snapshot};
use crate::group_commit::{AppendError, GroupCommit};

mod in_order;
mod plan;
mod state;

use plan::{Outcome, Plan, Prepared, caused, hash_of, stored};
use state::{Loaded, StreamKey};

/// A snapshot is taken whenever a stream passes a multiple of this.
const SNAPSHOT_EVERY: i64 = 100;

/// How often a command is decided again when others write to its stream and it did not insist on a version.
const DECISIONS_MAX: usize = 10;

/// Separates our command ids from every other use of version 5 UUIDs.
const COMMAND_NAMESPACE: Uuid = Uuid::from_u128(0x7ec0_11d5_8626_4c6e_9d1a_57e1_0a5c_0de1);

/// On whose behalf something is asked.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Whose data.
    pub tenant: TenantId,
    /// The service that asks.
    pub source: String,
    /// Cause, correlation, actor.
    pub metadata: Metadata,
    /// Makes a repeat of the request harmless.
    pub idempotency_key: Option<String>,
}

impl Caller {
    fn command_id(&self) -> Uuid {
        match &self.idempotency_key {
            // The length keeps ("ab", "c") and ("a", "bc") apart.
            Some(key) => {
                let name = format!("{}:{}{key}", self.tenant.as_str().len(), self.tenant);
                Uuid::new_v5(&COMMAND_NAMESPACE, name.as_bytes())
            }
            None => Uuid::now_v7(),
        }
    }
}

/// A command.
#[derive(Debug, Clone)]
pub struct CommandRequest {
    /// Who asks.
    pub caller: Caller,
    /// What for.
    pub command: CommandType,
    /// The data of the event asked for.
    pub data: Object,
    /// What the caller expects of the stream.
    pub expected: Expected,
}

/// Events that a service decided on for itself.
#[derive(Debug, Clone)]
pub struct StreamAppend {
    /// Who asks.
    pub caller: Caller,
    /// Where to.
    pub stream: StreamId,
    /// On what condition.
    pub expected: Expected,
    /// Type, contract version (the newest when `None`), data.
    pub events: Vec<(EventType, Option<String>, Object)>,
}

/// The answer to a stored command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Whose.
    pub tenant: TenantId,
    /// The stream.
    pub stream: StreamId,
    /// Its version now, or when the command was first answered.
    pub version: i64,
    /// The command's first event.
    pub first: Position,
    /// The command's last event; readers can wait for it.
    pub last: Position,
    /// When it was appended.
    pub recorded_at: Timestamp,
    /// Whether an earlier call had stored it.
    pub repeated: bool,
}

/// Why a command was not stored.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The data breaks its contract. The index is that of the event in an append.
    #[error("{}{violation}", which(*index))]
    Contract {
        /// Which event of an append, from 0; `None` for a command.
        index: Option<usize>,
        /// What is wrong with it.
        violation: ContractViolation,
    },
    /// The data is more than every later step can take.
    #[error("{}the data has {bytes} bytes as it is stored, with its numbers spelled out; at most {DATA_MAX} are taken", which(*index))]
    TooLarge {
        /// Which event of an append, from 0; `None` for a command.
        index: Option<usize>,
        /// As it would be stored.
        bytes: usize,
    },
    /// The data holds more values than anybody who reads it should have to build.
    #[error("{}the data holds {values} values; at most {VALUES_MAX} are taken", which(*index))]
    TooManyValues {
        /// Which event of an append, from 0; `None` for a command.
        index: Option<usize>,
        /// Values in the data, those of nested arrays and objects included.
        values: usize,
    },
    /// The id is none, or not that of the stream.
    #[error("{}{reason}", which(*index))]
    WrongStream {
        /// Which event of an append, from 0; `None` for a command.
        index: Option<usize>,
        /// Why.
        reason: String,
    },
    /// A rule forbids it as things stand.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The stream is not as the caller expects.
    #[error("the stream is at version {actual}")]
    Conflict {
        /// Its version.
        actual: i64,
    },
    /// The key was used for another body.
    #[error("this Idempotency-Key was used for a different request")]
    KeyReused,
    /// Other writers were faster, again and again.
    #[error("the stream changes too fast; try again")]
    Contended,
    /// The appender's words.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// Reading failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

fn which(index: Option<usize>) -> String {
    index.map_or_else(String::new, |index| format!("event {index}: "))
}

impl CommandError {
    /// Whether the same command under the same key may succeed later. Everything else is a final refusal.
    #[must_use]
    pub fn may_be_repeated(&self) -> bool {
        match self {
            Self::Contended | Self::Append(AppendError::Unavailable { .. } | AppendError::Overloaded) => true,
            Self::Db(error) => error.kind() == ErrorKind::Unavailable,
            Self::Contract { .. }
            | Self::TooLarge { .. }
            | Self::TooManyValues { .. }
            | Self::WrongStream { .. }
            | Self::Rejected(_)
            | Self::Conflict { .. }
            | Self::KeyReused
            | Self::Append(AppendError::Data { .. }) => false,
        }
    }
}

/// Validates, decides, appends. Cheap to clone.
#[derive(Clone)]
pub struct CommandService {
    store: EventStore,
    states: Coalesced<StreamKey, Loaded>,
    commits: GroupCommit,
    clock: Arc<dyn Clock>,
    rules: Rules,
}

impl CommandService {
    /// Over one event store and its appender. Call within a runtime.
    #[must_use]
    pub fn new(store: EventStore, commits: GroupCommit, clock: Arc<dyn Clock>, rules: Rules) -> Self {
        let reader = store.clone();
        let states = Coalesced::start(move |streams: Vec<StreamKey>| {
            let reader = reader.clone();
            async move { state::load(&reader, &streams).await }.boxed()
        });
        Self { store, states, commits, clock, rules }
    }

    /// Runs a command. Under an Idempotency-Key it is run once, however often it is asked for.
    pub async fn execute(&self, request: CommandRequest) -> Result<Answer, CommandError> {
        let prepared = self.prepare(&request)?;
        let earlier = self.earlier_attempts(&[(&request, &prepared)]).await?;
        for _ in 0..DECISIONS_MAX {
            let mut loaded = self.states.get((request.caller.tenant.clone(), prepared.stream.clone())).await?;
            loaded.add_earlier(earlier.first().copied().unwrap_or(0));
            let (append, refusal) = match plan::plan(&request, &prepared, &loaded, &self.rules) {
                Plan::Refuse(refusal) => return Err(refusal),
                Plan::Append { append, refusal } => (append, refusal),
            };
            match plan::outcome(self.commits.append(*append).await?, refusal) {
                Outcome::Refused(refusal) => return Err(refusal),
                // A caller who insisted on a version is told when it no longer fits.
                Outcome::DecideAgain => {}
                Outcome::Answer(appended) => {
                    return self.answer(&request.caller.tenant, &prepared.stream, appended).await;
                }
            }
        }
        Err(CommandError::Contended)
    }

    /// Attempts in streams of the old form, where a rule asks for them; in the order of the commands.
    async fn earlier_attempts(&self, commands: &[(&CommandRequest, &Prepared)]) -> Result<Vec<i64>, DbError> {
        let asked = self.rules.max_attempts.is_some()
            && commands.iter().any(|(request, _)| request.command.event_type() == EventType::AssessmentCompleted);
        if !asked {
            return Ok(Vec::new());
        }
        let takes: Vec<(&str, &str, &str)> = commands
            .iter()
            .map(|(request, prepared)| {
                let text = |field: &str| prepared.data.get(field).and_then(Value::as_str).unwrap_or_default();
                (request.caller.tenant.as_str(), text("assessmentId"), text("userId"))
            })
            .collect();
        self.store.earlier_attempts(&takes).await
    }

    fn prepare(&self, request: &CommandRequest) -> Result<Prepared, CommandError> {
        let event_type = request.command.event_type();
        let (schema_version, data, timestamp) = self.accept(None, event_type, None, request.data.clone())?;
        let stream = stream_of(event_type, &data).map_err(|e| wrong_stream(None, &e))?;
        let request_hash = request
            .caller
            .idempotency_key
            .is_some()
            .then(|| hash_of(&[request.command.as_str(), &canonical::object_text(&request.data)]));
        Ok(Prepared { command_id: request.caller.command_id(), request_hash, stream, schema_version, data, timestamp })
    }

    /// Checks the contract; a time that is not given is now.
    fn accept(
        &self,
        index: Option<usize>,
        event_type: EventType,
        version: Option<&str>,
        mut data: Object,
    ) -> Result<(String, Object, Timestamp), CommandError> {
        let violation = |pointer: &str, reason: String| CommandError::Contract {
            index,
            violation: ContractViolation {
                event_type,
                version: version.unwrap_or("newest").to_owned(),
                violations: vec![Violation::new(pointer, reason)],
            },
        };
        let contracts = contract::standard().map_err(|e| violation("", e.to_string()))?;
        data.entry("timestamp").or_insert_with(|| Value::String(self.clock.now().to_string()));
        let newest = contracts.newest(event_type);
        let accepted = contracts
            .accept(event_type, version.unwrap_or(&newest), data)
            .map_err(|violation| CommandError::Contract { index, violation })?;
        door::check(event_type, &accepted.data).map_err(|refusal| match refusal {
            Refusal::TooLarge { bytes } => CommandError::TooLarge { index, bytes },
            Refusal::TooManyValues { values } => CommandError::TooManyValues { index, values },
            Refusal::Violations(violations) => {
                let version = accepted.version.clone();
                CommandError::Contract { index, violation: ContractViolation { event_type, version, violations } }
            }
        })?;
        let text = accepted.data.get("timestamp").and_then(Value::as_str).unwrap_or_default();
        let timestamp = text.parse().map_err(|e| violation("/timestamp", format!("{e}")))?;
        Ok((accepted.version, accepted.data, timestamp))
    }

    /// Appends what a service decided on for itself. Contracts hold, the rules of `decide` do not.
    pub async fn append(&self, request: StreamAppend) -> Result<Answer, CommandError> {
        let hash = request.caller.idempotency_key.is_some().then(|| {
            let events = request.events.iter().map(|(t, v, d)| format!("{t} {v:?} {}", canonical::object_text(d)));
            hash_of(&[&request.stream.to_string(), &events.collect::<Vec<_>>().join("\n")])
        });
        let mut events = Vec::with_capacity(request.events.len());
        for (index, (event_type, version, data)) in request.events.into_iter().enumerate() {
            let (schema_version, data, timestamp) = self.accept(Some(index), event_type, version.as_deref(), data)?;
            let stream = stream_of(event_type, &data).map_err(|e| wrong_stream(Some(index), &e))?;
            if stream != request.stream {
                let reason = format!("a {event_type} of {stream} does not belong to {}", request.stream);
                return Err(CommandError::WrongStream { index: Some(index), reason });
            }
            events.extend(stored(vec![NewEvent { event_type, data }], &schema_version, timestamp));
        }
        let command_id = request.caller.command_id();
        let append = Append {
            tenant: request.caller.tenant.clone(),
            stream: request.stream.clone(),
            expected: request.expected,
            command_id,
            request_hash: hash,
            events,
            metadata: caused(&request.caller.metadata, command_id),
            source: request.caller.source,
        };
        let appended = self.commits.append(append).await?;
        self.answer(&request.caller.tenant, &request.stream, appended).await
    }

    async fn answer(&self, tenant: &TenantId, stream: &StreamId, appended: Appended) -> Result<Answer, CommandError> {
        match appended {
            Appended::Stored { version, first, last, recorded_at, repeated } => {
                let mut stream = stream.clone();
                // What was first answered may be in a stream of the old form.
                if repeated
                    && stream.aggregate_type() == AggregateType::Assessment
                    && let Some(event) = self.store.at(tenant, first).await?
                    && let Ok(known) = event.stream.parse()
                {
                    stream = known;
                }
                let before = version - (last.0 - first.0 + 1);
                if !repeated && version / SNAPSHOT_EVERY > before / SNAPSHOT_EVERY {
                    self.take_snapshot(tenant.clone(), stream.clone());
                }
                Ok(Answer { tenant: tenant.clone(), stream, version, first, last, recorded_at, repeated })
            }
            Appended::KeyReused => Err(CommandError::KeyReused),
            Appended::Conflict { actual } => Err(CommandError::Conflict { actual }),
        }
    }

    /// Beside the answer: no caller waits for a snapshot, and one that fails is only slower loading.
    fn take_snapshot(&self, tenant: TenantId, stream: StreamId) {
        let service = self.clone();
        let taking = async move {
            let taken = async {
                let loaded = service.states.get((tenant.clone(), stream.clone())).await?;
                let data = serde_json::to_value(&loaded.aggregate).unwrap_or_default();
                let snapshot = Snapshot { version: loaded.version, state_version: STATE_VERSION, data };
                service.store.create_snapshot(&tenant, &stream, &snapshot).await
            };
            if let Err(error) = taken.await {
                tracing::warn!(%stream, error = weir_engine::retry::chain(&error), "no snapshot taken");
            }
        };
        tokio::spawn(taking.in_current_span());
    }
}

fn wrong_stream(index: Option<usize>, error: &InvalidId) -> CommandError {
    CommandError::WrongStream { index, reason: error.to_string() }
}
