//! Rows of a block into a CSR batch: sorted, distinct columns, 32-bit indices.

use super::cast::{Target, check};
use super::ops::{RowOps, Table};
use super::{Band, Block, Rounded};
use crate::error::Result;
use crate::{with_columns, with_values};

/// A batch as torch and scipy take it.
#[derive(Clone, Debug, PartialEq)]
pub struct CsrBatch<T> {
    /// Where each row begins; one more than there are rows.
    pub indptr: Vec<i32>,
    /// Column of each value.
    pub indices: Vec<i32>,
    /// The values.
    pub data: Vec<T>,
    /// The first whole number that the conversion rounded.
    pub rounded: Option<Rounded>,
}

impl Block {
    /// The rows at `positions` as CSR. Zeros of dense rows are left out; stored zeros of sparse rows are kept, as scipy does.
    ///
    /// All positions must be rows of the block. `None` where the batch has 2³¹ values or more. One thread does it: the
    /// copy runs at memory speed, beside the threads that decode the next window.
    ///
    /// # Errors
    /// [`crate::Error::Inexact`] where an integer dtype cannot hold a value.
    ///
    /// # Panics
    /// Where a position is out of range.
    pub fn csr<T: Target>(&self, positions: &[i64]) -> Result<Option<CsrBatch<T>>> {
        let Some(mut batch) = self.empty_batch::<T>(positions) else { return Ok(None) };
        for &position in positions {
            let (band, row) = self.locate(position as usize);
            match band {
                Band::Sparse { offsets, columns, values } => {
                    let span = offsets[row]..offsets[row + 1];
                    with_columns!(columns, c => {
                        let c = &c[span.clone()];
                        batch.indices.extend(c.iter().map(|&c| c as i32));
                        with_values!(values, v => {
                            let v = &v[span];
                            batch.data.extend(v.iter().map(|&x| T::cast_from(x)));
                            check::<_, T>(c.iter().map(|&c| u64::from(c)).zip(v.iter().copied()), &mut batch.rounded)?;
                        });
                    });
                }
                Band::Dense { n_cols, values, .. } => {
                    with_values!(values, v => {
                        let v = &v[row * n_cols..(row + 1) * n_cols];
                        let stored = || (0u64..).zip(v.iter().copied()).filter(|(_, x)| !is_zero(x));
                        batch.indices.extend(stored().map(|(column, _)| column as i32));
                        batch.data.extend(stored().map(|(_, x)| T::cast_from(x)));
                        check::<_, T>(stored(), &mut batch.rounded)?;
                    });
                }
            }
            batch.indptr.push(batch.indices.len() as i32);
        }
        Ok(Some(batch))
    }

    /// As [`Block::csr`], with `ops` done to the values on the way (`ops.scale` fills rows, and is left out).
    ///
    /// # Panics
    /// Where a position is out of range.
    #[must_use]
    pub fn csr_with(&self, positions: &[i64], ops: &RowOps) -> Option<CsrBatch<f32>> {
        let mut batch = self.empty_batch::<f32>(positions)?;
        let (mut done, mut table) = (Vec::new(), Table::default());
        for &position in positions {
            let (band, row) = self.locate(position as usize);
            match band {
                Band::Sparse { offsets, columns, values } => {
                    let span = offsets[row]..offsets[row + 1];
                    with_columns!(columns, c => batch.indices.extend(c[span.clone()].iter().map(|&c| c as i32)));
                    with_values!(values, v => ops.values(&v[span], &mut done, &mut table));
                    batch.data.extend_from_slice(&done);
                }
                Band::Dense { n_cols, values, .. } => {
                    with_values!(values, v => ops.values(&v[row * n_cols..(row + 1) * n_cols], &mut done, &mut table));
                    let stored = || (0i32..).zip(&done).filter(|(_, x)| **x != 0.0);
                    batch.indices.extend(stored().map(|(column, _)| column));
                    batch.data.extend(stored().map(|(_, x)| *x));
                }
            }
            batch.indptr.push(batch.indices.len() as i32);
        }
        Some(batch)
    }

    /// A batch without rows, with room for those at `positions`; `None` where they hold 2³¹ values or more.
    fn empty_batch<T>(&self, positions: &[i64]) -> Option<CsrBatch<T>> {
        let total: usize = positions.iter().map(|&p| self.row_stored(p as usize)).sum();
        i32::try_from(total).ok()?;
        let mut indptr = Vec::with_capacity(positions.len() + 1);
        indptr.push(0);
        let (indices, data) = (Vec::with_capacity(total), Vec::with_capacity(total));
        Some(CsrBatch { indptr, indices, data, rounded: None })
    }

    fn row_stored(&self, position: usize) -> usize {
        let (band, row) = self.locate(position);
        match band {
            Band::Sparse { .. } => band.row_nnz(row),
            Band::Dense { n_cols, values, .. } => {
                let span = row * n_cols..(row + 1) * n_cols;
                with_values!(values, v => v[span].iter().filter(|x| !is_zero(*x)).count())
            }
        }
    }
}

fn is_zero<T: PartialEq + Default>(x: &T) -> bool {
    *x == T::default()
}
