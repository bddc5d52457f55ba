//! What clients ask, beyond their users' queries, that the libraries do not answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{DFSchemaRef, ParamValues, ScalarValue, exec_err};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{ColumnarValue, LogicalPlan, ScalarUDF, Volatility, create_udf};
use datafusion::prelude::SessionContext;
use datafusion::sql::parser;
use datafusion::sql::sqlparser::ast::{Query, Statement};
use datafusion_postgres::QueryHook;
use datafusion_postgres::arrow_pg::datatypes::df::encode_dataframe;
use datafusion_postgres::hooks::HookClient;
use datafusion_postgres::pgwire::api::ClientInfo;
use datafusion_postgres::pgwire::api::portal::{Format, Portal};
use datafusion_postgres::pgwire::api::results::{Response, Tag};
use datafusion_postgres::pgwire::api::stmt::StoredStatement;
use datafusion_postgres::pgwire::api::store::PortalStore;
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};

use super::catalog;
use super::errors::refusal;

/// Functions: SQLAlchemy reads the server's version out of `version()`, looks for the type `hstore`, asyncpg lets go of locks before it gives a
/// connection back, psql asks for sizes and for what is visible.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    let constant = |name: &str, takes: Vec<DataType>, value: ScalarValue| {
        let kind = value.data_type();
        let answer = Arc::new(move |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(value.clone())));
        create_udf(name, takes, kind, Volatility::Stable, answer)
    };
    let version =
        ScalarValue::from(concat!("PostgreSQL 16.6 (weir ", env!("CARGO_PKG_VERSION"), ", by Apache DataFusion)"));
    let setting = create_udf(
        "current_setting",
        vec![DataType::Utf8],
        DataType::Utf8,
        Volatility::Stable,
        Arc::new(|arguments: &[ColumnarValue]| {
            let [ColumnarValue::Scalar(ScalarValue::Utf8(Some(name)))] = arguments else {
                return exec_err!("current_setting takes a constant name");
            };
            let value = SETTINGS.iter().find(|(known, _)| known == name).map(|(_, value)| (*value).to_owned());
            Ok(ColumnarValue::Scalar(ScalarValue::Utf8(value)))
        }),
    );
    let oid = || vec![DataType::Int32];
    vec![
        constant("version", Vec::new(), version),
        constant("pg_advisory_unlock_all", Vec::new(), ScalarValue::Utf8(None)),
        // Types of extensions, of which there are none.
        constant("to_regtype", vec![DataType::Utf8], ScalarValue::Int32(None)),
        constant("pg_table_size", oid(), ScalarValue::Int64(None)),
        constant("pg_size_pretty", vec![DataType::Int64], ScalarValue::Utf8(None)),
        constant("pg_get_function_result", oid(), ScalarValue::Utf8(None)),
        constant("pg_get_function_arguments", oid(), ScalarValue::Utf8(None)),
        constant("col_description", vec![DataType::Int32, DataType::Int32], ScalarValue::Utf8(None)),
        constant("pg_get_viewdef", vec![DataType::Int32, DataType::Boolean], ScalarValue::Utf8(None)),
        constant("obj_description", vec![DataType::Int32, DataType::Utf8], ScalarValue::Utf8(None)),
        constant("pg_function_is_visible", oid(), ScalarValue::Boolean(Some(true))),
        constant("pg_type_is_visible", oid(), ScalarValue::Boolean(Some(true))),
        setting,
    ]
}

/// Settings of a server that clients ask for: Grafana the version, to know what it may use.
const SETTINGS: [(&str, &str); 3] =
    [("server_version_num", "160006"), ("server_version", "16.6"), ("search_path", "public")];

/// Of one connection: the columns of cursors, and questions about the catalog.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    /// Of each cursor that was declared.
    cursors: Mutex<HashMap<String, DFSchemaRef>>,
}

fn failed(error: DataFusionError) -> PgWireError {
    PgWireError::ApiError(Box::new(error))
}

async fn planned(query: &Query, context: &SessionContext) -> PgWireResult<(Statement, LogicalPlan)> {
    let statement = Statement::Query(Box::new(query.clone()));
    let plan = context.state().statement_to_plan(parser::Statement::Statement(Box::new(statement.clone()))).await;
    Ok((statement, plan.map_err(failed)?))
}

impl Clients {
    /// Where a cursor is fetched from, a plan that has its columns: a client asks for them first.
    fn fetched(&self, statement: &Statement) -> Option<LogicalPlan> {
        let Statement::Fetch { name, .. } = statement else { return None };
        let cursors = self.cursors.lock().unwrap_or_else(PoisonError::into_inner);
        cursors.get(&name.value).cloned().map(catalog::empty)
    }

    /// Cursors that know their columns; the libraries' own do not, and psycopg asks for them.
    async fn declare(
        &self,
        statement: &Statement,
        context: &SessionContext,
        client: &dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        let Statement::Declare { stmts } = statement else { return None };
        let declared = async {
            for declared in stmts {
                let (Some(query), Some(name)) = (&declared.for_query, declared.names.first()) else {
                    return Err(refusal("ERROR", "42601", "DECLARE name CURSOR FOR query"));
                };
                let planned = planned(query, context).await?;
                let (name, plan) = (name.value.clone(), planned.1.clone());
                let cursors = || self.cursors.lock().unwrap_or_else(PoisonError::into_inner);
                cursors().insert(name.clone(), plan.schema().clone());
                let frame = context.execute_logical_plan(plan).await.map_err(failed)?;
                let rows = encode_dataframe(frame, &Format::UnifiedText, None).await?;
                let stored = StoredStatement::new(name.clone(), (query.to_string(), Some(planned)), Vec::new());
                let portal = Portal::new_cursor(name, Arc::new(stored));
                portal.start(rows).await;
                client.portal_store().put_portal(Arc::new(portal));
            }
            Ok(Response::Execution(Tag::new("DECLARE CURSOR")))
        };
        Some(declared.await)
    }
}

#[async_trait]
impl QueryHook for Clients {
    async fn handle_simple_query(
        &self,
        statement: &Statement,
        context: &SessionContext,
        client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        let Some(plan) = catalog::plan(statement, context).await else {
            return self.declare(statement, context, client).await;
        };
        let answered = async {
            let frame = context.execute_logical_plan(plan.map_err(failed)?).await.map_err(failed)?;
            Ok(Response::Query(encode_dataframe(frame, &Format::UnifiedText, None).await?))
        };
        Some(answered.await)
    }

    async fn handle_extended_parse_query(
        &self,
        statement: &Statement,
        context: &SessionContext,
        _: &(dyn ClientInfo + Send + Sync),
    ) -> Option<PgWireResult<LogicalPlan>> {
        let plan = catalog::plan(statement, context).await.or_else(|| self.fetched(statement).map(Ok));
        plan.map(|plan| plan.map_err(failed))
    }

    async fn handle_extended_query(
        &self,
        statement: &Statement,
        _: &LogicalPlan,
        _: &ParamValues,
        context: &SessionContext,
        client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        self.declare(statement, context, client).await
    }
}
