//! `weir token create|list|revoke`

use std::process::ExitCode;

use serde_json::json;
use weir_engine::BoxError;
use weir_postgres::tokens::{self, Scope};

use super::new_tenant;
use crate::attached::{Attached, Target};
use crate::output::{Format, Listing, complain, say};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Token {
    /// Make a token and show it, once
    Create {
        /// Whose data it opens
        #[arg(long, default_value = "default")]
        tenant: String,
        /// What it is for
        #[arg(long, default_value = "")]
        name: String,
        /// What it allows: over HTTP command, read, admin; of SQL over history sql (its tenant's rows), operator (every tenant's)
        #[arg(long, value_delimiter = ',', default_value = "command,read")]
        scopes: Vec<Scope>,
    },
    /// Show all tokens, without their secrets
    List,
    /// End a token
    Revoke {
        /// Its id, the part between the underscores
        id: String,
    },
}

pub(crate) async fn run(target: &Target, command: Token, format: Format) -> Result<ExitCode, BoxError> {
    let attached = target.attach().await?;
    let done = work(&attached, command, format).await;
    attached.detach().await?;
    done
}

async fn work(attached: &Attached, command: Token, format: Format) -> Result<ExitCode, BoxError> {
    let client = attached.database.get().await?;
    match command {
        Token::Create { tenant, name, scopes } => {
            let token = tokens::create(&**client, &new_tenant(tenant)?, &name, &scopes).await?;
            match format {
                Format::Json => say(&json!({"token": token}).to_string())?,
                Format::Table | Format::Csv => say(&token)?,
            }
            complain("keep it: it cannot be shown again");
        }
        Token::List => {
            let mut rows = Listing::new(&["id", "tenant", "name", "scopes", "created_at", "revoked_at"]);
            for t in tokens::list(&**client).await? {
                rows.rows.push(vec![
                    json!(t.id),
                    json!(t.tenant),
                    json!(t.name),
                    json!(t.scopes.join(",")),
                    json!(t.created_at.to_string()),
                    json!(t.revoked_at.map(|at| at.to_string())),
                ]);
            }
            rows.print(format)?;
        }
        Token::Revoke { id } => {
            if !tokens::revoke(&**client, &id).await? {
                return Err(
                    format!("there is no token {id} that is not revoked yet; `weir token list` shows all").into()
                );
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
