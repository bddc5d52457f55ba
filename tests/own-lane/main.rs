//! A program of one's own: all of `weir`, and a lane that congratulates whoever passed. `tests/handlers.rs` runs it.

use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use deadpool_postgres::Transaction;
use weir::{OwnLane, Program};
use weir_model::{Event, EventType};
use weir_postgres::{ApplyError, During, Handler, Handlers};

/// The row and the lane's progress commit together, so nobody is congratulated twice.
struct Congratulate;

#[async_trait]
impl Handler for Congratulate {
    async fn handle(&self, transaction: &Transaction<'_>, event: &Event) -> Result<(), ApplyError> {
        const SQL: &str = "INSERT INTO congratulations (learner, assessment) VALUES ($1, $2)";
        if event.data.boolean("passed") == Some(true) {
            let learner = event.text("userId").ok_or_else(|| ApplyError::Refused("it names no learner".into()))?;
            transaction.execute(SQL, &[&learner, &event.stream.aggregate_id()]).await.during("congratulating")?;
        }
        Ok(())
    }
}

/// No key: a second row would show that something was applied twice.
const TABLES: &str = "CREATE TABLE IF NOT EXISTS congratulations (learner text, assessment text)";

fn main() -> ExitCode {
    let handlers = Handlers::default().subscribe(EventType::AssessmentCompleted, Arc::new(Congratulate));
    Program::default().lane(OwnLane::of_handlers("congratulations", handlers).with_tables(TABLES)).run()
}
