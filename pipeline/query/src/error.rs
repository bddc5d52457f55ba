//! Why a query has no answer.

use datafusion::error::DataFusionError;
use weir_history::HistoryError;

use crate::tables;

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The history table.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// DataFusion; for bad SQL its words hold line and column.
    #[error("{}", plain(.0))]
    Sql(#[from] DataFusionError),
    /// There is no such table, but one of nearly the same name.
    #[error("{}; did you mean `{nearest}`?", plain(.source))]
    Table {
        /// DataFusion's words.
        source: DataFusionError,
        /// The table that was meant, perhaps.
        nearest: String,
    },
}

/// The words without their layers, and where in the query; the parser's own words say it already.
pub(crate) fn plain(error: &DataFusionError) -> String {
    let words = error.strip_backtrace();
    match error.diagnostic().and_then(|diagnostic| diagnostic.span) {
        Some(span) => format!("{words} (line {}, column {})", span.start.line, span.start.column),
        None => words,
    }
}

/// For columns DataFusion suggests one by itself.
pub(crate) fn suggesting(source: DataFusionError) -> QueryError {
    let words = source.strip_backtrace();
    match tables::missing_table(&words).and_then(tables::nearest) {
        Some(nearest) => QueryError::Table { source, nearest },
        None => source.into(),
    }
}
