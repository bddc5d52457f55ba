//! Who may come: a name and what a server keeps of a password (RFC 5802).

use std::fmt;

use async_trait::async_trait;
use datafusion::arrow::record_batch::RecordBatch;
use weir_engine::BoxError;

/// What a login is let in by, and what it sees.
#[derive(Clone)]
pub struct Login {
    /// Whose rows it sees; `None`: everybody's.
    pub tenant: Option<String>,
    /// Of its password.
    pub salt: Vec<u8>,
    /// The password, salted and hashed 4,096 times (RFC 5802, `SaltedPassword`).
    pub salted_password: Vec<u8>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

/// What the server asks its surroundings.
#[async_trait]
pub trait Logins: fmt::Debug + Send + Sync + 'static {
    /// Who comes under this name; `None` for one that is unknown or revoked.
    async fn login(&self, name: &str) -> Result<Option<Login>, BoxError>;

    /// How far each lane is: rows of [`crate::freshness_schema`].
    async fn freshness(&self) -> Result<RecordBatch, BoxError>;
}
