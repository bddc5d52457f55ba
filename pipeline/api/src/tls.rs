//! TLS of the HTTP side: a certificate and its key from two files, read again when they change. A renewal that does not fit leaves the
//! certificate before in use, with a word.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use openssl::asn1::Asn1Time;
use openssl::x509::X509;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

/// How often the files are looked at.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(2);

/// Protocols by their names in ALPN (RFC 7301), the preferred one first.
const PROTOCOLS: [&[u8]; 2] = [HTTP_2, b"http/1.1"];

/// HTTP/2 (RFC 9113, 3.2).
pub(crate) const HTTP_2: &[u8] = b"h2";

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It does not hold what it should.
    #[error("{path}: no {what} in PEM form: {source}")]
    Empty {
        /// Which.
        path: String,
        /// What it should hold.
        what: &'static str,
        /// Why not.
        source: pem::Error,
    },
    /// The two do not belong together, or cannot be used.
    #[error("{certificate} and {key} do not go together: {source}")]
    Unfit {
        /// The certificate's file.
        certificate: String,
        /// The key's file.
        key: String,
        /// Why.
        source: rustls::Error,
    },
}

/// A certificate that is renewed.
#[derive(Clone)]
pub struct Tls {
    files: Files,
    provider: Arc<CryptoProvider>,
    current: Arc<Current>,
    /// What the files held.
    seen: Arc<[Vec<u8>; 2]>,
    acceptor: TlsAcceptor,
}

#[derive(Clone)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// What connections that begin now are shown.
struct Current(RwLock<Arc<CertifiedKey>>);

impl Current {
    /// Until when its certificate holds, in seconds since 1970.
    fn end(&self) -> Option<f64> {
        let certified = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        let certificate = X509::from_der(certified.cert.first()?).ok()?;
        let span = Asn1Time::from_unix(0).ok()?.diff(certificate.not_after()).ok()?;
        Some(f64::from(span.days) * 86_400.0 + f64::from(span.secs))
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current")
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl Tls {
    /// From a PEM file with the certificate and those between it and its authority, and one with its key.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let files = Files { certificate: certificate.to_owned(), key: key.to_owned() };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let seen = Arc::new(files.contents()?);
        let current = Arc::new(Current(RwLock::new(files.certified(&seen, &provider)?)));
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let unfit = |source| files.unfit(source);
        let mut config = builder.map_err(unfit)?.with_no_client_auth().with_cert_resolver(current.clone());
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(Self { files, provider, current, seen, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    pub(crate) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// Reads the files again whenever they have changed. Never ends.
    pub(crate) async fn renew(self) {
        let (mut seen, mut said) = (Some(self.seen.as_ref().clone()), String::new());
        loop {
            // Said again and again, since a gauge that was not set for a while is not shown.
            metrics::gauge!("weir_tls_renewal_failing").set(if said.is_empty() { 0.0 } else { 1.0 });
            if let Some(end) = self.current.end() {
                metrics::gauge!("weir_tls_certificate_end_timestamp_seconds").set(end);
            }
            tokio::time::sleep(RENEWAL_INTERVAL).await;
            let contents = self.files.contents();
            if contents.as_ref().ok() == seen.as_ref() {
                continue;
            }
            match contents.and_then(|contents| Ok((self.files.certified(&contents, &self.provider)?, contents))) {
                Ok((certified, contents)) => {
                    *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = certified;
                    tracing::info!(certificate = %self.files.certificate.display(), "the certificate was renewed");
                    (seen, said) = (Some(contents), String::new());
                }
                // One file may be new and the other not yet.
                Err(error) => {
                    let words = error.to_string();
                    if words != said {
                        tracing::warn!(error = words, "the certificate is not renewed; the one before stays in use");
                        said = words;
                    }
                }
            }
        }
    }
}

impl Files {
    fn contents(&self) -> Result<[Vec<u8>; 2], TlsError> {
        let read = |path: &Path| {
            fs::read(path).map_err(|source| TlsError::Unreadable { path: path.display().to_string(), source })
        };
        Ok([read(&self.certificate)?, read(&self.key)?])
    }

    fn certified(
        &self,
        [certificate, key]: &[Vec<u8>; 2],
        provider: &CryptoProvider,
    ) -> Result<Arc<CertifiedKey>, TlsError> {
        let empty = |path: &Path, what, source| TlsError::Empty { path: path.display().to_string(), what, source };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<_, _>>()
            .and_then(|chain: Vec<_>| if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) })
            .map_err(|source| empty(&self.certificate, "certificate", source))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|source| empty(&self.key, "private key", source))?;
        Ok(Arc::new(CertifiedKey::from_der(chain, key, provider).map_err(|source| self.unfit(source))?))
    }

    fn unfit(&self, source: rustls::Error) -> TlsError {
        let [certificate, key] = [&self.certificate, &self.key].map(|path| path.display().to_string());
        TlsError::Unfit { certificate, key, source }
    }
}
