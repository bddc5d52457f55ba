//! The files of the embedded server's cluster: who may connect, by what, and its certificate.

use std::fs::File;
use std::io;
use std::os::unix::fs::fchown;
use std::path::Path;

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509Name};

use super::{OWNER, SUPERUSER, ServerError, io_error};
use crate::data_dir::write_bytes;

/// weir itself comes through the socket in the cluster's own directory, which is its user's alone. Readers may come by TCP: encrypted, and
/// never by a password that travels.
fn host_based_access() -> String {
    format!(
        "# Written by weir whenever it starts the server.\n\
         local   postgres {SUPERUSER},{OWNER} scram-sha-256\n\
         hostssl postgres +weir_reader 127.0.0.1/32 scram-sha-256\n"
    )
}

/// What the server reads at its start.
pub(super) fn prepare(cluster: &Path, owner: Option<(u32, u32)>) -> Result<(), ServerError> {
    let give = |file: &File| owner.map_or(Ok(()), |(uid, gid)| fchown(file, Some(uid), Some(gid)));
    let write = |name: &str, bytes: &[u8]| write_bytes(&cluster.join(name), bytes, give);
    write("pg_hba.conf", host_based_access().as_bytes())?;
    if !cluster.join("server.key").exists() || !cluster.join("server.crt").exists() {
        let failed = |error: ErrorStack| io_error("making a certificate")(io::Error::other(error));
        let (certificate, key) = certificate().map_err(failed)?;
        write("server.crt", &certificate)?;
        write("server.key", &key)?;
    }
    Ok(())
}

/// Signed by no authority: what it is for is channel binding (RFC 5929), with which a client tells whether the server at the other end
/// knows its password, before it says anything.
fn certificate() -> Result<(Vec<u8>, Vec<u8>), ErrorStack> {
    const DAYS: u32 = 20 * 365;
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    let key = PKey::from_ec_key(EcKey::generate(&group)?)?;
    let mut name = X509Name::builder()?;
    name.append_entry_by_nid(Nid::COMMONNAME, "weir's embedded Postgres")?;
    let name = name.build();
    let mut certificate = X509::builder()?;
    certificate.set_version(2)?;
    let mut serial = BigNum::new()?;
    serial.rand(127, openssl::bn::MsbOption::MAYBE_ZERO, false)?;
    let serial = serial.to_asn1_integer()?;
    certificate.set_serial_number(&serial)?;
    certificate.set_subject_name(&name)?;
    certificate.set_issuer_name(&name)?;
    certificate.set_pubkey(&key)?;
    let (now, end) = (Asn1Time::days_from_now(0)?, Asn1Time::days_from_now(DAYS)?);
    certificate.set_not_before(&now)?;
    certificate.set_not_after(&end)?;
    let host = SubjectAlternativeName::new().ip("127.0.0.1").build(&certificate.x509v3_context(None, None))?;
    certificate.append_extension(host)?;
    certificate.sign(&key, MessageDigest::sha256())?;
    Ok((certificate.build().to_pem()?, key.private_key_to_pem_pkcs8()?))
}
