//! The login of a connection: by SCRAM (RFC 5802), bound to the channel (RFC 5929).

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion_postgres::pgwire::api::auth::sasl::SASLAuthStartupHandler;
use datafusion_postgres::pgwire::api::auth::sasl::scram::ScramAuth;
use datafusion_postgres::pgwire::api::auth::{
    AuthSource, DefaultServerParameterProvider, LoginInfo, Password, ServerParameterProvider, StartupHandler,
};
use datafusion_postgres::pgwire::api::{ClientInfo, PgWireConnectionState};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use futures::Sink;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::certificate;
use super::errors::refusal;
use super::shared::Shared;

/// The login of one connection, known once its password has been seen to be right.
pub(crate) struct Door {
    sasl: SASLAuthStartupHandler<Parameters>,
    /// Cancelled once the login is through.
    entered: CancellationToken,
}

/// The name that a connection gave last, and whose rows are seen under it: it is that one's password that is asked for.
#[derive(Default, Debug)]
pub(crate) struct Found(Mutex<Option<(String, Option<String>)>>);

impl Found {
    pub(crate) fn get(&self) -> Option<(String, Option<String>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, found: Option<(String, Option<String>)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }
}

impl Door {
    pub(crate) fn new(
        shared: Arc<Shared>,
        found: Arc<Found>,
        shown: &certificate::Shown,
        entered: CancellationToken,
    ) -> PgWireResult<Self> {
        let mut scram = ScramAuth::new(Arc::new(Source { shared, found }));
        scram.configure_certificate(&shown.pem)?;
        Ok(Self { sasl: SASLAuthStartupHandler::new(Arc::new(Parameters)).with_scram(scram), entered })
    }
}

#[async_trait]
impl StartupHandler for Door {
    async fn on_startup<C>(&self, client: &mut C, message: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: fmt::Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if !client.is_secure() {
            return Err(refusal("FATAL", "28000", "only encrypted connections are taken: sslmode=require, or more"));
        }
        self.sasl.on_startup(client, message).await?;
        if matches!(client.state(), PgWireConnectionState::ReadyForQuery) {
            self.entered.cancel();
        }
        Ok(())
    }
}

/// What a server says of itself, where it differs from the library's.
struct Parameters;

impl ServerParameterProvider for Parameters {
    fn server_parameters<C: ClientInfo>(&self, client: &C) -> Option<HashMap<String, String>> {
        let mut parameters = DefaultServerParameterProvider::default().server_parameters(client)?;
        let ours = [("is_superuser", "off"), ("default_transaction_read_only", "on"), ("TimeZone", "UTC")];
        parameters.extend(ours.map(|(name, value)| (name.to_owned(), value.to_owned())));
        Some(parameters)
    }
}

struct Source {
    shared: Arc<Shared>,
    found: Arc<Found>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

#[async_trait]
impl AuthSource for Source {
    async fn get_password(&self, login: &LoginInfo) -> PgWireResult<Password> {
        let name = login.user().unwrap_or_default();
        self.found.set(None);
        let known = self.shared.logins.login(name).await.map_err(|error| {
            tracing::warn!(error = error.to_string(), "who a client is cannot be looked up");
            self.shared.seen.is(Some("logins cannot be looked up: Postgres does not answer"));
            refusal("FATAL", "57P03", "who you are cannot be looked up: Postgres does not answer; try again")
        })?;
        let Some(known) = known else {
            // As for a known one, so that an answer does not tell which names there are: a salt that stays, and no password.
            let salt: [u8; 32] = Sha256::new().chain_update(self.shared.decoy).chain_update(name).finalize().into();
            return Ok(Password::new(Some(salt[..16].to_vec()), rand::random::<[u8; 32]>().to_vec()));
        };
        // Used once the password has been seen to be right: no statement is taken before.
        self.found.set(Some((name.to_owned(), known.tenant.clone())));
        Ok(Password::new(Some(known.salt), known.salted_password))
    }
}
