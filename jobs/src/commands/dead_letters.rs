//! `weir dead-letters list|show|redrive`

use std::process::ExitCode;

use serde_json::{Value, json};
use weir_engine::BoxError;
use weir_postgres::dead_letters::{self, DeadLetter};

use crate::attached::{Attached, Target};
use crate::output::{Format, Listing, complain, say};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum DeadLetters {
    /// Show them, oldest first
    List {
        /// Of this lane only
        #[arg(long)]
        lane: Option<String>,
        /// At most this many
        #[arg(long, default_value_t = 100)]
        limit: i64,
    },
    /// Show one, its bytes included
    Show {
        /// Its number in the list
        id: i64,
    },
    /// Ask the lane's owner to try again, once the cause is mended
    Redrive {
        /// Which ones; without any, all that are dead
        ids: Vec<i64>,
        /// Of this lane only
        #[arg(long)]
        lane: Option<String>,
    },
}

pub(crate) async fn run(place: &Target, command: DeadLetters, format: Format) -> Result<ExitCode, BoxError> {
    let attached = place.attach().await?;
    let done = work(&attached, command, format).await;
    attached.detach().await?;
    done
}

async fn work(attached: &Attached, command: DeadLetters, format: Format) -> Result<ExitCode, BoxError> {
    let client = attached.database.get().await?;
    match command {
        DeadLetters::List { lane, limit } => {
            let letters = dead_letters::list(&**client, lane.as_deref(), limit).await?;
            print(&letters, format)?;
        }
        DeadLetters::Show { id } => {
            let letter = dead_letters::find(&**client, id).await?;
            let letter =
                letter.ok_or_else(|| format!("there is no dead letter {id}; `weir dead-letters list` shows all"))?;
            match format {
                Format::Table => explain(&letter)?,
                Format::Json | Format::Csv => print(std::slice::from_ref(&letter), format)?,
            }
        }
        DeadLetters::Redrive { ids, lane } => {
            let asked = dead_letters::request_redrive(&**client, lane.as_deref(), &ids).await?;
            complain(&format!("{asked} asked for; the running lane tries them within a second"));
            if asked == 0 && !ids.is_empty() {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Everything about one, for the person who has to do something about it.
fn explain(letter: &DeadLetter) -> Result<(), BoxError> {
    let place = format!("{}/{} offset {}", letter.topic, letter.partition, letter.offset);
    for (name, value) in [
        ("id", letter.id.to_string()),
        ("lane", letter.lane.clone()),
        ("place", place),
        ("key", letter.key.clone().unwrap_or_default()),
        ("tenant", letter.tenant.clone().unwrap_or_default()),
        (
            "about",
            [&letter.aggregate_type, &letter.aggregate_id].map(|part| part.as_deref().unwrap_or_default()).join(" "),
        ),
        ("event type", letter.event_type.clone().unwrap_or_else(|| "no event".to_owned())),
        ("state", letter.state.clone()),
        ("tries", letter.attempts.to_string()),
        ("kept at", letter.created_at.clone()),
    ] {
        say(&format!("{name:>10}  {value}"))?;
    }
    say("    reason")?;
    // The error and its causes stand in one line; each gets its own here.
    for cause in letter.reason.split(": ") {
        say(&format!("            {cause}"))?;
    }
    say("   to do")?;
    say(&format!("            {}", advice(letter)))?;
    say("     bytes")?;
    Ok(say(&String::from_utf8_lossy(&letter.payload))?)
}

fn advice(letter: &DeadLetter) -> String {
    let redrive = format!("`weir dead-letters redrive {}`", letter.id);
    match (letter.state.as_str(), letter.event_type.is_some(), letter.attempts) {
        ("parked", _, 0) => "nothing: it waits behind an earlier record of its key, and follows that one".to_owned(),
        ("parked", ..) => "nothing yet: it is tried again by itself".to_owned(),
        ("redrive", ..) => "nothing: the running lane tries it within a second; is `weir up` running?".to_owned(),
        (_, true, _) => {
            format!("mend what the reason names, in the sink or in weir, then {redrive}; its key waits meanwhile")
        }
        (_, false, _) => format!(
            "these bytes are no event that this weir knows: let the producer send a correct one, or, if a newer weir knows \
             them, upgrade and {redrive}"
        ),
    }
}

fn print(letters: &[DeadLetter], format: Format) -> Result<(), BoxError> {
    let mut columns = vec![
        "id",
        "lane",
        "topic",
        "partition",
        "offset",
        "tenant",
        "key",
        "state",
        "event_type",
        "attempts",
        "reason",
        "created_at",
    ];
    if format != Format::Table {
        columns.extend(["aggregate_type", "aggregate_id", "payload"]);
    }
    let mut rows = Listing::new(&columns);
    for letter in letters {
        let mut object = serde_json::to_value(letter)?;
        object["payload"] = json!(String::from_utf8_lossy(&letter.payload));
        rows.rows.push(columns.iter().map(|c| object.get(*c).cloned().unwrap_or(Value::Null)).collect());
    }
    Ok(rows.print(format)?)
}
