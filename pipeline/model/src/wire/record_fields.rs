//! The envelope of a record as a tree: what every way of reading it asks for, in the same words.

use bytestring::ByteString;
use serde_json::Value;

use super::error::{DecodeError, broken, cleaned};
use crate::Object;
use crate::clock::Timestamp;
use crate::envelope::{Envelope, Metadata};
use crate::ids::{EventId, Position, TenantId};

/// All fields of the record but the data.
pub(crate) struct RecordFields<'a> {
    pub(crate) fields: &'a Object,
}

impl RecordFields<'_> {
    /// The envelope. What is read of the version, and of the aggregate, differs; both in their place among what may be wrong.
    pub(crate) fn envelope<T>(
        &self,
        schema_version: impl FnOnce() -> Result<ByteString, DecodeError>,
        aggregate: impl FnOnce() -> Result<T, DecodeError>,
    ) -> Result<(Envelope, T), DecodeError> {
        let (metadata, tenant) = self.metadata()?;
        let event_id = EventId::new(self.required("eventId")?.to_owned());
        let event_id = event_id.map_err(|e| broken("/eventId", e.to_string()))?;
        let schema_version = schema_version()?;
        let timestamp = self.time("timestamp")?.ok_or_else(|| broken("/timestamp", "is missing"))?;
        let recorded_at = self.time("recordedAt")?;
        let source = cleaned("/source", self.required("source")?)?;
        let aggregate = aggregate()?;
        let version = self.positive("aggregateVersion")?;
        let position = self.positive("position")?.map(Position);
        let envelope =
            Envelope { event_id, schema_version, timestamp, recorded_at, source, tenant, version, position, metadata };
        Ok((envelope, aggregate))
    }

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

    fn time(&self, field: &str) -> Result<Option<Timestamp>, DecodeError> {
        let text = self.optional(field)?;
        text.map(|t| t.parse().map_err(|e| broken(format!("/{field}"), format!("{e}")))).transpose()
    }

    fn positive(&self, field: &str) -> Result<Option<i64>, DecodeError> {
        match self.fields.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_i64() {
                Some(n) if n > 0 => Ok(Some(n)),
                _ => Err(broken(format!("/{field}"), "is no whole number above 0")),
            },
        }
    }

    fn metadata(&self) -> Result<(Metadata, TenantId), DecodeError> {
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
