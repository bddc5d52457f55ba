//! Certificates of the tests' own.

use std::fs;
use std::path::{Path, PathBuf};

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509NameBuilder};
use tempfile::TempDir;

/// An authority, and a server's certificate by it, as PEM files that everybody may read.
pub struct Certificates {
    dir: TempDir,
}

impl Certificates {
    /// For a server that is reached under this address or name.
    #[must_use]
    pub fn make(host: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::Builder::new().prefix("weir-tls-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (authority_key, server_key) = (key(), key());
        let authority = certificate("weir's tests", &authority_key, None, None);
        let server = certificate(host, &server_key, Some((&authority, &authority_key)), Some(host));
        let made = Self { dir };
        fs::write(made.root(), authority.to_pem().unwrap()).unwrap();
        fs::write(made.certificate(), server.to_pem().unwrap()).unwrap();
        fs::write(made.key(), server_key.private_key_to_pem_pkcs8().unwrap()).unwrap();
        made
    }

    /// Where they are.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The authority's certificate.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.path().join("root.pem")
    }

    /// The server's certificate.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.path().join("server.pem")
    }

    /// The server's key.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.path().join("server.key")
    }
}

fn key() -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap()
}

fn certificate(name: &str, key: &PKey<Private>, issuer: Option<(&X509, &PKey<Private>)>, host: Option<&str>) -> X509 {
    let mut subject = X509NameBuilder::new().unwrap();
    subject.append_entry_by_text("CN", name).unwrap();
    let subject = subject.build();
    let mut builder = X509Builder::new().unwrap();
    builder.set_version(2).unwrap();
    let mut serial = BigNum::new().unwrap();
    serial.rand(64, openssl::bn::MsbOption::MAYBE_ZERO, false).unwrap();
    builder.set_serial_number(&serial.to_asn1_integer().unwrap()).unwrap();
    builder.set_subject_name(&subject).unwrap();
    builder.set_issuer_name(issuer.map_or(&*subject, |(issuer, _)| issuer.subject_name())).unwrap();
    builder.set_pubkey(key).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(30).unwrap()).unwrap();
    match host {
        None => builder.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap(),
        Some(host) => {
            let mut names = SubjectAlternativeName::new();
            if host.parse::<std::net::IpAddr>().is_ok() {
                names.ip(host)
            } else {
                names.dns(host)
            };
            let names = names.build(&builder.x509v3_context(issuer.map(|(issuer, _)| &**issuer), None)).unwrap();
            builder.append_extension(names).unwrap();
        }
    }
    builder.sign(issuer.map_or(key, |(_, key)| key), MessageDigest::sha256()).unwrap();
    builder.build()
}
