//! The pool, with limits on everything, and the schema.

use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use postgres_openssl::{MakeTlsConnector, TlsStream};
use tokio_postgres::{Client, Config, Connection, Socket};

use crate::error::{DbError, During, ErrorKind, kind_of_cause};
use crate::{locks, tls};

mod embedded {
    #![allow(missing_docs, unreachable_pub, reason = "generated")]
    refinery::embed_migrations!("../../sql/postgres");
}

/// How to reach Postgres, and the limits of every connection.
#[derive(Debug, Clone)]
pub struct DatabaseOptions {
    /// A Postgres URL or key=value string.
    pub url: String,
    /// Connections of this process at most.
    pub connections_max: usize,
    /// A statement is cancelled after this long.
    pub statement_timeout: Duration,
    /// A lock is waited for this long.
    pub lock_timeout: Duration,
    /// Further settings of each session: name, value.
    pub session: Vec<(String, String)>,
}

/// A pool of connections.
#[derive(Clone)]
pub struct Database {
    pool: Pool,
    config: Config,
    tls: MakeTlsConnector,
}

/// A server that acknowledges nothing for so long is gone.
const GONE_AFTER: Duration = Duration::from_secs(15);

impl Database {
    /// Prepares the pool; the first use connects.
    pub fn open(options: &DatabaseOptions) -> Result<Self, DbError> {
        let (mut config, connector) = tls::read(&options.url)?;
        let limits = format!(
            "-c statement_timeout={} -c lock_timeout={} -c idle_in_transaction_session_timeout={} -c TimeZone=UTC",
            options.statement_timeout.as_millis(),
            options.lock_timeout.as_millis(),
            options.statement_timeout.as_millis(),
        );
        let given = config.get_options().unwrap_or_default().to_owned();
        // A space or a backslash within a value is escaped as libpq does it.
        let escaped = |value: &str| value.replace('\\', "\\\\").replace(' ', "\\ ");
        let further: String =
            options.session.iter().map(|(name, value)| format!(" -c {name}={}", escaped(value))).collect();
        config.options(format!("{limits}{further} {given}"));
        config.connect_timeout(Duration::from_secs(5));
        // A machine that is gone says nothing: without these, a query would wait for it for a quarter of an hour.
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(GONE_AFTER).keepalives_idle(GONE_AFTER / 3);
            config.keepalives_interval(GONE_AFTER / 3).keepalives_retries(2);
        }
        if config.get_application_name().is_none() {
            // A name in the startup message would win over one among the options.
            let named = options.session.iter().find(|(name, _)| name == "application_name");
            config.application_name(named.map_or("weir", |(_, value)| value));
        }
        Self::pool(config, connector, options.connections_max)
    }

    fn pool(config: Config, tls: MakeTlsConnector, connections_max: usize) -> Result<Self, DbError> {
        let manager_config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let pool = Pool::builder(Manager::from_config(config.clone(), tls.clone(), manager_config))
            .max_size(connections_max)
            .wait_timeout(Some(Duration::from_secs(5)))
            .create_timeout(Some(Duration::from_secs(5)))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|e| DbError::new("preparing the pool", ErrorKind::Permanent, e))?;
        Ok(Self { pool, config, tls })
    }

    /// The same database through a pool of its own, whose connections look into another schema first.
    pub fn through(&self, schema: &str, connections_max: usize) -> Result<Self, DbError> {
        let mut config = self.config.clone();
        let given = config.get_options().unwrap_or_default().to_owned();
        config.options(format!("{given} -c search_path={schema},public"));
        Self::pool(config, self.tls.clone(), connections_max)
    }

    /// A connection; back to the pool when dropped.
    pub async fn get(&self) -> Result<Object, DbError> {
        self.pool.get().await.during("connecting to Postgres")
    }

    /// The pool's connections by state: in use, idle, and how many tasks wait for one.
    #[must_use]
    pub fn connections(&self) -> [(&'static str, usize); 3] {
        let status = self.pool.status();
        [
            ("in_use", status.size.saturating_sub(status.available)),
            ("idle", status.available),
            ("waited_for", status.waiting),
        ]
    }

    /// A connection outside the pool, and what carries it.
    pub(crate) async fn connect(&self) -> Result<(Client, Connection<Socket, TlsStream<Socket>>), DbError> {
        self.config.connect(self.tls.clone()).await.during("connecting to Postgres")
    }

    /// Brings the schema up to this build's version. Refuses a schema that someone else changed.
    pub async fn migrate(&self) -> Result<(), DbError> {
        const ACTION: &str = "migrating the Postgres schema";
        let mut client = self.get().await?;
        refuse_newer(&client).await?;
        let (group, number) = locks::MIGRATIONS;
        client.execute("SELECT pg_advisory_lock($1, $2)", &[&group, &number]).await.during(ACTION)?;
        let runner = embedded::migrations::runner().set_abort_divergent(true).set_abort_missing(true);
        let plain: &mut Client = &mut client;
        let report = runner.run_async(plain).await;
        let unlocked = client.execute("SELECT pg_advisory_unlock($1, $2)", &[&group, &number]).await;
        let report = report.map_err(|e| DbError::new(ACTION, kind_of_cause(&e), e))?;
        unlocked.during(ACTION)?;
        for migration in report.applied_migrations() {
            tracing::info!(%migration, "applied");
        }
        Ok(())
    }
}

/// A schema with a migration that this build does not have is a newer build's.
async fn refuse_newer(client: &Client) -> Result<(), DbError> {
    const ACTION: &str = "looking at the version of the Postgres schema";
    let is_new = client.query_one("SELECT to_regclass('refinery_schema_history') IS NULL", &[]).await.during(ACTION)?;
    if is_new.try_get(0).during(ACTION)? {
        return Ok(());
    }
    let row = client.query_one("SELECT coalesce(max(version), 0) FROM refinery_schema_history", &[]).await;
    let found: i32 = row.during(ACTION)?.try_get(0).during(ACTION)?;
    let known =
        embedded::migrations::runner().get_migrations().iter().map(|migration| i64::from(migration.version())).max();
    if i64::from(found) <= known.unwrap_or(0) {
        return Ok(());
    }
    let words = format!(
        "the schema is of version {found}, and this build knows up to {}: a newer weir made it, use that one; nothing was changed",
        known.unwrap_or(0)
    );
    Err(DbError::new(ACTION, ErrorKind::Permanent, words))
}
