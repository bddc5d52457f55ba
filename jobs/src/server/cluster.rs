//! The files of the embedded server's cluster: who may connect, by what, and its certificate.

use std::fs::File;
use std::io;
use std::os::unix::fs::fchown;
use std::path::Path;

use openssl::error::ErrorStack;

use weir_postgres::tenants::GROUP;

use super::{OWNER, SUPERUSER, ServerError, io_error};
use crate::data_dir::write_bytes;
use crate::self_signed;

/// weir itself comes through the socket in the cluster's own directory, which is its user's alone. Readers may come by TCP: encrypted, and
/// never by a password that travels.
fn host_based_access() -> String {
    format!(
        "# Written by weir whenever it starts the server.\n\
         local   postgres {SUPERUSER},{OWNER} scram-sha-256\n\
         hostssl postgres +weir_reader,+{GROUP} 127.0.0.1/32 scram-sha-256\n"
    )
}

/// What the server reads at its start.
pub(super) fn prepare(cluster: &Path, owner: Option<(u32, u32)>) -> Result<(), ServerError> {
    let give = |file: &File| owner.map_or(Ok(()), |(uid, gid)| fchown(file, Some(uid), Some(gid)));
    let write = |name: &str, bytes: &[u8]| write_bytes(&cluster.join(name), bytes, give);
    write("pg_hba.conf", host_based_access().as_bytes())?;
    if !cluster.join("server.key").exists() || !cluster.join("server.crt").exists() {
        let failed = |error: ErrorStack| io_error("making a certificate")(io::Error::other(error));
        let (certificate, key) = self_signed::certificate("weir's embedded Postgres").map_err(failed)?;
        write("server.crt", &certificate)?;
        write("server.key", &key)?;
    }
    Ok(())
}
