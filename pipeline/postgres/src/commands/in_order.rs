//! Many commands in one given order: an import must leave its events in the order of its input, which single commands in
//! parallel would not.

use std::collections::{HashMap, HashSet};

use super::plan::{self, Outcome, Plan};
use super::state::{self, Loaded, StreamKey};
use super::{Answer, CommandError, CommandRequest, CommandService};

/// How often a batch is decided again when others write to its streams.
const ATTEMPTS_MAX: usize = 10;

impl CommandService {
    /// Runs commands so that their positions follow the order given; the answers do too. Takes at most one command of a
    /// stream at a time and stops in front of the second one: call again with the rest. A command that a rule or its
    /// contract refuses gets its error and leaves the others alone; an error of the event store ends the whole.
    pub async fn execute_in_order(
        &self,
        requests: &[CommandRequest],
    ) -> Result<Vec<Result<Answer, CommandError>>, CommandError> {
        let mut streams = HashSet::new();
        let mut prepared = Vec::new();
        for request in requests {
            match self.prepare(request) {
                Ok(p) => {
                    if !streams.insert((request.caller.tenant.clone(), p.stream.clone())) {
                        break;
                    }
                    prepared.push(Ok(p));
                }
                Err(error) => prepared.push(Err(error)),
            }
        }
        let mut answers: Vec<Option<Result<Answer, CommandError>>> = Vec::new();
        answers.resize_with(prepared.len(), || None);
        let commands: Vec<_> =
            requests.iter().zip(&prepared).filter_map(|(r, p)| Some((r, p.as_ref().ok()?))).collect();
        let mut earlier: HashMap<StreamKey, i64> = HashMap::new();
        for ((request, prepared), attempts) in commands.iter().zip(self.earlier_attempts(&commands).await?) {
            earlier.insert((request.caller.tenant.clone(), prepared.stream.clone()), attempts);
        }
        for _ in 0..ATTEMPTS_MAX {
            let keys: Vec<StreamKey> = streams.iter().cloned().collect();
            let states = state::load(&self.store, &keys).await?;
            let mut loaded: HashMap<StreamKey, Loaded> = keys.into_iter().zip(states).collect();
            for (key, loaded) in &mut loaded {
                loaded.add_earlier(earlier.get(key).copied().unwrap_or(0));
            }
            let mut waiting = Vec::new();
            for (i, (request, prepared)) in requests.iter().zip(&prepared).enumerate() {
                let Ok(prepared) = prepared else { continue };
                if answers[i].is_some() {
                    continue;
                }
                let key = (request.caller.tenant.clone(), prepared.stream.clone());
                let Some(loaded) = loaded.get(&key) else { continue };
                match plan::plan(request, prepared, loaded, &self.rules) {
                    Plan::Refuse(refusal) => answers[i] = Some(Err(refusal)),
                    Plan::Append { append, refusal } => waiting.push((i, refusal, self.commits.append(*append))),
                }
            }
            // All of them are queued before the first is awaited: `join_all` polls them in order.
            let (indexes, appends): (Vec<_>, Vec<_>) = waiting.into_iter().map(|(i, r, f)| ((i, r), f)).unzip();
            for ((i, refusal), appended) in indexes.into_iter().zip(futures::future::join_all(appends).await) {
                let request = &requests[i];
                let Ok(prepared) = &prepared[i] else { continue };
                answers[i] = match plan::outcome(appended?, refusal) {
                    Outcome::Refused(refusal) => Some(Err(refusal)),
                    Outcome::DecideAgain => None,
                    Outcome::Answer(appended) => {
                        Some(self.answer(&request.caller.tenant, &prepared.stream, appended).await)
                    }
                };
            }
            if answers.iter().zip(&prepared).all(|(answer, prepared)| answer.is_some() || prepared.is_err()) {
                break;
            }
        }
        Ok(answers
            .into_iter()
            .zip(prepared)
            .map(|(answer, prepared)| match prepared {
                Err(error) => Err(error),
                Ok(_) => answer.unwrap_or(Err(CommandError::Contended)),
            })
            .collect())
    }
}
