//! The certificate that clients are shown.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use weir_engine::BoxError;

/// What it calls itself to clients that begin with TLS at once (RFC 7301): Postgres' registered name.
const PROTOCOL: &[u8] = b"postgresql";

/// A certificate and its key in two files.
pub(crate) struct Certificate {
    files: [PathBuf; 2],
    seen: [Vec<u8>; 2],
    shown: Shown,
}

/// What a connection shows.
#[derive(Clone)]
pub(crate) struct Shown {
    pub(crate) acceptor: TlsAcceptor,
    /// In PEM: what clients bind their password to (RFC 5929, `tls-server-end-point`).
    pub(crate) pem: Arc<[u8]>,
}

impl Certificate {
    pub(crate) fn read(certificate: &Path, key: &Path) -> Result<Self, BoxError> {
        let files = [certificate.to_owned(), key.to_owned()];
        let seen = contents(&files)?;
        let shown = Shown::of(&seen).map_err(|e| format!("{} and {}: {e}", files[0].display(), files[1].display()))?;
        Ok(Self { files, seen, shown })
    }

    /// Takes up what the files hold now. What does not fit leaves the certificate before in use, with a word.
    pub(crate) fn renew(&mut self) {
        let Ok(now) = contents(&self.files) else { return };
        if now == self.seen {
            return;
        }
        match Shown::of(&now) {
            Ok(shown) => self.shown = shown,
            Err(error) => tracing::warn!(error, "the new certificate for SQL does not fit; the one before stays"),
        }
        self.seen = now;
    }

    pub(crate) fn shown(&self) -> Shown {
        self.shown.clone()
    }
}

fn contents(files: &[PathBuf; 2]) -> io::Result<[Vec<u8>; 2]> {
    let read =
        |path: &Path| std::fs::read(path).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())));
    Ok([read(&files[0])?, read(&files[1])?])
}

impl Shown {
    fn of(contents: &[Vec<u8>; 2]) -> Result<Self, BoxError> {
        let certificates = CertificateDer::pem_slice_iter(&contents[0]).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(&contents[1])?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config = builder.with_no_client_auth().with_single_cert(certificates, key)?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), pem: contents[0].as_slice().into() })
    }
}
