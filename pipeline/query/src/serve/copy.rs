//! `COPY (query) TO STDOUT`, which `\\copy` of psql and the copying of drivers send.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::ParamValues;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::{
    CopyLegacyCsvOption, CopyLegacyOption, CopyOption, CopySource, CopyTarget, Statement,
};
use datafusion_postgres::QueryHook;
use datafusion_postgres::arrow_pg::datatypes::arrow_schema_to_pg_fields;
use datafusion_postgres::arrow_pg::encoder::encode_value;
use datafusion_postgres::hooks::HookClient;
use datafusion_postgres::pgwire::api::ClientInfo;
use datafusion_postgres::pgwire::api::portal::Format;
use datafusion_postgres::pgwire::api::results::{
    CopyCsvOptions, CopyEncoder, CopyResponse, CopyTextOptions, FieldInfo, Response,
};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::copy::CopyData;
use futures::{StreamExt, stream};

use super::errors::refusal;
use super::passing::no_rows;

/// Answers `COPY … TO STDOUT`.
#[derive(Debug)]
pub(crate) struct CopyOut;

/// What was asked for.
#[derive(Default)]
struct Asked {
    is_csv: bool,
    has_header: bool,
    delimiter: Option<char>,
    null: Option<String>,
    quote: Option<char>,
    escape: Option<char>,
}

impl Asked {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "an enum of a library: what it adds later is not known here either"
    )]
    fn read(options: &[CopyOption], legacy: &[CopyLegacyOption]) -> PgWireResult<Self> {
        let mut asked = Self::default();
        let unknown = |what: &str| Err(refusal("ERROR", "0A000", &format!("COPY here does not know {what}")));
        for option in options {
            match option {
                CopyOption::Format(format) => match format.value.to_lowercase().as_str() {
                    "csv" => asked.is_csv = true,
                    "text" => asked.is_csv = false,
                    other => return unknown(&format!("the format {other}: there are text and csv")),
                },
                CopyOption::Header(header) => asked.has_header = *header,
                CopyOption::Delimiter(c) => asked.delimiter = Some(*c),
                CopyOption::Null(null) => asked.null = Some(null.clone()),
                CopyOption::Quote(c) => asked.quote = Some(*c),
                CopyOption::Escape(c) => asked.escape = Some(*c),
                CopyOption::Encoding(name) if matches!(name.to_lowercase().as_str(), "utf8" | "utf-8") => {}
                other => return unknown(&other.to_string()),
            }
        }
        for option in legacy {
            match option {
                CopyLegacyOption::Csv(of_csv) => {
                    asked.is_csv = true;
                    for option in of_csv {
                        match option {
                            CopyLegacyCsvOption::Header => asked.has_header = true,
                            CopyLegacyCsvOption::Quote(c) => asked.quote = Some(*c),
                            CopyLegacyCsvOption::Escape(c) => asked.escape = Some(*c),
                            other => return unknown(&other.to_string()),
                        }
                    }
                }
                CopyLegacyOption::Header => asked.has_header = true,
                CopyLegacyOption::Delimiter(c) => asked.delimiter = Some(*c),
                CopyLegacyOption::Null(null) => asked.null = Some(null.clone()),
                other => return unknown(&other.to_string()),
            }
        }
        Ok(asked)
    }

    fn encoder(&self, fields: Arc<Vec<FieldInfo>>) -> CopyEncoder {
        let one = |c: Option<char>, otherwise: &str| c.map_or_else(|| otherwise.to_owned(), |c| c.to_string());
        if self.is_csv {
            let quote = one(self.quote, "\"");
            CopyEncoder::new_csv(
                fields,
                CopyCsvOptions {
                    delimiter: one(self.delimiter, ",").into(),
                    escape: one(self.escape, &quote).into(),
                    quote: quote.into(),
                    null_string: self.null.as_deref().unwrap_or("").into(),
                    force_quote: Vec::new(),
                },
            )
        } else {
            let null_string = self.null.as_deref().unwrap_or("\\N").into();
            CopyEncoder::new_text(fields, CopyTextOptions { delimiter: one(self.delimiter, "\t").into(), null_string })
        }
    }

    /// The columns' names as a row.
    fn header(&self, fields: &Arc<Vec<FieldInfo>>) -> PgWireResult<Option<CopyData>> {
        if !self.has_header {
            return Ok(None);
        }
        let text = |field: &FieldInfo| {
            let varchar = datafusion_postgres::pgwire::api::Type::VARCHAR;
            FieldInfo::new(field.name().to_owned(), None, None, varchar, field.format())
        };
        let mut encoder = self.encoder(Arc::new(fields.iter().map(text).collect()));
        for field in fields.iter() {
            encoder.encode_field(&field.name())?;
        }
        Ok(Some(encoder.take_copy()))
    }
}

async fn copy(statement: &Statement, context: &SessionContext) -> Option<PgWireResult<Response>> {
    let Statement::Copy { source, to: true, target: CopyTarget::Stdout, options, legacy_options, .. } = statement
    else {
        return None;
    };
    let query = match source {
        CopySource::Query(query) => query.to_string(),
        CopySource::Table { table_name, columns } if columns.is_empty() => format!("SELECT * FROM {table_name}"),
        CopySource::Table { table_name, columns } => {
            let columns: Vec<String> = columns.iter().map(ToString::to_string).collect();
            format!("SELECT {} FROM {table_name}", columns.join(", "))
        }
    };
    let asked = match Asked::read(options, legacy_options) {
        Ok(asked) => asked,
        Err(error) => return Some(Err(error)),
    };
    Some(rows(&query, asked, context).await)
}

async fn rows(query: &str, asked: Asked, context: &SessionContext) -> PgWireResult<Response> {
    let failed = |error: datafusion::error::DataFusionError| PgWireError::ApiError(Box::new(error));
    let frame = context.sql(query).await.map_err(failed)?;
    let fields = Arc::new(arrow_schema_to_pg_fields(frame.schema().as_arrow(), &Format::UnifiedText, None)?);
    let (columns, header) = (fields.len(), asked.header(&fields)?);
    let batches = frame.execute_stream().await.map_err(failed)?;
    let encoded = batches.map(move |batch| {
        let rows = batch.map_err(failed).and_then(|batch| encoded(&batch, &fields, &asked));
        stream::iter(rows.map_or_else(|error| vec![Err(error)], |rows| rows.into_iter().map(Ok).collect()))
    });
    let all = stream::iter(header.map(Ok)).chain(encoded.flatten());
    Ok(Response::CopyOut(CopyResponse::new(0, columns, all)))
}

/// A batch's rows, each a message of its own: clients take a message for a row.
fn encoded(batch: &RecordBatch, fields: &Arc<Vec<FieldInfo>>, asked: &Asked) -> PgWireResult<Vec<CopyData>> {
    let mut encoder = asked.encoder(fields.clone());
    let mut rows = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        for ((array, field), of_postgres) in batch.columns().iter().zip(batch.schema_ref().fields()).zip(fields.iter())
        {
            encode_value(&mut encoder, array, row, field, of_postgres)?;
        }
        rows.push(encoder.take_copy());
    }
    Ok(rows)
}

#[async_trait]
impl QueryHook for CopyOut {
    async fn handle_simple_query(
        &self,
        statement: &Statement,
        context: &SessionContext,
        _: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        copy(statement, context).await
    }

    async fn handle_extended_parse_query(
        &self,
        statement: &Statement,
        _: &SessionContext,
        _: &(dyn ClientInfo + Send + Sync),
    ) -> Option<PgWireResult<LogicalPlan>> {
        let Statement::Copy { .. } = statement else { return None };
        Some(Ok(no_rows()))
    }

    async fn handle_extended_query(
        &self,
        statement: &Statement,
        _: &LogicalPlan,
        _: &ParamValues,
        context: &SessionContext,
        _: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        copy(statement, context).await
    }
}
