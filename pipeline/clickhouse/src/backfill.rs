//! Rows of history into ClickHouse, beside the live lane: under the coordinates that they have, so that a row which the lane inserts too is
//! the same row.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, ListBuilder, RecordBatch, StringArray, UInt32Array,
    UInt32Builder,
};
use arrow::compute::{max, min};
use arrow::datatypes::{Field, Schema, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;
use weir_engine::Partition;
use weir_history::{Filter, Place, Stretch, places};
use weir_model::{OTHER_EVENT, OtherEvent, Timestamp};

use crate::error::ClickHouseError;
use crate::schema::{TABLE, event_columns, nested_columns};
use crate::server::{ClickHouse, literal};

/// Ids that are asked for in one query.
const IDS_MAX: usize = 2000;

/// The rows of a batch with the columns of history, as what is inserted. `epoch` is that of the lane's owner of each partition.
fn to_insert(batch: &RecordBatch, epoch: &dyn Fn(&Partition) -> i64) -> Result<RecordBatch, ArrowError> {
    let text = |name: &str| -> Result<&StringArray, ArrowError> {
        let column = batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
        column.ok_or_else(|| ArrowError::SchemaError(format!("{name} is no column of text")))
    };
    let (types, data) = (text("event_type")?, text("data")?);
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for column in event_columns().iter().filter(|column| column.nested.is_none()) {
        let array = match column.name {
            "event_type" => Arc::new(types_as_said(types, data)?),
            name => batch
                .column_by_name(name)
                .cloned()
                .ok_or_else(|| ArrowError::SchemaError(format!("{name} is missing")))?,
        };
        fields.push(Field::new(column.name, array.data_type().clone(), true));
        columns.push(array);
    }
    let is_other: BooleanArray = types.iter().map(|name| Some(name == Some(OTHER_EVENT))).collect();
    let epochs: Int64Array = places(batch)?.iter().map(|place| Some(epoch(&place.partition))).collect();
    let (nested, nested_places) = nested(batch, data)?;
    let own: [(&str, ArrayRef); 4] = [
        ("is_other", Arc::new(is_other)),
        ("epoch", Arc::new(epochs)),
        ("nested", Arc::new(nested)),
        ("nested_places", nested_places),
    ];
    for (name, array) in own {
        fields.push(Field::new(name, array.data_type().clone(), true));
        columns.push(array);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// In history the type of what its writer did not know is [`OTHER_EVENT`]; here it is what the record says.
fn types_as_said(types: &StringArray, data: &StringArray) -> Result<StringArray, ArrowError> {
    let said = |(name, document): (Option<&str>, Option<&str>)| match (name, document) {
        (Some(OTHER_EVENT), Some(document)) => {
            let event = OtherEvent::read(document.as_bytes());
            let event = event.map_err(|error| ArrowError::ExternalError(format!("{error}").into()))?;
            Ok(Some(event.enveloped().event_type.to_owned()))
        }
        (name, _) => Ok(name.map(str::to_owned)),
    };
    types.iter().zip(data.iter()).map(said).collect()
}

/// The bits and places of nested values: each stands in the canonical text behind its name. Should the same stand there twice, either place shows it.
fn nested(batch: &RecordBatch, data: &StringArray) -> Result<(UInt32Array, ArrayRef), ArrowError> {
    let mut columns = Vec::new();
    for (_, column, bit) in nested_columns() {
        let array = batch.column_by_name(column.name).and_then(|array| array.as_string_opt::<i32>());
        let array = array.ok_or_else(|| ArrowError::SchemaError(format!("{} is no column of text", column.name)))?;
        columns.push((format!("\"{}\":", column.field), array, bit));
    }
    let (mut bits, mut places) = (Vec::with_capacity(batch.num_rows()), ListBuilder::new(UInt32Builder::new()));
    for row in 0..batch.num_rows() {
        let mut of_row = 0_u32;
        for (name, array, bit) in columns.iter().filter(|(_, array, _)| array.is_valid(row)) {
            let (text, value) = (data.value(row), array.value(row));
            let found = text.match_indices(name.as_str()).map(|(at, _)| at + name.len());
            let Some(start) = found.into_iter().find(|at| text[*at..].starts_with(value)) else {
                return Err(ArrowError::ComputeError(format!("{name} is not in the text of its row")));
            };
            of_row |= 1 << bit;
            for n in [start + 1, value.len()] {
                places
                    .values()
                    .append_value(u32::try_from(n).map_err(|error| ArrowError::ExternalError(error.into()))?);
            }
        }
        places.append(true);
        bits.push(of_row);
    }
    Ok((bits.into(), Arc::new(places.finish())))
}

/// When the events of a batch happened, the first and the last.
fn happened(batch: &RecordBatch) -> Option<(Timestamp, Timestamp)> {
    let times = batch.column_by_name("timestamp")?.as_primitive_opt::<TimestampMicrosecondType>()?;
    let at = |micros: i64| Timestamp::from_millis(micros.div_euclid(1000)).ok();
    min(times).and_then(at).zip(max(times).and_then(at))
}

/// A condition on the time of events.
fn within(times: (Timestamp, Timestamp)) -> String {
    let at = |time: Timestamp| format!("fromUnixTimestamp64Milli({}, 'UTC')", time.as_millis());
    format!("`timestamp` >= {} AND `timestamp` <= {}", at(times.0), at(times.1))
}

/// Where a record is, from the four columns that say so.
fn place_of(row: Vec<String>) -> Option<Place> {
    let [source, topic, number, offset] = <[String; 4]>::try_from(row).ok()?;
    let partition = Partition { source: source.into(), topic: topic.into(), number: number.parse().ok()? };
    Some(Place { partition, offset: offset.parse().ok()? })
}

/// An insert of rows of history that is under way; batches go to the server as they come.
pub struct Insertion<'a> {
    server: &'a ClickHouse,
    /// Into which table.
    table: String,
    /// The block before, on its way while the next one is made.
    under_way: Option<AbortOnDropHandle<Result<(), ClickHouseError>>>,
    waiting: Vec<RecordBatch>,
    waiting_rows: usize,
    waiting_bytes: usize,
    /// When the events happened that it took, the first and the last.
    pub happened: Option<(Timestamp, Timestamp)>,
    /// Rows that were inserted.
    pub rows: usize,
    /// Bytes that were sent.
    pub bytes: usize,
}

/// Rows of one insert, and their bytes in memory.
const BLOCK: usize = 65_536;
const BLOCK_BYTES: usize = 64 << 20;

impl Insertion<'_> {
    /// Takes rows with the columns of history.
    pub async fn push(
        &mut self,
        batch: &RecordBatch,
        epoch: &(dyn Fn(&Partition) -> i64 + Sync),
    ) -> Result<(), ClickHouseError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        if let Some((first, last)) = happened(batch) {
            let so_far = self.happened.unwrap_or((first, last));
            self.happened = Some((so_far.0.min(first), so_far.1.max(last)));
        }
        let rows = to_insert(batch, epoch).map_err(|error| broken(&error))?;
        self.waiting_rows += rows.num_rows();
        self.waiting_bytes += rows.get_array_memory_size();
        self.waiting.push(rows);
        if self.waiting_rows >= BLOCK || self.waiting_bytes >= BLOCK_BYTES { self.send().await } else { Ok(()) }
    }

    async fn send(&mut self) -> Result<(), ClickHouseError> {
        let Some(first) = self.waiting.first() else { return Ok(()) };
        // In pieces: one text of all of them would be copied as it grows.
        let mut pieces: Vec<Bytes> = Vec::new();
        let mut writer = StreamWriter::try_new(Vec::new(), &first.schema()).map_err(|error| broken(&error))?;
        for batch in &self.waiting {
            writer.write(batch).map_err(|error| broken(&error))?;
            let next = Vec::with_capacity(writer.get_ref().len());
            pieces.push(std::mem::replace(writer.get_mut(), next).into());
        }
        writer.finish().map_err(|error| broken(&error))?;
        pieces.push(writer.into_inner().map_err(|error| broken(&error))?.into());
        self.arrived().await?;
        self.bytes += pieces.iter().map(Bytes::len).sum::<usize>();
        let (server, table) = (self.server.clone(), self.table.clone());
        let sending = async move { server.insert_as(&table, "ArrowStream", pieces.into_iter()).await };
        self.under_way = Some(AbortOnDropHandle::new(tokio::spawn(sending)));
        self.rows += self.waiting_rows;
        (self.waiting_rows, self.waiting_bytes) = (0, 0);
        self.waiting.clear();
        Ok(())
    }

    /// Waits for the block that is on its way.
    async fn arrived(&mut self) -> Result<(), ClickHouseError> {
        let Some(under_way) = self.under_way.take() else { return Ok(()) };
        let gone = |error: JoinError| ClickHouseError::new("inserting into ClickHouse", error.to_string(), "");
        under_way.await.map_err(gone)?
    }

    /// Sends what waits. The rollups do not know of it yet: [`ClickHouse::mend_rollups`].
    pub async fn finish(mut self) -> Result<(usize, usize), ClickHouseError> {
        self.send().await?;
        self.arrived().await?;
        Ok((self.rows, self.bytes))
    }
}

fn broken(error: &ArrowError) -> ClickHouseError {
    ClickHouseError::new(
        "making rows of history into rows of ClickHouse",
        error.to_string(),
        "`weir verify` says what differs in history",
    )
}

impl ClickHouse {
    /// Begins to insert rows of history.
    #[must_use]
    pub fn insertion(&self) -> Insertion<'_> {
        self.insertion_into(TABLE.to_owned())
    }

    pub(crate) fn insertion_into(&self, table: String) -> Insertion<'_> {
        Insertion {
            server: self,
            table,
            under_way: None,
            waiting: Vec::new(),
            waiting_rows: 0,
            waiting_bytes: 0,
            happened: None,
            rows: 0,
            bytes: 0,
        }
    }

    /// The places of the rows that are there of a stretch of history.
    pub async fn places_in(&self, stretch: &Stretch, filter: &Filter) -> Result<HashSet<Place>, ClickHouseError> {
        let millis = |column: &str| format!("toUnixTimestamp64Milli({column})");
        let (from, to) = (stretch.from.as_millis(), stretch.to.as_millis());
        let recorded = millis("ifNull(recorded_at, `timestamp`)");
        let tenant =
            filter.tenant.as_ref().map_or_else(String::new, |tenant| format!(" AND tenant = {}", literal(tenant)));
        let sql = format!(
            "SELECT source, topic, `partition`, `offset` FROM {}.{TABLE} WHERE {} \
             AND {recorded} >= {from} AND {recorded} < {to}{tenant}",
            self.database(),
            within(stretch.happened)
        );
        let rows = self.rows_long("looking for rows that are there", &sql).await?;
        Ok(rows.into_iter().filter_map(place_of).collect())
    }

    /// Which places of a batch, with the columns of history, are there.
    pub async fn places_among(&self, batch: &RecordBatch) -> Result<HashSet<Place>, ClickHouseError> {
        let Some(times) = happened(batch) else { return Ok(HashSet::new()) };
        let mut stretches: HashMap<Partition, (i64, i64)> = HashMap::new();
        for Place { partition, offset } in places(batch).map_err(|error| broken(&error))? {
            let (from, to) = stretches.entry(partition).or_insert((offset, offset));
            (*from, *to) = (offset.min(*from), offset.max(*to));
        }
        let of_partition = |(partition, (from, to)): (&Partition, &(i64, i64))| {
            format!(
                "(source = {} AND topic = {} AND `partition` = {} AND `offset` >= {from} AND `offset` <= {to})",
                literal(&partition.source),
                literal(&partition.topic),
                partition.number
            )
        };
        let conditions: Vec<String> = stretches.iter().map(of_partition).collect();
        let sql = format!(
            "SELECT source, topic, `partition`, `offset` FROM {}.{TABLE} WHERE {} AND ({})",
            self.database(),
            within(times),
            conditions.join(" OR ")
        );
        let rows = self.rows_long("looking for rows that are there", &sql).await?;
        Ok(rows.into_iter().filter_map(place_of).collect())
    }

    /// Where those events of a batch are that are there: each a tenant and an id. An event happened when it happened, wherever it stands.
    pub async fn ids_there(
        &self,
        batch: &RecordBatch,
        ids: &[(String, String)],
    ) -> Result<HashMap<(String, String), HashSet<Place>>, ClickHouseError> {
        let mut there: HashMap<(String, String), HashSet<Place>> = HashMap::new();
        let Some(times) = happened(batch) else { return Ok(there) };
        for some in ids.chunks(IDS_MAX) {
            let list: Vec<String> =
                some.iter().map(|(tenant, id)| format!("({}, {})", literal(tenant), literal(id))).collect();
            let sql = format!(
                "SELECT DISTINCT tenant, event_id, source, topic, `partition`, `offset` FROM {}.{TABLE} WHERE {} AND (tenant, event_id) IN ({})",
                self.database(),
                within(times),
                list.join(", ")
            );
            let rows = self.rows_long("looking for events that are there", &sql).await?;
            for row in rows {
                let Ok([tenant, id, source, topic, number, offset]) = <[String; 6]>::try_from(row) else { continue };
                let (Ok(number), Ok(offset)) = (number.parse(), offset.parse()) else { continue };
                let partition = Partition { source: source.into(), topic: topic.into(), number };
                there.entry((tenant, id)).or_default().insert(Place { partition, offset });
            }
        }
        Ok(there)
    }
}
