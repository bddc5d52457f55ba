//! What went wrong, in Postgres' codes (its manual's appendix A).

use datafusion::arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion_postgres::pgwire::api::{ClientInfo, ErrorHandler, METADATA_USER};
use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError};

use crate::error::plain;
use crate::tables;

/// What has no code of its own.
const INTERNAL: &str = "XX000";

/// A refusal in our own words.
pub(crate) fn refusal(severity: &str, code: &str, words: &str) -> PgWireError {
    PgWireError::UserError(Box::new(ErrorInfo::new(severity.to_owned(), code.to_owned(), words.to_owned())))
}

/// The code that an error is told by.
pub(crate) fn code(error: &PgWireError) -> &str {
    if let PgWireError::UserError(info) = error {
        return &info.code;
    }
    let PgWireError::ApiError(source) = error else { return INTERNAL };
    source.downcast_ref::<DataFusionError>().map_or(INTERNAL, |found| told(found).0)
}

/// Gives errors of queries their code, and what was meant perhaps.
pub(crate) struct Codes;

impl ErrorHandler for Codes {
    fn on_error<C: ClientInfo>(&self, client: &C, error: &mut PgWireError) {
        if let PgWireError::ApiError(source) = error {
            let (code, words, hint) = match source.downcast_ref::<DataFusionError>() {
                Some(found) => told(found),
                None if source.is::<ParserError>() => ("42601", source.to_string(), None),
                None => (INTERNAL, source.to_string(), None),
            };
            let mut info = ErrorInfo::new("ERROR".to_owned(), code.to_owned(), words);
            info.hint = hint;
            *error = PgWireError::UserError(Box::new(info));
        }
        let user = client.metadata().get(METADATA_USER).map_or("", String::as_str);
        tracing::debug!(user, %error, "a statement failed");
    }
}

/// Code, words and hint.
#[expect(clippy::wildcard_enum_match_arm, reason = "an enum of a library: what it adds later is an internal error")]
fn told(error: &DataFusionError) -> (&'static str, String, Option<String>) {
    let words = plain(error);
    let code = match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => {
            let hint = "a narrower time, fewer groups, or sql.memory_max_bytes";
            return ("53200", words, Some(hint.to_owned()));
        }
        DataFusionError::SQL(..) => "42601",
        DataFusionError::SchemaError(source, _) => match &**source {
            SchemaError::FieldNotFound { .. } => "42703",
            SchemaError::AmbiguousReference { .. } => "42702",
            SchemaError::DuplicateQualifiedField { .. } | SchemaError::DuplicateUnqualifiedField { .. } => "42701",
        },
        DataFusionError::Plan(_) => match tables::missing_table(&words) {
            Some(missing) => {
                let hint = tables::nearest(missing).map(|nearest| format!("Perhaps you meant \"{nearest}\"."));
                return ("42P01", words, hint);
            }
            None => "42000",
        },
        DataFusionError::NotImplemented(_) => "0A000",
        DataFusionError::ArrowError(source, _) => match &**source {
            ArrowError::DivideByZero => "22012",
            ArrowError::CastError(_) | ArrowError::ParseError(_) => "22P02",
            ArrowError::ArithmeticOverflow(_) => "22003",
            _ => "22000",
        },
        DataFusionError::Execution(_) => "22000",
        DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) => "58030",
        _ => INTERNAL,
    };
    (code, words, None)
}
