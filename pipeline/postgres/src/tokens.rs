//! Bearer tokens of the API: `weir_ID_SECRET`. Only a hash of the secret is kept. The secret is 256 random bits, so a plain
//! SHA-256 is as good as a slow hash, and faster.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use futures::FutureExt;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio_postgres::GenericClient;
use weir_model::TenantId;

use crate::coalesce::Coalesced;
use crate::database::Database;
use crate::error::{DbError, During, ErrorKind};

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Sending commands and appending events.
    Command,
    /// Reading events, streams and snapshots.
    Read,
    /// Everything of its tenant over HTTP.
    Admin,
    /// SQL over its tenant's history.
    Sql,
    /// SQL over every tenant's history.
    Operator,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Command, Self::Read, Self::Admin, Self::Sql, Self::Operator];

    /// Whether such a token is a login of SQL.
    #[must_use]
    pub fn is_of_sql(self) -> bool {
        matches!(self, Self::Sql | Self::Operator)
    }

    /// As stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Read => "read",
            Self::Admin => "admin",
            Self::Sql => "sql",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|scope| scope.as_str() == name);
        let all = Self::ALL.map(Self::as_str).join(", ");
        found.ok_or_else(|| format!("`{name}` is no scope; there are {all}"))
    }
}

/// Who stands behind a token.
#[derive(Debug, Clone)]
pub struct Principal {
    /// The token's id.
    pub token_id: String,
    /// Whose data it opens.
    pub tenant: TenantId,
    scopes: Vec<Scope>,
}

impl Principal {
    /// Whether the token allows this.
    #[must_use]
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || (self.scopes.contains(&Scope::Admin) && !scope.is_of_sql())
    }
}

/// A token without its secret.
#[derive(Debug, Clone)]
pub struct TokenInfo {
    /// Its id.
    pub id: String,
    /// Whose.
    pub tenant: String,
    /// For people.
    pub name: String,
    /// What it allows.
    pub scopes: Vec<String>,
    /// When it was made.
    pub created_at: jiff::Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<jiff::Timestamp>,
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// Random bytes of a token's name, and of its secret; in a token they stand as hexadecimal digits.
const ID_BYTES: usize = 6;
const SECRET_BYTES: usize = 32;

/// Makes a token and gives its text, which cannot be shown again.
pub async fn create(
    client: &impl GenericClient,
    tenant: &TenantId,
    name: &str,
    scopes: &[Scope],
) -> Result<String, DbError> {
    const SQL: &str = "INSERT INTO api_tokens (id, tenant, name, scopes, secret_hash, scram_salt, scram_salted_password) \
        VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let id = hex::encode(rand::random::<[u8; ID_BYTES]>());
    let secret = hex::encode(rand::random::<[u8; SECRET_BYTES]>());
    let token = format!("weir_{id}_{secret}");
    let scram = match scopes.iter().any(|scope| scope.is_of_sql()) {
        true => Some(Scram::of(&token)?),
        false => None,
    };
    let (salt, salted) =
        (scram.as_ref().map(|s| s.salt.as_slice()), scram.as_ref().map(|s| s.salted_password.as_slice()));
    let scopes: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
    let secret_hash = hash(&secret);
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 7] =
        [&id, &tenant.as_str(), &name, &scopes, &secret_hash.as_slice(), &salt, &salted];
    client.execute(SQL, &values).await.during(MAKING)?;
    Ok(token)
}

const MAKING: &str = "making a token";

/// What SCRAM-SHA-256 needs of a password (RFC 5802 and 7677).
struct Scram {
    salt: [u8; 16],
    salted_password: [u8; 32],
}

impl Scram {
    /// Of a token, whole.
    fn of(token: &str) -> Result<Self, DbError> {
        /// As Postgres itself and its clients have it.
        const ITERATIONS: usize = 4096;
        let (salt, mut salted_password) = (rand::random::<[u8; 16]>(), [0; 32]);
        let sha256 = openssl::hash::MessageDigest::sha256();
        openssl::pkcs5::pbkdf2_hmac(token.as_bytes(), &salt, ITERATIONS, sha256, &mut salted_password)
            .map_err(|e| DbError::new(MAKING, ErrorKind::Permanent, e.to_string()))?;
        Ok(Self { salt, salted_password })
    }
}

/// A token that opens SQL.
#[derive(Debug, Clone)]
pub struct SqlLogin {
    /// Whose rows it sees; `None`: every tenant's.
    pub tenant: Option<String>,
    /// Of the token.
    pub salt: Vec<u8>,
    /// RFC 5802, `SaltedPassword`; the password is the token, whole.
    pub salted_password: Vec<u8>,
}

/// The token of this id, if it opens SQL and was not revoked.
pub async fn sql_login(client: &impl GenericClient, id: &str) -> Result<Option<SqlLogin>, DbError> {
    const ACTION: &str = "looking up a login of SQL";
    const SQL: &str = "SELECT CASE WHEN NOT 'operator' = ANY(scopes) THEN tenant END, scram_salt, scram_salted_password FROM api_tokens \
        WHERE id = $1 AND revoked_at IS NULL AND scram_salt IS NOT NULL AND scopes && ARRAY['sql', 'operator']";
    let Some(row) = client.query_opt(SQL, &[&id]).await.during(ACTION)? else { return Ok(None) };
    let get = |index: usize| row.try_get::<_, Vec<u8>>(index).during(ACTION);
    Ok(Some(SqlLogin { tenant: row.try_get(0).during(ACTION)?, salt: get(1)?, salted_password: get(2)? }))
}

/// A token as it is kept.
#[derive(Clone)]
struct Kept {
    tenant: String,
    scopes: Vec<String>,
    secret_hash: Vec<u8>,
}

/// Tells who stands behind tokens. Asks Postgres each time, so that a token that was revoked is refused at once.
#[derive(Clone)]
pub struct Tokens {
    kept: Coalesced<String, Option<Kept>>,
}

impl Tokens {
    /// Of this database. Call within a runtime.
    #[must_use]
    pub fn new(database: Database) -> Self {
        let kept = Coalesced::start(move |ids| {
            let database = database.clone();
            async move { look_up(&database, &ids).await }.boxed()
        });
        Self { kept }
    }

    /// Who the token belongs to; `None` for anything that is no valid token. Takes the same time for a wrong secret of a
    /// known id wherever it differs.
    pub async fn authenticate(&self, token: &str) -> Result<Option<Principal>, DbError> {
        let Some((id, secret)) = token.strip_prefix("weir_").and_then(|rest| rest.split_once('_')) else {
            return Ok(None);
        };
        // What is no token by its form costs nothing.
        let is_hex = |text: &str, digits| text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_hex(id, 2 * ID_BYTES) || !is_hex(secret, 2 * SECRET_BYTES) {
            return Ok(None);
        }
        let given = hash(secret);
        let Some(kept) = self.kept.get(id.to_owned()).await? else { return Ok(None) };
        if !bool::from(kept.secret_hash.ct_eq(&given)) {
            return Ok(None);
        }
        let broken = |what: String| DbError::new(CHECKING, ErrorKind::Permanent, what);
        Ok(Some(Principal {
            token_id: id.to_owned(),
            tenant: TenantId::new(kept.tenant).map_err(|e| broken(e.to_string()))?,
            scopes: kept.scopes.iter().map(|s| s.parse()).collect::<Result<_, _>>().map_err(broken)?,
        }))
    }
}

impl Tokens {
    /// Whether the token is still there, for what takes longer than a moment.
    pub async fn is_valid(&self, principal: &Principal) -> Result<bool, DbError> {
        Ok(self.kept.get(principal.token_id.clone()).await?.is_some())
    }
}

const CHECKING: &str = "checking a token";

/// The tokens of these ids, in their order.
async fn look_up(database: &Database, ids: &[String]) -> Result<Vec<Option<Kept>>, DbError> {
    const SQL: &str =
        "SELECT id, tenant, scopes, secret_hash FROM api_tokens WHERE id = ANY($1) AND revoked_at IS NULL";
    let client = database.get().await?;
    let statement = client.prepare_cached(SQL).await.during(CHECKING)?;
    let mut found = HashMap::new();
    for row in client.query(&statement, &[&ids]).await.during(CHECKING)? {
        let kept = Kept {
            tenant: row.try_get(1).during(CHECKING)?,
            scopes: row.try_get(2).during(CHECKING)?,
            secret_hash: row.try_get(3).during(CHECKING)?,
        };
        found.insert(row.try_get::<_, String>(0).during(CHECKING)?, kept);
    }
    Ok(ids.iter().map(|id| found.get(id).cloned()).collect())
}

/// Every token, oldest first.
pub async fn list(client: &impl GenericClient) -> Result<Vec<TokenInfo>, DbError> {
    const ACTION: &str = "listing tokens";
    const SQL: &str = "SELECT id, tenant, name, scopes, created_at, revoked_at FROM api_tokens ORDER BY created_at, id";
    let rows = client.query(SQL, &[]).await.during(ACTION)?;
    rows.iter()
        .map(|row| {
            Ok(TokenInfo {
                id: row.try_get(0).during(ACTION)?,
                tenant: row.try_get(1).during(ACTION)?,
                name: row.try_get(2).during(ACTION)?,
                scopes: row.try_get(3).during(ACTION)?,
                created_at: row.try_get(4).during(ACTION)?,
                revoked_at: row.try_get(5).during(ACTION)?,
            })
        })
        .collect()
}

/// Ends a token; `false` when there is no such token, or it was ended before.
pub async fn revoke(client: &impl GenericClient, id: &str) -> Result<bool, DbError> {
    const SQL: &str = "UPDATE api_tokens SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL";
    Ok(client.execute(SQL, &[&id]).await.during("revoking a token")? > 0)
}
