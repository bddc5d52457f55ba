//! `weir tenant grant|revoke|list`

use std::process::ExitCode;

use postgres_protocol::password::scram_sha_256;
use serde_json::json;
use tokio_postgres::NoTls;
use weir_engine::BoxError;
use weir_model::TenantId;
use weir_postgres::tenants;

use super::new_tenant;
use crate::attached::{Attached, Target};
use crate::output::{Format, Listing, complain, say};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Tenant {
    /// Make a role in Postgres that sees this tenant's rows alone, and show its address, once; again: another password, and the views as they are now
    Grant {
        /// Whose rows
        name: String,
    },
    /// End a tenant's role
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
            if !dropped {
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
    match format {
        Format::Json => say(&json!({"role": role, "url": address, "views": views}).to_string())?,
        Format::Table | Format::Csv => say(&address)?,
    }
    complain(&format!(
        "keep it: it cannot be shown again; {} views in the schema {role}. SQL over history: `weir token create --tenant … --scopes sql`",
        views.len()
    ));
    Ok(())
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
