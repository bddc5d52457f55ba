//! One connection: its login, its tables, its statements.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::Statement;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::setup_pg_catalog;
use datafusion_postgres::hooks::cursor::CursorStatementHook;
use datafusion_postgres::hooks::set_show::SetShowHook;
use datafusion_postgres::hooks::transactions::TransactionStatementHook;
use datafusion_postgres::pgwire::api::auth::StartupHandler;
use datafusion_postgres::pgwire::api::cancel::CancelHandler;
use datafusion_postgres::pgwire::api::portal::{Format, Portal};
use datafusion_postgres::pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler};
use datafusion_postgres::pgwire::api::results::{FieldInfo, Response};
use datafusion_postgres::pgwire::api::stmt::QueryParser;
use datafusion_postgres::pgwire::api::store::PortalStore;
use datafusion_postgres::pgwire::api::{ClientInfo, ClientPortalStore, ErrorHandler, PgWireServerHandlers, Type};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::PgWireBackendMessage;
use datafusion_postgres::pgwire::messages::cancel::CancelRequest;
use datafusion_postgres::{DfSessionService, Parser, QueryHook};
use futures::Sink;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::certificate;
use super::clients::{self, Clients};
use super::copy::CopyOut;
use super::errors::{Codes, refusal};
use super::freshness::{Freshness, TABLE};
use super::login::{Door, Found};
use super::passing::ReadOnly;
use super::running::{Bounds, Counted, Key};
use super::shared::Shared;
use super::snapshot::Current;
use crate::error::QueryError;
use crate::tables;

/// How long a login that was looked up is taken to stand.
const LOGIN_STANDS: Duration = Duration::from_secs(1);

/// Where the libraries keep what a client set as `statement_timeout`, in milliseconds.
const STATEMENT_TIMEOUT: &str = "statement_timeout_ms";

/// One connection.
pub(crate) struct Session {
    door: Arc<Door>,
    statements: Arc<Statements>,
    cancel: Arc<Cancel>,
}

impl Session {
    /// A connection that waits for its login, and what is cancelled once that is through.
    pub(crate) fn new(shared: Arc<Shared>, shown: &certificate::Shown) -> PgWireResult<(Self, CancellationToken)> {
        let (found, entered) = (Arc::new(Found::default()), CancellationToken::new());
        let door = Door::new(shared.clone(), found.clone(), shown, entered.clone())?;
        let statements = Statements { shared: shared.clone(), found, tables: Mutex::default() };
        let session = Self { door: Arc::new(door), statements: Arc::new(statements), cancel: Arc::new(Cancel(shared)) };
        Ok((session, entered))
    }
}

impl PgWireServerHandlers for Session {
    fn startup_handler(&self) -> Arc<impl StartupHandler> {
        self.door.clone()
    }

    fn simple_query_handler(&self) -> Arc<impl SimpleQueryHandler> {
        self.statements.clone()
    }

    fn extended_query_handler(&self) -> Arc<impl ExtendedQueryHandler> {
        Arc::new(Extended(self.statements.clone()))
    }

    fn error_handler(&self) -> Arc<impl ErrorHandler> {
        Arc::new(Codes)
    }

    fn cancel_handler(&self) -> Arc<impl CancelHandler> {
        self.cancel.clone()
    }
}

/// Ends a statement for a client that asks by a connection of its own.
struct Cancel(Arc<Shared>);

#[async_trait]
impl CancelHandler for Cancel {
    async fn on_cancel_request(&self, asked: CancelRequest) {
        self.0.running.cancel(&Key::new(asked.pid, &asked.secret_key));
    }
}

/// What runs a connection's statements.
struct Statements {
    shared: Arc<Shared>,
    found: Arc<Found>,
    tables: Mutex<Option<Tables>>,
}

/// What a connection has once it asks something.
struct Tables {
    service: Arc<DfSessionService>,
    /// Its session; the service does not lend it.
    context: Arc<datafusion::prelude::SessionContext>,
    current: Arc<Current>,
    version: Option<i64>,
    /// When the login was looked up last.
    looked_up: Instant,
}

impl Statements {
    fn failed(&self, error: QueryError) -> PgWireError {
        match error {
            QueryError::Sql(source) | QueryError::Table { source, .. } => PgWireError::ApiError(Box::new(source)),
            error @ QueryError::History(_) => {
                tracing::warn!(error = error.to_string(), "history cannot be read");
                let words = format!("history cannot be read: {error}");
                self.shared.seen.is(Some(&words));
                refusal("ERROR", "58030", &words)
            }
        }
    }

    /// The service on the last commit of history, for a login that still stands. The tables stay as they are until others are there: what
    /// fails or is cut off in between leaves statements that were prepared before with tables that are exchanged like all.
    async fn service(&self) -> PgWireResult<Arc<DfSessionService>> {
        let mut held = self.tables.lock().await;
        if held.as_ref().is_none_or(|tables| tables.looked_up.elapsed() > LOGIN_STANDS) {
            self.look_up().await?;
            if let Some(tables) = held.as_mut() {
                tables.looked_up = Instant::now();
            }
        }
        if let Some(tables) = held.as_mut() {
            let (version, rows) =
                self.shared.snapshots.last(&tables.context).await.map_err(|error| self.failed(error))?;
            self.shared.seen.is_well();
            if tables.version == version {
                return Ok(tables.service.clone());
            }
            if rows.schema() == tables.current.schema() {
                tables.current.set(rows);
                tables.version = version;
                return Ok(tables.service.clone());
            }
        }
        // Columns are part of plans: those of statements that were prepared before are of no use any more.
        let tables = self.tables().await?;
        self.shared.seen.is_well();
        let service = tables.service.clone();
        if let Some(before) = held.replace(tables) {
            before.current.end();
        }
        Ok(service)
    }

    fn login(&self) -> PgWireResult<(String, Option<String>)> {
        self.found.get().ok_or_else(|| refusal("FATAL", "28000", "there was no login"))
    }

    /// A login that was revoked is one no more.
    async fn look_up(&self) -> PgWireResult<()> {
        let (name, tenant) = self.login()?;
        let known = self.shared.logins.login(&name).await.map_err(|error| {
            tracing::warn!(error = error.to_string(), "who a client is cannot be looked up");
            self.shared.seen.is(Some("logins cannot be looked up: Postgres does not answer"));
            refusal("ERROR", "57P03", "who you are cannot be looked up: Postgres does not answer; try again")
        })?;
        match known {
            Some(known) if known.tenant == tenant => Ok(()),
            _ => Err(refusal("FATAL", "28000", "this login was revoked")),
        }
    }

    async fn tables(&self) -> PgWireResult<Tables> {
        let (_, tenant) = self.login()?;
        let made = async {
            let context = tables::context(self.shared.snapshots.runtime.clone())?;
            let (version, rows) = self.shared.snapshots.last(&context).await?;
            let current = Arc::new(Current::new(rows));
            tables::register(&context, current.clone(), tenant.as_deref()).await?;
            context.register_table(TABLE, Arc::new(Freshness(self.shared.logins.clone())))?;
            setup_pg_catalog(&context, tables::CATALOG, EmptyContextProvider).map_err(|error| *error)?;
            for function in clients::functions() {
                context.register_udf(function);
            }
            let context = Arc::new(context);
            let hooks: Vec<Arc<dyn QueryHook>> = vec![
                Arc::new(ReadOnly),
                Arc::new(Clients::default()),
                Arc::new(CopyOut),
                Arc::new(CursorStatementHook),
                Arc::new(SetShowHook),
                Arc::new(TransactionStatementHook),
            ];
            let service = Arc::new(DfSessionService::new_with_hooks(context.clone(), hooks));
            Ok(Tables { service, context, current, version, looked_up: Instant::now() })
        };
        Box::pin(made).await.map_err(|error| self.failed(error))
    }

    /// As long as the settings let it, or as the client wants at most.
    fn bounds<C: ClientInfo>(&self, client: &C, counted: Counted) -> Bounds {
        let asked = client.metadata().get(STATEMENT_TIMEOUT).and_then(|millis| millis.parse().ok());
        let (pid, secret) = client.pid_and_secret_key();
        let key = Key::new(pid, &secret);
        let most = self.shared.options.statement_max;
        self.shared.running.begin(key, asked.map_or(most, |millis| most.min(Duration::from_millis(millis))), counted)
    }
}

#[async_trait]
impl SimpleQueryHandler for Statements {
    async fn do_query<C>(&self, client: &mut C, query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let bounds = self.bounds(client, Counted::Always);
        let answered = async {
            let service = self.service().await?;
            SimpleQueryHandler::do_query(&*service, client, query).await
        };
        let responses = bounds.within(answered).await?;
        Ok(responses.into_iter().map(|response| bounds.over(response)).collect())
    }
}

/// The same for statements that are parsed, bound and executed one by one.
struct Extended(Arc<Statements>);

type Parsed = (String, Option<(Statement, LogicalPlan)>);

#[async_trait]
impl ExtendedQueryHandler for Extended {
    type Statement = Parsed;
    type QueryParser = Parsing;

    fn query_parser(&self) -> Arc<Parsing> {
        Arc::new(Parsing(self.0.clone()))
    }

    async fn do_query<C>(&self, client: &mut C, portal: &Portal<Parsed>, max_rows: usize) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Parsed>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let bounds = self.0.bounds(client, Counted::Always);
        let answered = async {
            let service = self.0.service().await?;
            ExtendedQueryHandler::do_query(&*service, client, portal, max_rows).await
        };
        Ok(bounds.over(bounds.within(answered).await?))
    }
}

/// Plans statements on the session's tables.
struct Parsing(Arc<Statements>);

impl Parsing {
    /// What a plan says of itself needs no session.
    fn plain() -> Arc<Parser> {
        static PLAIN: std::sync::LazyLock<Arc<Parser>> =
            std::sync::LazyLock::new(|| DfSessionService::new(Arc::default()).query_parser());
        PLAIN.clone()
    }
}

#[async_trait]
impl QueryParser for Parsing {
    type Statement = Parsed;

    async fn parse_sql<C>(&self, client: &C, sql: &str, types: &[Option<Type>]) -> PgWireResult<Option<Parsed>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let parsed = async {
            let service = self.0.service().await?;
            service.query_parser().parse_sql(client, sql, types).await
        };
        self.0.bounds(client, Counted::Failed).within(parsed).await
    }

    fn get_parameter_types(&self, statement: &Parsed) -> PgWireResult<Vec<Type>> {
        Self::plain().get_parameter_types(statement)
    }

    fn get_result_schema(&self, statement: &Parsed, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        Self::plain().get_result_schema(statement, format)
    }
}
