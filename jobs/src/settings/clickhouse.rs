//! Settings of ClickHouse.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use weir_clickhouse::{ClickHouse, ClickHouseOptions};
use weir_engine::BoxError;

use super::Passed;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) url: String,
    user: String,
    password: String,
    pub(crate) database: String,
    cluster: String,
    ttl_days: u32,
    insert_interval_ms: u64,
    settings: BTreeMap<String, Passed>,
}

impl Settings {
    /// The server; `None` where that lane does not run.
    pub(crate) fn server(&self) -> Option<ClickHouse> {
        (!self.url.is_empty()).then(|| {
            ClickHouse::new(ClickHouseOptions {
                url: self.url.clone(),
                user: self.user.clone(),
                password: self.password.clone(),
                database: self.database.clone(),
                cluster: (!self.cluster.is_empty()).then(|| self.cluster.clone()),
                ttl_days: self.ttl_days,
                settings: self.settings.iter().map(|(name, value)| (name.clone(), value.to_string())).collect(),
                insert_interval: Duration::from_millis(self.insert_interval_ms),
            })
        })
    }

    /// The flags that name this server to another command, without the password.
    pub(crate) fn flags(&self) -> String {
        match self.url.as_str() {
            "" => String::new(),
            url => format!(" --set clickhouse.url={url} --set clickhouse.user={}", self.user),
        }
    }

    /// The same for those who need it.
    pub(crate) fn required(&self) -> Result<ClickHouse, BoxError> {
        self.server().ok_or_else(|| "clickhouse.url is empty: --set clickhouse.url=http://HOST:8123".into())
    }
}
