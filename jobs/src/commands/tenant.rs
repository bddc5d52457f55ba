//! `weir tenant grant|revoke|list`

use std::process::ExitCode;

use postgres_protocol::password::scram_sha_256;
use serde_json::json;
use tokio_postgres::NoTls;
use url::Url;
use weir_engine::BoxError;
use weir_model::TenantId;
use weir_postgres::tenants;

use super::new_tenant;
use crate::attached::{Attached, Target};
use crate::output::{Format, Listing, complain, say};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Tenant {
    /// Make a role in Postgres, and with clickhouse.url a user there, that see this tenant's rows alone, and show their addresses, once; again:
    /// another password, and the views and tables as they are now
    Grant {
        /// Whose rows
        name: String,
    },
    /// End a tenant's role and user
    Revoke {
        /// Whose
        name: String,
    },
    /// Show which tenants have a role
    List,
}

pub(crate) async fn run(target: &Target, command: Tenant, format: Format) -> Result<ExitCode, BoxError> {
    let attached = target.attach().await?;
    let done = work(&attached, command, format).await;
    attached.detach().await?;
    done
}

async fn work(attached: &Attached, command: Tenant, format: Format) -> Result<ExitCode, BoxError> {
    match command {
        Tenant::Grant { name } => grant(attached, &new_tenant(name)?, format).await?,
        Tenant::Revoke { name } => {
            let tenant = new_tenant(name)?;
            tenants::drop_views(&**attached.database.get().await?, &tenant).await?;
            let dropped = with_roles(attached, async |client| Ok(tenants::drop_role(client, &tenant).await?)).await?;
            let gone = match attached.settings.clickhouse.server() {
                Some(server) => server.revoke(&tenant, &tenants::role_of(&tenant)).await?,
                None => false,
            };
            if !dropped && !gone {
                let words = format!("the tenant {} has no role; `weir tenant list` shows which have", tenant.as_str());
                return Err(words.into());
            }
        }
        Tenant::List => {
            let mut rows = Listing::new(&["tenant", "role"]);
            for (tenant, role) in tenants::list(&**attached.database.get().await?).await? {
                rows.rows.push(vec![json!(tenant), json!(role)]);
            }
            rows.print(format)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn grant(attached: &Attached, tenant: &TenantId, format: Format) -> Result<(), BoxError> {
    let password = format!("{:032x}", rand::random::<u128>());
    let verifier = scram_sha_256(password.as_bytes());
    with_roles(attached, async |client| Ok(tenants::make_role(client, tenant, &verifier).await?)).await?;
    let views = tenants::make_views(&**attached.database.get().await?, tenant).await?;
    let role = tenants::role_of(tenant);
    let address = match &attached.server {
        Some(server) => server.url_by_tcp(&role, &password),
        None => format!("postgres://{role}:{password}@HOST/DATABASE"),
    };
    let clickhouse = of_clickhouse(attached, tenant, &role, &password).await;
    let shown = clickhouse.as_ref().ok().and_then(Option::as_ref);
    match format {
        Format::Json => {
            let clickhouse = shown.map(|(url, tables)| json!({"url": url, "tables": tables}));
            say(&json!({"role": role, "url": address, "views": views, "clickhouse": clickhouse}).to_string())?;
        }
        Format::Table | Format::Csv => {
            say(&address)?;
            shown.map_or(Ok(()), |(url, _)| say(url))?;
        }
    }
    complain(&format!(
        "keep it: it cannot be shown again; {} views in the schema {role}. SQL over history: `weir token create --tenant … --scopes sql`",
        views.len()
    ));
    clickhouse
        .map(|_| ())
        .map_err(|error| format!("the role in Postgres is made, no user of ClickHouse: {error}").into())
}

/// The tenant's user in ClickHouse, if there is one: its address, and the tables of which it sees rows.
async fn of_clickhouse(
    attached: &Attached,
    tenant: &TenantId,
    user: &str,
    password: &str,
) -> Result<Option<(String, Vec<String>)>, BoxError> {
    let Some(server) = attached.settings.clickhouse.server() else { return Ok(None) };
    let policies = server.grant(tenant, user, password).await?;
    let mut url = Url::parse(&attached.settings.clickhouse.url)?;
    // Of a URL with a host both can be set.
    let is_set = url.set_username(user).is_ok() && url.set_password(Some(password)).is_ok();
    url.query_pairs_mut().append_pair("database", &attached.settings.clickhouse.database);
    let tables = policies.into_iter().map(|policy| policy.table).collect();
    Ok(is_set.then(|| (url.to_string(), tables)))
}

/// A connection that may make roles: the embedded server's superuser, or the one of `postgres.url`.
async fn with_roles<T>(
    attached: &Attached,
    work: impl AsyncFnOnce(&tokio_postgres::Client) -> Result<T, BoxError>,
) -> Result<T, BoxError> {
    let Some(server) = &attached.server else {
        let client = attached.database.get().await?;
        return work(&client)
            .await
            .map_err(|error| format!("{error}; the role of postgres.url makes roles if it has CREATEROLE").into());
    };
    let (client, connection) = tokio_postgres::connect(&server.superuser_url()?, NoTls).await?;
    let driving = tokio::spawn(connection);
    let done = work(&client).await;
    drop(client);
    driving.await??;
    done
}
