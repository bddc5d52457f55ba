//! The Open University Learning Analytics data set, brought in through the command side in order of event time.
//!
//! Read ([`rows`]) → sorted on disk by time, table and file row → commands ([`to_command`]) in that order. Each command's
//! id is made from the row's own key, so a second import adds nothing.

mod rows;

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::path::Path;

use extsort::{ExternalSorter, Sortable};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weir_engine::{BoxError, StatusBoard};
use weir_model::Metadata;
use weir_model::decide::CommandType;
use weir_model::{EventType, TenantId, Timestamp};
use weir_postgres::{Caller, CommandError, CommandRequest, Expected};

use crate::attached::Attached;
use rows::{Reader, RowData};

/// Commands of one batch.
const BATCH: usize = 500;

/// Rows that the external sort holds in memory at a time.
const SORT_SEGMENT: usize = 100_000;

const QUEUE_MAX: usize = 2 * BATCH;

/// Separates our session ids from every other use of version 5 UUIDs.
const SESSION_NAMESPACE: Uuid = Uuid::from_u128(0x0a1a_d0d5_8626_4c6e_9d1a_57e1_0a5c_5e55);

/// What an import did.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    /// By type: appended now, present already.
    pub(crate) events: BTreeMap<EventType, (u64, u64)>,
    /// Rows that were not imported.
    pub(crate) rejected: u64,
}

/// A row with its place in the order of import.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// When it happened, milliseconds.
    pub(crate) at: i64,
    /// The place of its table in the import's order, for rows of the same time.
    pub(crate) table: u8,
    /// The line in its file.
    pub(crate) line: u64,
    pub(crate) data: RowData,
}

impl Row {
    fn order(&self, other: &Self) -> Ordering {
        (self.at, self.table, self.line).cmp(&(other.at, other.table, other.line))
    }
}

impl Sortable for Row {
    fn encode<W: Write>(&self, writer: &mut W) -> std::io::Result<()> {
        let data = serde_json::to_vec(&self.data)?;
        writer.write_all(&self.at.to_le_bytes())?;
        writer.write_all(&[self.table])?;
        writer.write_all(&self.line.to_le_bytes())?;
        writer.write_all(&u64::try_from(data.len()).unwrap_or(0).to_le_bytes())?;
        writer.write_all(&data)
    }

    fn decode<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        let (mut word, mut table) = ([0; 8], [0]);
        reader.read_exact(&mut word)?;
        let at = i64::from_le_bytes(word);
        reader.read_exact(&mut table)?;
        reader.read_exact(&mut word)?;
        let line = u64::from_le_bytes(word);
        reader.read_exact(&mut word)?;
        let mut data = vec![0; usize::try_from(u64::from_le_bytes(word)).map_err(std::io::Error::other)?];
        reader.read_exact(&mut data)?;
        Ok(Self { at, table: table[0], line, data: serde_json::from_slice(&data)? })
    }
}

/// Imports the files of `dir`.
pub(crate) async fn import(
    attached: &Attached,
    dir: &Path,
    rejects: Option<&Path>,
    tenant: TenantId,
) -> Result<Summary, BoxError> {
    let spill = attached.dir.spill()?;
    let mut reader = Reader::open(dir, rejects)?;
    let (sender, mut sorted) = mpsc::channel(QUEUE_MAX);
    let sorting = tokio::task::spawn_blocking({
        let spill = spill.clone();
        move || -> Result<(u64, Reader), BoxError> {
            let sorter = ExternalSorter::new().with_segment_size(SORT_SEGMENT).with_sort_dir(spill.clone());
            let place = spill;
            let rows = sorter.sort_by(reader.rows()?, Row::order).map_err(|e| {
                format!(
                    "sorting the rows failed; its temporary files are in {}, which needs room for them: {e}",
                    place.display()
                )
            })?;
            let total = rows.sorted_count();
            for row in rows {
                if sender.blocking_send((total, row?)).is_err() {
                    break;
                }
            }
            Ok((total, reader))
        }
    });
    let stop = CancellationToken::new();
    let mut importer = Importer {
        commands: attached.commands(&StatusBoard::default(), &stop),
        tenant,
        ordinals: (i64::MIN, HashMap::new()),
        pending: Vec::with_capacity(BATCH),
        summary: Summary::default(),
        late_rejects: Vec::new(),
    };
    let bar = progress_bar();
    while let Some((total, row)) = sorted.recv().await {
        bar.set_length(total);
        bar.inc(1);
        importer.take(row).await?;
    }
    importer.finish().await?;
    bar.finish_and_clear();
    stop.cancel();
    let (_, mut reader) = sorting.await??;
    for (table, line, reason) in &importer.late_rejects {
        reader.reject(table, *line, reason)?;
    }
    importer.summary.rejected = reader.finish()?;
    std::fs::remove_dir_all(&spill)?;
    Ok(importer.summary)
}

fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    let template = "importing {bar:40} {human_pos}/{human_len}  {per_sec}  {eta} left";
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

struct Importer {
    commands: weir_postgres::CommandService,
    tenant: TenantId,
    /// Equal session keys share their day, so their ordinals are counted day by day.
    ordinals: (i64, HashMap<String, u64>),
    pending: Vec<(&'static str, u64, CommandRequest)>,
    summary: Summary,
    late_rejects: Vec<(&'static str, u64, String)>,
}

impl Importer {
    async fn take(&mut self, row: Row) -> Result<(), BoxError> {
        if self.ordinals.0 != row.at {
            self.ordinals = (row.at, HashMap::new());
        }
        let request = to_command(&row, &self.tenant, &mut self.ordinals.1)?;
        self.pending.push((row.data.file(), row.line, request));
        if self.pending.len() >= BATCH { self.send().await } else { Ok(()) }
    }

    async fn finish(&mut self) -> Result<(), BoxError> {
        while !self.pending.is_empty() {
            self.send().await?;
        }
        Ok(())
    }

    /// As many as may go together; the rest stays for the next call.
    async fn send(&mut self) -> Result<(), BoxError> {
        let requests: Vec<CommandRequest> = self.pending.iter().map(|(_, _, request)| request.clone()).collect();
        let mut backoff = weir_engine::retry::Backoff::default();
        let answers = loop {
            match Box::pin(self.commands.execute_in_order(&requests)).await {
                Ok(answers) => break answers,
                // Deterministic ids make the repeat harmless; the server may just be starting again.
                Err(error) if error.may_be_repeated() => {
                    tracing::warn!(error = weir_engine::retry::chain(&error), "trying the batch again");
                    backoff.wait(&CancellationToken::new()).await;
                }
                Err(error) => return Err(error.into()),
            }
        };
        let done = answers.len();
        let mut refused = Vec::new();
        for ((file, line, request), answer) in self.pending.drain(..done).zip(answers) {
            match answer {
                Ok(answer) => {
                    let (appended, present) = self.summary.events.entry(request.command.event_type()).or_default();
                    *(if answer.repeated { present } else { appended }) += 1;
                }
                Err(error) => refused.push((file, line, request, error)),
            }
        }
        for (file, line, request, error) in refused {
            if matches!(error, CommandError::KeyReused) && self.was_imported_before(&request).await? {
                self.summary.events.entry(request.command.event_type()).or_default().1 += 1;
            } else {
                self.late_rejects.push((file, line, error.to_string()));
            }
        }
        Ok(())
    }

    /// Whether an earlier import brought this row in, when an assessment's id held the student's.
    async fn was_imported_before(&self, request: &CommandRequest) -> Result<bool, BoxError> {
        let Some(request) = under_joined_id(request) else { return Ok(false) };
        let mut backoff = weir_engine::retry::Backoff::default();
        loop {
            match Box::pin(self.commands.execute(request.clone())).await {
                Ok(answer) => return Ok(answer.repeated),
                Err(error) if error.may_be_repeated() => {
                    backoff.wait(&CancellationToken::new()).await;
                }
                Err(_) => return Ok(false),
            }
        }
    }
}

/// The command of a row.
fn to_command(row: &Row, tenant: &TenantId, ordinals: &mut HashMap<String, u64>) -> Result<CommandRequest, BoxError> {
    let at = Timestamp::from_millis(row.at)?.to_string();
    let (event_type, key, mut data) = match &row.data {
        RowData::Registered { user, preferences } => (
            EventType::UserRegistered,
            format!("registered/{user}"),
            json!({"userId": user, "username": user, "email": format!("{user}@oulad.example"),
                "profile": {"firstName": "Learner", "lastName": user.split('-').next(), "preferences": preferences},
                "registrationSource": "oulad"}),
        ),
        RowData::Unregistered { user } => (
            EventType::UserDeactivated,
            format!("unregistered/{user}"),
            json!({"userId": user, "reason": "unregistered"}),
        ),
        RowData::Session { module, presentation, student, site, day, clicks } => {
            let key = format!("{module}/{presentation}/{student}/{site}/{day}");
            let ordinal = ordinals.entry(key.clone()).or_default();
            *ordinal += 1;
            let name = format!("{key}/{ordinal}");
            let data = json!({"sessionId": Uuid::new_v5(&SESSION_NAMESPACE, name.as_bytes()),
                "userId": format!("{student}-{module}-{presentation}"), "learningPathId": format!("{module}-{presentation}"),
                "moduleId": site, "clicks": clicks});
            (EventType::LearningSessionStarted, format!("session/{name}"), data)
        }
        RowData::Assessment { assessment, student, user, score, kind, weight, banked } => (
            EventType::AssessmentCompleted,
            format!("assessment/{assessment}-{student}"),
            json!({"assessmentId": assessment, "userId": user, "score": score, "maxScore": 100,
                "passed": *score >= 40.0, "timeSpent": 0, "assessmentType": kind, "weight": weight, "banked": banked}),
        ),
        RowData::FinalResult { user, result } => (
            EventType::UserProfileUpdated,
            format!("result/{user}"),
            json!({"userId": user, "changedFields": ["finalResult"], "previousValues": {}, "newValues": {"finalResult": result}}),
        ),
    };
    data["timestamp"] = json!(at);
    let Value::Object(data) = data else { return Err("a command's data is an object".into()) };
    let caller = Caller {
        tenant: tenant.clone(),
        source: "oulad".to_owned(),
        metadata: Metadata { correlation_id: Some("import-oulad".into()), ..Metadata::default() },
        idempotency_key: Some(format!("oulad/{key}")),
    };
    Ok(CommandRequest { caller, command: CommandType::for_event(event_type), data, expected: Expected::Any })
}

/// The same command as imports once sent it: `<assessment>-<student>` was the assessment's id, so that each could be taken once. The key
/// of both is the same, so it is answered with what is stored, and nothing is appended.
fn under_joined_id(request: &CommandRequest) -> Option<CommandRequest> {
    let mut request = request.clone();
    let joined = request.caller.idempotency_key.as_deref()?.strip_prefix("oulad/assessment/")?;
    request.data.insert("assessmentId".to_owned(), joined.into());
    Some(request)
}
