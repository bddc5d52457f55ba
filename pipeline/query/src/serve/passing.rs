//! What may pass: statements that only read.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::common::{DFSchema, ParamValues};
use datafusion::logical_expr::{EmptyRelation, LogicalPlan};
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::{CopySource, CopyTarget, Query, SetExpr, Statement};
use datafusion_postgres::QueryHook;
use datafusion_postgres::hooks::HookClient;
use datafusion_postgres::pgwire::api::ClientInfo;
use datafusion_postgres::pgwire::api::results::{Response, Tag};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};

use super::errors::refusal;

/// Lets statements pass that only read.
#[derive(Debug)]
pub(crate) struct ReadOnly;

/// Why a statement may not pass.
#[expect(clippy::wildcard_enum_match_arm, reason = "an enum of a library: what it adds later is refused")]
fn check(statement: &Statement) -> Result<(), PgWireError> {
    let may = match statement {
        Statement::Query(query) => reads(query),
        Statement::Explain { statement, .. } | Statement::Prepare { statement, .. } => return check(statement),
        Statement::Copy { source: CopySource::Query(query), to: true, target: CopyTarget::Stdout, .. } => reads(query),
        Statement::Copy { to: true, target: CopyTarget::Stdout, .. } => true,
        Statement::Declare { stmts } => {
            stmts.iter().filter_map(|declared| declared.for_query.as_ref()).all(|q| reads(q))
        }
        // In whatever way it is written.
        Statement::Set(set) if set.to_string().to_lowercase().contains("datafusion") => {
            return Err(refusal("ERROR", "42501", "the engine's own settings are not a client's to change"));
        }
        Statement::Set(_)
        | Statement::ExplainTable { .. }
        | Statement::ShowVariable { .. }
        | Statement::ShowTables { .. }
        | Statement::ShowColumns { .. }
        | Statement::ShowCatalogs { .. }
        | Statement::StartTransaction { .. }
        | Statement::Commit { .. }
        | Statement::Rollback { .. }
        | Statement::Fetch { .. }
        | Statement::Close { .. }
        | Statement::Execute { .. } => true,
        other if forgets(other).is_some() => true,
        _ => false,
    };
    match may {
        true => Ok(()),
        false => {
            let words =
                "history is only read here: queries, EXPLAIN, COPY … TO STDOUT, SET, SHOW, cursors, transactions";
            Err(refusal("ERROR", "25006", words))
        }
    }
}

/// What clients send to leave nothing behind, of which there is nothing here, and how Postgres answers.
#[expect(clippy::wildcard_enum_match_arm, reason = "an enum of a library: what it adds later is not answered")]
fn forgets(statement: &Statement) -> Option<&'static str> {
    match statement {
        Statement::Reset(_) => Some("RESET"),
        Statement::Discard { .. } => Some("DISCARD ALL"),
        Statement::Deallocate { .. } => Some("DEALLOCATE"),
        Statement::UNLISTEN { .. } => Some("UNLISTEN"),
        Statement::Savepoint { .. } => Some("SAVEPOINT"),
        Statement::ReleaseSavepoint { .. } => Some("RELEASE"),
        _ => None,
    }
}

/// The refusal, or the answer where nothing has to be done.
fn at_once(statement: &Statement) -> Option<PgWireResult<Response>> {
    if let Err(error) = check(statement) {
        return Some(Err(error));
    }
    forgets(statement).map(|tag| Ok(Response::Execution(Tag::new(tag))))
}

/// Whether no part of a query writes.
fn reads(query: &Query) -> bool {
    let common = query.with.iter().flat_map(|with| &with.cte_tables);
    common.map(|table| &*table.query).all(reads) && body_reads(&query.body)
}

fn body_reads(body: &SetExpr) -> bool {
    match body {
        SetExpr::Select(select) => select.into.is_none(),
        SetExpr::Query(query) => reads(query),
        SetExpr::SetOperation { left, right, .. } => body_reads(left) && body_reads(right),
        SetExpr::Values(_) | SetExpr::Table(_) => true,
        SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => false,
    }
}

/// The plan of a statement that is not planned.
pub(crate) fn no_rows() -> LogicalPlan {
    LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: false, schema: Arc::new(DFSchema::empty()) })
}

#[async_trait]
impl QueryHook for ReadOnly {
    async fn handle_simple_query(
        &self,
        statement: &Statement,
        _: &SessionContext,
        _: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        at_once(statement)
    }

    async fn handle_extended_parse_query(
        &self,
        statement: &Statement,
        _: &SessionContext,
        _: &(dyn ClientInfo + Send + Sync),
    ) -> Option<PgWireResult<LogicalPlan>> {
        match check(statement) {
            Ok(()) => forgets(statement).map(|_| Ok(no_rows())),
            Err(error) => Some(Err(error)),
        }
    }

    async fn handle_extended_query(
        &self,
        statement: &Statement,
        _: &LogicalPlan,
        _: &ParamValues,
        _: &SessionContext,
        _: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        at_once(statement)
    }
}
