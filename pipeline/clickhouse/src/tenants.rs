//! A user for each tenant that is granted one: it reads that tenant's rows alone, by row policies on every table that says whose a row is.
//!
//! Views run with the rights of the one who asks, so the policies on their tables hold there too. A policy for the one makes rows invisible to
//! all others where the server is set so; hence a second policy lets everyone who is no tenant's see everything.

use weir_model::TenantId;

use crate::error::ClickHouseError;
use crate::server::{ClickHouse, literal, quoted};

const ACTION: &str = "granting a tenant its rows in ClickHouse";

/// What all tenants' users have.
pub const ROLE: &str = "weir_tenants";

/// Limits of one query of a tenant's user.
const LIMITS: &str = "readonly = 2, max_execution_time = 60, max_memory_usage = 2000000000, max_result_rows = 1000000";

/// A table, and which of its rows a tenant sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Its name.
    pub table: String,
    /// A condition on its columns.
    pub filter: String,
}

impl ClickHouse {
    /// Makes a tenant's user, or gives it another password, and lets it see what there is of its rows now.
    pub async fn grant(&self, tenant: &TenantId, user: &str, password: &str) -> Result<Vec<Policy>, ClickHouseError> {
        if self.options.cluster.is_some() {
            let words = "clickhouse.cluster is set, and a cluster's users are its administrator's";
            return Err(ClickHouseError::new(ACTION, words, "make one there, with a row policy on each table"));
        }
        let policies = self.policies(tenant).await?;
        for sql in self.grants(user, password, &policies, &self.views().await?) {
            self.execute(ACTION, &sql).await?;
        }
        Ok(policies)
    }

    /// Ends a tenant's user and its policies; `false` where there was none.
    pub async fn revoke(&self, tenant: &TenantId, user: &str) -> Result<bool, ClickHouseError> {
        let known = format!("SELECT count() FROM system.users WHERE name = {}", literal(user));
        let is_known = self.rows(ACTION, &known).await?.first().is_some_and(|row| row[0] != "0");
        if is_known {
            for Policy { table, .. } in self.policies(tenant).await? {
                let on = format!("{}.{}", self.database(), quoted(&table));
                self.execute(ACTION, &format!("DROP ROW POLICY IF EXISTS {} ON {on}", quoted(user))).await?;
            }
            self.execute(ACTION, &format!("DROP USER IF EXISTS {}", quoted(user))).await?;
        }
        Ok(is_known)
    }

    /// Each table whose rows are some tenant's.
    pub async fn policies(&self, tenant: &TenantId) -> Result<Vec<Policy>, ClickHouseError> {
        let sql = format!(
            "SELECT table FROM system.columns WHERE database = {0} AND name = 'tenant' AND table IN \
             (SELECT name FROM system.tables WHERE database = {0} AND engine LIKE '%MergeTree') ORDER BY table",
            literal(&self.options.database)
        );
        let tables = self.rows(ACTION, &sql).await?.into_iter().flatten();
        let filter = format!("tenant = {}", literal(tenant.as_str()));
        Ok(tables.map(|table| Policy { table, filter: filter.clone() }).collect())
    }

    async fn views(&self) -> Result<Vec<String>, ClickHouseError> {
        let sql = format!(
            "SELECT name FROM system.tables WHERE database = {} AND engine = 'View' ORDER BY name",
            literal(&self.options.database)
        );
        Ok(self.rows(ACTION, &sql).await?.into_iter().flatten().collect())
    }

    fn grants(&self, user: &str, password: &str, policies: &[Policy], views: &[String]) -> Vec<String> {
        let (user, role, database) = (quoted(user), quoted(ROLE), self.database());
        let mut statements = vec![
            format!("CREATE ROLE IF NOT EXISTS {role}"),
            format!(
                "CREATE USER OR REPLACE {user} IDENTIFIED WITH sha256_password BY {} DEFAULT ROLE {role} SETTINGS {LIMITS}",
                literal(password)
            ),
            format!("GRANT {role} TO {user}"),
        ];
        for Policy { table, filter } in policies {
            let on = format!("{database}.{}", quoted(table));
            statements.push(format!("CREATE ROW POLICY OR REPLACE weir_others ON {on} USING 1 TO ALL EXCEPT {role}"));
            statements.push(format!("CREATE ROW POLICY OR REPLACE {user} ON {on} USING {filter} TO {user}"));
            statements.push(format!("GRANT SELECT ON {on} TO {user}"));
        }
        // Last: a view shows what the policies leave.
        statements.extend(views.iter().map(|view| format!("GRANT SELECT ON {database}.{} TO {user}", quoted(view))));
        statements
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::ClickHouseOptions;

    #[test]
    fn names_and_tenants_are_quoted_and_policies_stand_before_what_they_protect() {
        let server = ClickHouse::new(ClickHouseOptions {
            url: "http://127.0.0.1:1".to_owned(),
            user: "weir".to_owned(),
            password: String::new(),
            database: "weir".to_owned(),
            cluster: None,
            ttl_days: 0,
            settings: std::collections::BTreeMap::new(),
            insert_interval: std::time::Duration::ZERO,
        });
        let filter = format!("tenant = {}", literal("O'Hara' OR 1=1 --"));
        assert_eq!(filter, "tenant = 'O\\'Hara\\' OR 1=1 --'");
        let policies = [Policy { table: "odd`name".to_owned(), filter }];
        let statements = server.grants("weir_tenant_x", "it's", &policies, &["analytics_events".to_owned()]);
        assert!(statements[1].contains("BY 'it\\'s' DEFAULT ROLE `weir_tenants`"), "{statements:?}");
        let at = |part: &str| statements.iter().position(|sql| sql.contains(part)).unwrap();
        let table = "`weir`.`odd\\`name`";
        assert!(at(&format!("`weir_tenant_x` ON {table} USING tenant")) < at(&format!("GRANT SELECT ON {table}")));
        assert!(at("GRANT SELECT ON `weir`.`odd") < at("GRANT SELECT ON `weir`.`analytics_events`"));
        assert!(at("TO ALL EXCEPT `weir_tenants`") < at("USING tenant"));
    }
}
