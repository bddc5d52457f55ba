//! The envelope of a record as a tree: what every way of reading it asks for, in the same words.

use serde_json::Value;

use super::error::{DecodeError, broken, cleaned};
use crate::Object;
use crate::clock::Timestamp;
use crate::event::Metadata;
use crate::ids::TenantId;

/// All fields of the record but the data.
pub(crate) struct Envelope<'a> {
    pub(crate) fields: &'a Object,
}

impl Envelope<'_> {
    pub(crate) fn optional(&self, field: &str) -> Result<Option<&str>, DecodeError> {
        match self.fields.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(broken(format!("/{field}"), "is no string")),
        }
    }

    pub(crate) fn required(&self, field: &str) -> Result<&str, DecodeError> {
        self.optional(field)?.ok_or_else(|| broken(format!("/{field}"), "is missing"))
    }

    /// `"1.0.0"` as the specification has it, or a bare number, as some services send it.
    pub(crate) fn version(&self) -> Result<String, DecodeError> {
        match self.fields.get("version") {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(Value::Number(number)) => Ok(number.to_string()),
            Some(_) => Err(broken("/version", "is neither a string nor a number")),
            None => Err(broken("/version", "is missing")),
        }
    }

    pub(crate) fn time(&self, field: &str) -> Result<Option<Timestamp>, DecodeError> {
        let text = self.optional(field)?;
        text.map(|t| t.parse().map_err(|e| broken(format!("/{field}"), format!("{e}")))).transpose()
    }

    pub(crate) fn positive(&self, field: &str) -> Result<Option<i64>, DecodeError> {
        match self.fields.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_i64() {
                Some(n) if n > 0 => Ok(Some(n)),
                _ => Err(broken(format!("/{field}"), "is no whole number above 0")),
            },
        }
    }

    pub(crate) fn metadata(&self) -> Result<(Metadata, TenantId), DecodeError> {
        let fields = match self.fields.get("metadata") {
            None | Some(Value::Null) => return Ok((Metadata::default(), TenantId::default())),
            Some(Value::Object(fields)) => fields,
            Some(_) => return Err(broken("/metadata", "is no JSON object")),
        };
        let text = |field: &str| match fields.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => cleaned(&format!("/metadata/{field}"), text).map(Some),
            Some(_) => Err(broken(format!("/metadata/{field}"), "is no string")),
        };
        let tenant = text("tenantId")?.map(TenantId::new).transpose();
        let metadata = Metadata {
            causation_id: text("causationId")?,
            correlation_id: text("correlationId")?,
            user_id: text("userId")?,
        };
        Ok((metadata, tenant.map_err(|e| broken("/metadata/tenantId", e.to_string()))?.unwrap_or_default()))
    }
}
