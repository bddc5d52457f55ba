//! A record that may be a repeat, and the fingerprint of its event.

use sha2::{Digest, Sha256};
use weir_engine::{Record, RecordHead, Row};
use weir_model::wire::Decoded;
use weir_model::{Position, TenantId};

/// An event that did not come through our publisher, so that it has no position: the event store has each id once.
#[derive(Debug)]
pub(super) struct Candidate<'a> {
    pub(super) record: &'a RecordHead,
    pub(super) tenant: &'a str,
    pub(super) event_id: &'a str,
}

impl<'a> Candidate<'a> {
    pub(super) fn of(row: &'a Row) -> Option<Self> {
        match row {
            Row::Event(located) => {
                let event = &located.event;
                Self::new(&located.record, event.position, &event.tenant, event.event_id.as_str())
            }
            Row::Other(located) => {
                let event = &located.event;
                Self::new(&located.record, event.position, &event.tenant, event.event_id.as_str())
            }
            Row::Dead(_) => None,
        }
    }

    pub(super) fn of_decoded(record: &'a Record, decoded: &'a Decoded) -> Option<Self> {
        match decoded {
            Decoded::Event(event) => Self::new(&record.head, event.position, &event.tenant, event.event_id.as_str()),
            Decoded::Other(event) => Self::new(&record.head, event.position, &event.tenant, event.event_id.as_str()),
        }
    }

    fn new(
        record: &'a RecordHead,
        position: Option<Position>,
        tenant: &'a TenantId,
        event_id: &'a str,
    ) -> Option<Self> {
        position.is_none().then(|| Self { record, tenant: tenant.as_str(), event_id })
    }

    /// Half of a SHA-256 over the index's key, the tenant's length in four bytes, the tenant and the id. No sender knows the key, so none
    /// can make two ids alike. Migration 16 computes the same.
    pub(super) fn fingerprint(&self, key: &[u8]) -> u128 {
        let mut hasher = Sha256::new();
        hasher.update(key);
        hasher.update(u32::try_from(self.tenant.len()).unwrap_or(u32::MAX).to_be_bytes());
        hasher.update(self.tenant);
        hasher.update(self.event_id);
        let mut half = [0; 16];
        half.copy_from_slice(&hasher.finalize()[..16]);
        u128::from_be_bytes(half)
    }
}
