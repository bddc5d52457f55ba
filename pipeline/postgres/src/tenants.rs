//! A role in Postgres for each tenant that is granted one: it sees that tenant's rows alone.
//!
//! A schema of the role's own has a view of each table that readers may read and that says whose a row is. Tables themselves are not touched:
//! row-level security on them would bind every reader, also those that are no tenant's, and keep their conditions from being used early.

use tokio_postgres::{Error, GenericClient};
use weir_model::TenantId;

use crate::error::{DbError, During};

/// What all tenants' roles are members of; who may connect is written with it.
pub const GROUP: &str = "weir_tenants";

/// Connections that one tenant's role may hold.
const CONNECTIONS_MAX: u32 = 10;

/// How the comment on a role begins that says whose it is.
const COMMENT: &str = "weir tenant ";

/// The role of a tenant, and its schema: readable where the tenant's name can be part of a name in SQL, else a hash.
#[must_use]
pub fn role_of(tenant: &TenantId) -> String {
    const LENGTH_MAX: usize = 40;
    let name = tenant.as_str();
    let is_plain =
        name.len() <= LENGTH_MAX && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if is_plain {
        return format!("weir_tenant_{name}");
    }
    use sha2::{Digest, Sha256};
    format!("weir_tenant_x{}", &hex::encode(Sha256::digest(name.as_bytes()))[..24])
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Makes the role, or gives it another password. `verifier` is what a server keeps of it (RFC 5803), which lets no one in. The client must be
/// allowed to make roles.
pub async fn make_role(client: &impl GenericClient, tenant: &TenantId, verifier: &str) -> Result<(), DbError> {
    let role = role_of(tenant);
    let (name, comment) = (quoted(&role), quoted(&format!("{COMMENT}{}", tenant.as_str())));
    let sql = format!(
        "DO $$ DECLARE name text; BEGIN \
           FOREACH name IN ARRAY ARRAY['{GROUP}', {name}] LOOP \
             IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN EXECUTE format('CREATE ROLE %I NOLOGIN', name); END IF; \
           END LOOP; END $$; \
         ALTER ROLE {role} LOGIN CONNECTION LIMIT {CONNECTIONS_MAX} PASSWORD {}; \
         GRANT {GROUP} TO {role}; \
         ALTER ROLE {role} SET default_transaction_read_only = on; \
         ALTER ROLE {role} SET statement_timeout = '60s'; \
         ALTER ROLE {role} SET idle_in_transaction_session_timeout = '60s'; \
         ALTER ROLE {role} SET lock_timeout = '5s'; \
         ALTER ROLE {role} SET temp_file_limit = '1GB'; \
         ALTER ROLE {role} SET search_path = {role}; \
         COMMENT ON ROLE {role} IS {comment}",
        quoted(verifier)
    );
    client.batch_execute(&sql).await.during("making a tenant's role")
}

/// Makes the tenant's schema and its views, as they are to be now. Returns the views' names.
pub async fn make_views(client: &impl GenericClient, tenant: &TenantId) -> Result<Vec<String>, DbError> {
    const ACTION: &str = "making a tenant's views";
    const TABLES: &str = "SELECT c.relname::text, quote_ident(c.relname) FROM pg_class c \
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant' AND NOT a.attisdropped \
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm') \
          AND has_table_privilege('weir_reader', c.oid, 'SELECT') AND has_table_privilege(c.oid, 'SELECT') ORDER BY 1";
    let role = role_of(tenant);
    let rows = client.query(TABLES, &[]).await.during(ACTION)?;
    let tables: Vec<(String, String)> =
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, Error>>().during(ACTION)?;
    let is = quoted(tenant.as_str());
    let views: String = tables
        .iter()
        .map(|(_, table)| {
            format!(
                "CREATE VIEW {role}.{table} WITH (security_barrier) AS SELECT * FROM public.{table} WHERE tenant = {is}; \
                 GRANT SELECT ON {role}.{table} TO {role}; "
            )
        })
        .collect();
    // Statements of one message are one transaction: who reads meanwhile waits, and finds the views again.
    let sql = format!(
        "DROP SCHEMA IF EXISTS {role} CASCADE; CREATE SCHEMA {role}; GRANT USAGE ON SCHEMA {role} TO {role}; {views}"
    );
    client.batch_execute(&sql).await.during(ACTION)?;
    Ok(tables.into_iter().map(|(table, _)| table).collect())
}

/// Takes the views away.
pub async fn drop_views(client: &impl GenericClient, tenant: &TenantId) -> Result<(), DbError> {
    let sql = format!("DROP SCHEMA IF EXISTS {} CASCADE", role_of(tenant));
    client.batch_execute(&sql).await.during("dropping a tenant's views")
}

/// Ends the role and what it has open; `false` where there was none. The views must be gone before.
pub async fn drop_role(client: &impl GenericClient, tenant: &TenantId) -> Result<bool, DbError> {
    const ACTION: &str = "dropping a tenant's role";
    let role = role_of(tenant);
    let there = client.query_opt("SELECT FROM pg_roles WHERE rolname = $1", &[&role]).await.during(ACTION)?.is_some();
    if there {
        let sql = format!(
            "ALTER ROLE {role} NOLOGIN; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = {}; DROP ROLE {role}",
            quoted(&role)
        );
        client.batch_execute(&sql).await.during(ACTION)?;
    }
    Ok(there)
}

/// Each tenant that has a role, and the role.
pub async fn list(client: &impl GenericClient) -> Result<Vec<(String, String)>, DbError> {
    const ACTION: &str = "listing tenants' roles";
    const SQL: &str = "SELECT shobj_description(oid, 'pg_authid'), rolname::text FROM pg_roles \
        WHERE rolname LIKE 'weir\\_tenant\\_%' AND rolcanlogin ORDER BY 2";
    let rows = client.query(SQL, &[]).await.during(ACTION)?;
    let found = rows.iter().map(|row| {
        let comment: Option<String> = row.try_get(0).during(ACTION)?;
        let tenant = comment.as_deref().and_then(|words| words.strip_prefix(COMMENT)).unwrap_or("?").to_owned();
        Ok((tenant, row.try_get(1).during(ACTION)?))
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_readable_or_a_hash_and_never_more_than_a_name() {
        let role = |name: &str| role_of(&TenantId::new(name.to_owned()).unwrap());
        assert_eq!(role("school_1"), "weir_tenant_school_1");
        for odd in ["School", "a b", "x'; DROP ROLE weir_owner; --", "ä", &"a".repeat(64)] {
            let role = role(odd);
            assert!(role.len() < 63 && role.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{role}");
        }
        assert_ne!(role("School"), role("SCHOOL"));
    }
}
