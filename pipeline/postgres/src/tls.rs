//! TLS to Postgres, by the parameters that every Postgres client knows: `sslmode` and `sslrootcert` in the URL (or among the
//! key=value pairs), with libpq's meanings.

use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use postgres_openssl::MakeTlsConnector;
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;

use crate::error::{DbError, During, ErrorKind};

/// What is checked of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    /// Nothing: only listening in is kept out.
    Nothing,
    /// Its certificate.
    Certificate,
    /// Its certificate, and that it is for this host.
    Host,
}

/// Reads a URL or key=value string; gives what the driver understands, and the connector for it.
pub(crate) fn read(given: &str) -> Result<(Config, MakeTlsConnector), DbError> {
    const ACTION: &str = "reading the Postgres URL";
    let wrong = |words: String| DbError::new(ACTION, ErrorKind::Permanent, words);
    let Taken { rest, mode, root } = take(given);
    let mut config: Config = rest.parse::<Config>().during(ACTION)?;
    let mode = mode.unwrap_or_else(|| "prefer".to_owned());
    let (ssl_mode, check) = match (mode.as_str(), &root) {
        ("disable", _) => (SslMode::Disable, Check::Nothing),
        ("allow" | "prefer", _) => (SslMode::Prefer, Check::Nothing),
        // libpq's: where a root certificate is given it is used.
        ("require", None) => (SslMode::Require, Check::Nothing),
        ("require" | "verify-ca", _) => (SslMode::Require, Check::Certificate),
        ("verify-full", _) => (SslMode::Require, Check::Host),
        (other, _) => {
            return Err(wrong(format!("sslmode={other}: write disable, prefer, require, verify-ca or verify-full")));
        }
    };
    config.ssl_mode(ssl_mode);
    let ssl = |e: openssl::error::ErrorStack| wrong(format!("TLS cannot be prepared: {e}"));
    let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(ssl)?;
    if let Some(root) = root.filter(|root| root != "system") {
        builder.set_ca_file(&root).map_err(|e| wrong(format!("sslrootcert={root} cannot be read: {e}")))?;
    }
    if check == Check::Nothing {
        builder.set_verify(SslVerifyMode::NONE);
    }
    let mut connector = MakeTlsConnector::new(builder.build());
    if check != Check::Host {
        connector.set_callback(|configuration, _| {
            configuration.set_verify_hostname(false);
            Ok(())
        });
    }
    Ok((config, connector))
}

#[derive(Debug, PartialEq, Eq)]
struct Taken {
    rest: String,
    mode: Option<String>,
    root: Option<String>,
}

/// Takes the two parameters out, which the driver knows less of or not at all.
fn take(given: &str) -> Taken {
    let (mut mode, mut root) = (None, None);
    let mut is_ours = |name: &str, value: &str| {
        let to = match name {
            "sslmode" => &mut mode,
            "sslrootcert" => &mut root,
            _ => return false,
        };
        *to = Some(value.to_owned());
        true
    };
    let rest = match url::Url::parse(given) {
        Ok(mut url) if url.scheme().starts_with("postgres") => {
            let pairs: Vec<(String, String)> =
                url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
            let left: Vec<_> = pairs.iter().filter(|(name, value)| !is_ours(name, value)).collect();
            if left.len() < pairs.len() {
                url.set_query(None);
                if !left.is_empty() {
                    url.query_pairs_mut().extend_pairs(left);
                }
                url.to_string()
            } else {
                given.to_owned()
            }
        }
        _ => {
            let left = given.split_whitespace().filter(|part| {
                let (name, value) = part.split_once('=').unwrap_or((part, ""));
                !is_ours(name, value.trim_matches('\''))
            });
            let left: Vec<&str> = left.collect();
            if mode.is_none() && root.is_none() { given.to_owned() } else { left.join(" ") }
        }
    };
    Taken { rest, mode, root }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libpqs_parameters_are_taken_out_and_the_rest_stays() {
        let taken = |rest: &str, mode: Option<&str>, root: Option<&str>| Taken {
            rest: rest.to_owned(),
            mode: mode.map(str::to_owned),
            root: root.map(str::to_owned),
        };
        let url = "postgres://me@host:5/db?sslmode=verify-full&application_name=x&sslrootcert=/a/ca.pem";
        let rest = "postgres://me@host:5/db?application_name=x";
        assert_eq!(take(url), taken(rest, Some("verify-full"), Some("/a/ca.pem")));
        assert_eq!(take("postgres://me@host/db"), taken("postgres://me@host/db", None, None));
        assert_eq!(take("host=h sslmode=require user=me"), taken("host=h user=me", Some("require"), None));
        assert_eq!(take("host=h  password='a b'"), taken("host=h  password='a b'", None, None));
    }

    #[test]
    fn a_mode_that_is_none_and_a_file_that_is_not_there_are_named() {
        let refusal = |url: &str| read(url).err().map(|e| weir_engine::retry::chain(&e)).unwrap_or_default();
        assert!(refusal("postgres://h/db?sslmode=sometimes").contains("sslmode=sometimes: write disable"));
        let missing = refusal("postgres://h/db?sslmode=verify-full&sslrootcert=/nonexistent.pem");
        assert!(missing.contains("sslrootcert=/nonexistent.pem cannot be read"), "{missing}");
        assert!(read("postgres://h/db?sslmode=require").is_ok());
    }
}
