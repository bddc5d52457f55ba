//! Records on their way from a consumer to the receiver.

use bytes::BytesMut;
use rdkafka::message::{BorrowedMessage, Message};
use weir_engine::{Headers, Partition, Record, RecordHead, ordering_key};
use weir_model::Timestamp;

/// Records handed over at once.
const CHUNK_RECORDS: usize = 500;

/// Bytes handed over at once; one record may exceed it.
const CHUNK_BYTES: usize = 1 << 20;

/// Records on their way into one hand-over. Their bytes share one allocation.
#[derive(Default)]
pub(crate) struct Chunk {
    bytes: BytesMut,
    rows: Vec<Row>,
}

struct Row {
    partition: Partition,
    offset: i64,
    recorded_at: Option<Timestamp>,
    has_key: bool,
    /// Where the key begins, and where key, payload and headers end.
    bounds: [usize; 4],
}

impl Chunk {
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.rows.len() >= CHUNK_RECORDS || self.bytes.len() >= CHUNK_BYTES
    }

    /// Gives the record's bytes, key and headers included.
    pub(crate) fn push(&mut self, partition: &Partition, message: &BorrowedMessage<'_>) -> usize {
        let mut bounds = [self.bytes.len(); 4];
        self.bytes.extend_from_slice(message.key().unwrap_or_default());
        bounds[1] = self.bytes.len();
        self.bytes.extend_from_slice(message.payload().unwrap_or_default());
        bounds[2] = self.bytes.len();
        crate::record_headers::each(message, |name, value| Headers::write(&mut self.bytes, name, value));
        bounds[3] = self.bytes.len();
        self.rows.push(Row {
            partition: partition.clone(),
            offset: message.offset(),
            recorded_at: message.timestamp().to_millis().and_then(|millis| Timestamp::from_millis(millis).ok()),
            has_key: message.key().is_some(),
            bounds,
        });
        bounds[3] - bounds[0]
    }

    pub(crate) fn take(&mut self) -> Vec<Record> {
        let capacity = self.bytes.len();
        let bytes = std::mem::replace(&mut self.bytes, BytesMut::with_capacity(capacity)).freeze();
        let record = |row: Row| {
            let [key, payload, headers, end] = row.bounds;
            // Keys are text in the specification; whatever else stands there still orders records.
            let key_bytes = &bytes[key..payload];
            let stands_for = row.has_key.then(|| ordering_key(key_bytes));
            let head = RecordHead {
                partition: row.partition,
                offset: row.offset,
                odd_key: stands_for.as_ref().filter(|text| text.as_bytes() != key_bytes).map(|_| key_bytes.into()),
                key: stands_for,
                headers: Headers::from_written(bytes.slice(headers..end)),
                recorded_at: row.recorded_at,
            };
            Record { head, payload: bytes.slice(payload..headers) }
        };
        self.rows.drain(..).map(record).collect()
    }

    /// Keeps the records of the partitions that `keep` says.
    pub(crate) fn retain(&mut self, keep: impl Fn(&Partition) -> bool) {
        self.rows.retain(|row| keep(&row.partition));
    }
}
