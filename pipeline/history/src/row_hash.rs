//! Whether rows that were written are the rows that were read, whatever their order.
//!
//! Each value is hashed by its column, all values of a row are folded into 128 bits in the order of the columns, and the rows' hashes are added
//! up. The hash (foldhash, in its form of better quality) is no cryptographic one: it finds what a disk or a mistake changes, with a chance of 2⁻⁶⁴ to
//! miss it, not what an attacker would choose.

use arrow::array::RecordBatch;
use deltalake_core::datafusion::common::hash_utils::{QualityRandomState, create_hashes};
use deltalake_core::datafusion::error::DataFusionError;

/// Odd, so that multiplying by it loses nothing: the multiplier of PCG's generators of 128 bits.
const FOLD: u128 = 0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645;

/// Count and hash of rows; every column counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RowHash {
    count: u64,
    sum: u128,
}

impl RowHash {
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn add(&mut self, batch: &RecordBatch) -> Result<(), DataFusionError> {
        let mut rows = vec![0_u128; batch.num_rows()];
        let mut of_column = vec![0_u64; batch.num_rows()];
        for (column, seed) in batch.columns().iter().zip(1..) {
            // A null leaves what is there.
            of_column.fill(0);
            create_hashes([column], &QualityRandomState::with_seed(seed), &mut of_column)?;
            for (row, value) in rows.iter_mut().zip(&of_column) {
                *row = (*row ^ u128::from(*value)).wrapping_mul(FOLD).rotate_left(31);
            }
        }
        self.sum = rows.into_iter().fold(self.sum, u128::wrapping_add);
        self.count += u64::try_from(batch.num_rows()).unwrap_or(0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::compute::take_record_batch;

    use super::*;

    type Row<'a> = (Option<i64>, Option<&'a str>, Option<&'a str>);

    fn batch(rows: &[Row<'_>]) -> RecordBatch {
        let numbers: Int64Array = rows.iter().map(|row| row.0).collect();
        let first: StringArray = rows.iter().map(|row| row.1).collect();
        let second: StringArray = rows.iter().map(|row| row.2).collect();
        let columns: [(&str, ArrayRef, bool); 3] =
            [("n", Arc::new(numbers), true), ("a", Arc::new(first), true), ("b", Arc::new(second), true)];
        RecordBatch::try_from_iter_with_nullable(columns).unwrap()
    }

    fn hash(batches: &[RecordBatch]) -> RowHash {
        let mut hash = RowHash::default();
        batches.iter().for_each(|batch| hash.add(batch).unwrap());
        hash
    }

    #[test]
    fn the_same_rows_in_any_order_and_any_batches() {
        let rows = batch(&[(Some(1), Some("x"), None), (None, Some("y"), Some("z")), (Some(1), Some("x"), None)]);
        let turned = take_record_batch(&rows, &arrow::array::UInt32Array::from(vec![2, 1, 0])).unwrap();
        assert_eq!(hash(std::slice::from_ref(&rows)), hash(&[turned]));
        assert_eq!(hash(std::slice::from_ref(&rows)), hash(&[rows.slice(0, 1), rows.slice(1, 2)]));
        assert_eq!(hash(&[rows]).count(), 3);
    }

    #[test]
    fn other_rows_have_another_hash() {
        let of = |rows: &[Row<'_>]| hash(&[batch(rows)]);
        let rows = of(&[(Some(1), Some("x"), None), (Some(2), Some("y"), None)]);
        for other in [
            // A value in the next column, of the other row, of another number, an empty one for none, a row twice, a row less.
            of(&[(Some(1), None, Some("x")), (Some(2), Some("y"), None)]),
            of(&[(Some(1), Some("y"), None), (Some(2), Some("x"), None)]),
            of(&[(Some(1), Some("x"), None), (Some(3), Some("y"), None)]),
            of(&[(Some(1), Some("x"), Some("")), (Some(2), Some("y"), None)]),
            of(&[(Some(1), Some("x"), None), (Some(1), Some("x"), None)]),
            of(&[(Some(1), Some("x"), None)]),
        ] {
            assert_ne!(rows, other);
        }
    }
}
