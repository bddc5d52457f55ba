//! Events that ClickHouse has under another place than the one at hand: of other services the lane may have chosen another copy.

use std::collections::HashSet;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use weir_clickhouse::ClickHouse;
use weir_engine::BoxError;
use weir_history::Place;

/// Leaves out of a batch's rows those of other services whose event is there under another place.
pub(super) async fn leave_out_copies(
    server: &ClickHouse,
    batch: &RecordBatch,
    places: &[Place],
    keep: &mut [bool],
) -> Result<(), BoxError> {
    let positions = batch.column_by_name("position").ok_or("position is missing")?.as_primitive::<Int64Type>();
    let foreign: Vec<usize> = (0..batch.num_rows()).filter(|row| keep[*row] && positions.is_null(*row)).collect();
    leave_out(server, batch, places, &foreign, keep).await
}

/// Leaves out those of some rows whose event is there under another place.
pub(super) async fn leave_out(
    server: &ClickHouse,
    batch: &RecordBatch,
    places: &[Place],
    some: &[usize],
    keep: &mut [bool],
) -> Result<(), BoxError> {
    if some.is_empty() {
        return Ok(());
    }
    let column = |name: &str| batch.column_by_name(name).ok_or_else(|| format!("{name} is missing"));
    let (tenants, ids) = (column("tenant")?.as_string::<i32>(), column("event_id")?.as_string::<i32>());
    let key = |row: usize| (tenants.value(row).to_owned(), ids.value(row).to_owned());
    let keys: Vec<(String, String)> = some.iter().map(|row| key(*row)).collect();
    let there = server.ids_there(batch, &keys).await?;
    for row in some {
        let is_elsewhere = |held: &HashSet<Place>| held.iter().any(|place| *place != places[*row]);
        if there.get(&key(*row)).is_some_and(is_elsewhere) {
            keep[*row] = false;
        }
    }
    Ok(())
}
