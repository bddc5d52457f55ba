//! One ClickHouse server, or one cluster's, behind the official client.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use clickhouse::Client;
use weir_model::{Clock, SystemClock, Timestamp};

use crate::error::{ClickHouseError, During};
use crate::schema::TABLE;

/// The oldest version with the JSON type and the settings that this lane stands on.
const OLDEST: (u32, u32) = (25, 3);

/// How long one piece of an insert may take to be sent, and the server's answer to come.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

const DAY_MS: i64 = 86_400_000;

/// How to reach ClickHouse, and what its tables are like.
#[derive(Debug, Clone)]
pub struct ClickHouseOptions {
    /// `http://HOST:8123` or `https://HOST:8443`.
    pub url: String,
    /// Who we are.
    pub user: String,
    /// The password, which is shown nowhere.
    pub password: String,
    /// The database of the tables.
    pub database: String,
    /// With a name: replicated tables on that cluster, behind a distributed one.
    pub cluster: Option<String>,
    /// Rows older than this, by `recorded_at`, may be dropped; 0 keeps everything.
    pub ttl_days: u32,
    /// Further settings of each query.
    pub settings: BTreeMap<String, String>,
    /// Between two inserts of this process.
    pub insert_interval: Duration,
}

/// A row of the view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// When the event was appended, as the server writes it.
    pub recorded_at: Option<String>,
    /// Topic, partition and offset, for people.
    pub coordinates: String,
}

/// A server that speaks ClickHouse's HTTP interface.
#[derive(Clone)]
pub struct ClickHouse {
    client: Client,
    pub(crate) options: ClickHouseOptions,
}

impl ClickHouse {
    /// Nothing is sent yet.
    #[must_use]
    pub fn new(options: ClickHouseOptions) -> Self {
        let client = Client::default()
            .with_url(&options.url)
            .with_user(&options.user)
            .with_password(&options.password)
            .with_product_info("weir", env!("CARGO_PKG_VERSION"));
        Self { client, options }
    }

    /// What was recorded before is dropped at the next merge; `None` if everything stays.
    pub(crate) fn dropped_before(&self) -> Option<Timestamp> {
        self.recorded_at_age(i64::from(self.options.ttl_days) * DAY_MS)
    }

    /// Records that were recorded before this time are gone, or may go while they are compared: it is later than the TTL's limit by a
    /// day, or by a tenth of a TTL below ten days. `None` without a TTL.
    #[must_use]
    pub fn kept_from(&self) -> Option<Timestamp> {
        let ttl = i64::from(self.options.ttl_days) * DAY_MS;
        self.recorded_at_age(ttl - DAY_MS.min(ttl / 10))
    }

    fn recorded_at_age(&self, ms: i64) -> Option<Timestamp> {
        if self.options.ttl_days == 0 {
            return None;
        }
        Timestamp::from_millis(SystemClock.now().as_millis() - ms).ok()
    }

    /// The database's name as SQL has it.
    pub(crate) fn database(&self) -> String {
        quoted(&self.options.database)
    }

    /// With the settings of every query but the first, which asks for the version: an old server knows them not.
    fn configured(&self) -> Client {
        let client = self
            .client
            .clone()
            .with_setting("output_format_arrow_string_as_string", "1")
            .with_setting("output_format_arrow_low_cardinality_as_dictionary", "0")
            .with_setting("output_format_arrow_date_as_uint16", "0")
            // `{"x": {"b": 1}, "x.b": 2}` is one path twice.
            .with_setting("type_json_skip_duplicated_paths", "1");
        self.options.settings.iter().fold(client, |client, (name, value)| client.with_setting(name, value))
    }

    /// Refuses a server that is too old.
    pub async fn check_version(&self) -> Result<String, ClickHouseError> {
        const ACTION: &str = "asking ClickHouse for its version";
        // As text: an old server knows fewer formats.
        let mut answer = self.client.query_raw("SELECT version()").fetch_bytes("TSV").during(ACTION)?;
        let bytes = in_time(ACTION, async { answer.collect().await.during(ACTION) }).await?;
        let version = String::from_utf8_lossy(&bytes).trim().to_owned();
        let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let found = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        if found < OLDEST {
            let (major, minor) = OLDEST;
            let words = format!("it is {version}, and {major}.{minor} is the oldest that will do");
            return Err(ClickHouseError::new(ACTION, words, "upgrade the server, or clear clickhouse.url"));
        }
        Ok(version)
    }

    /// Runs a statement.
    pub(crate) async fn execute(&self, action: &'static str, sql: &str) -> Result<(), ClickHouseError> {
        in_time(action, async { self.configured().query_raw(sql).execute().await.during(action) }).await
    }

    /// Runs a statement that takes its time.
    pub(crate) async fn execute_long(&self, action: &'static str, sql: &str) -> Result<(), ClickHouseError> {
        let client = self.configured().with_setting("max_execution_time", "0");
        client.query_raw(sql).execute().await.during(action)
    }

    /// [`Self::rows`] of a query that takes its time.
    pub(crate) async fn rows_long(&self, action: &'static str, sql: &str) -> Result<Vec<Vec<String>>, ClickHouseError> {
        let client = self.configured().with_setting("max_execution_time", "0");
        let mut answer = client.query_raw(sql).fetch_bytes("TSVRaw").during(action)?;
        Ok(cells(&answer.collect().await.during(action)?))
    }

    /// The rows of a query as tab-separated text, a `Vec` of cells each. For small answers.
    pub async fn rows(&self, action: &'static str, sql: &str) -> Result<Vec<Vec<String>>, ClickHouseError> {
        // Without a database, which may not be there yet.
        let mut answer = self.configured().query_raw(sql).fetch_bytes("TSVRaw").during(action)?;
        let bytes = in_time(action, async { answer.collect().await.during(action) }).await?;
        Ok(cells(&bytes))
    }

    /// Where the view shows an event: once, or something is wrong. `tenant` and `event_type` let most of the table be left out.
    pub async fn find(&self, event_id: &str, tenant: &str, event_type: &str) -> Result<Vec<Found>, ClickHouseError> {
        let sql = format!(
            "SELECT recorded_at, concat(topic, '/', toString(`partition`), ' offset ', toString(`offset`)) FROM {}.analytics_events \
             WHERE event_type = {} AND tenant = {} AND event_id = {}",
            self.database(),
            literal(event_type),
            literal(tenant),
            literal(event_id)
        );
        let rows = self.rows("looking for an event in ClickHouse", &sql).await?;
        let found = |row: Vec<String>| {
            let [recorded_at, coordinates] = <[String; 2]>::try_from(row).ok()?;
            Some(Found { recorded_at: Some(recorded_at).filter(|at| at != "\\N"), coordinates })
        };
        Ok(rows.into_iter().filter_map(found).collect())
    }

    /// A query's answer, piece by piece.
    pub(crate) fn stream(
        &self,
        action: &'static str,
        sql: &str,
        format: &str,
    ) -> Result<clickhouse::query::BytesCursor, ClickHouseError> {
        self.configured().with_database(&self.options.database).query_raw(sql).fetch_bytes(format).during(action)
    }

    /// Inserts one block and waits until the server has it. Without the server's own deduplication: it notes a token before the
    /// part that it stands for is there, so a crash in between would have it refuse what it does not hold; the sort key does it.
    pub async fn insert(&self, pieces: impl Iterator<Item = Bytes>) -> Result<(), ClickHouseError> {
        self.insert_as(TABLE, "Native", pieces).await
    }

    /// [`Self::insert`] into a table of the same columns, in a format of the server's.
    pub(crate) async fn insert_as(
        &self,
        table: &str,
        format: &str,
        pieces: impl Iterator<Item = Bytes>,
    ) -> Result<(), ClickHouseError> {
        const ACTION: &str = "inserting into ClickHouse";
        let sql = format!("INSERT INTO {}.{table} FORMAT {format}", self.database());
        let mut insert = self
            .configured()
            .insert_formatted_with(sql)
            .with_timeouts(Some(SEND_TIMEOUT), Some(ANSWER_TIMEOUT))
            // Since 26 an insert may be put into a buffer by default: acknowledged as a whole, but no longer one block.
            .with_setting("async_insert", "0")
            .with_setting("wait_end_of_query", "1")
            .with_setting("insert_deduplicate", "0")
            // The block's own rows are one of a key each; looking for repeats among them takes two thirds of an insert's CPU.
            .with_setting("optimize_on_insert", "0")
            // Events of any month may come together; by default a hundred months are too many.
            .with_setting("max_partitions_per_insert_block", "0");
        if self.options.cluster.is_some() {
            insert = insert.with_setting("insert_quorum", "auto").with_setting("distributed_foreground_insert", "1");
        }
        for piece in pieces {
            insert.send(piece).await.during(ACTION)?;
        }
        insert.end().await.during(ACTION)
    }
}

fn cells(tsv: &[u8]) -> Vec<Vec<String>> {
    let text = String::from_utf8_lossy(tsv);
    text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// What a server that stands still would hold up for ever.
pub(crate) async fn in_time<T>(
    action: &'static str,
    work: impl Future<Output = Result<T, ClickHouseError>>,
) -> Result<T, ClickHouseError> {
    tokio::time::timeout(ANSWER_TIMEOUT, work).await.unwrap_or_else(|_| {
        let words = format!("no answer for {} s", ANSWER_TIMEOUT.as_secs());
        Err(ClickHouseError::new(action, words, "does the server stand still?"))
    })
}

/// An identifier in backquotes.
pub(crate) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

/// A text in quotes.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
