//! Decoded rows into a CSR batch: sorted, distinct columns, 32-bit indices, in the caller's memory.

use super::cast::{Target, check};
use super::ops::{Computed, RowOps, Table};
use super::{DecodedRows, Lost, RowGroup, What};
use crate::error::Result;
use crate::rows::{with_columns, with_values};

/// The arrays of a CSR batch, in the layout of torch and scipy.
#[derive(Debug)]
pub struct CsrOut<'a, T> {
    /// Where each row begins; one more than there are rows.
    pub indptr: &'a mut [i32],
    /// Column of each value; its length is [`DecodedRows::nnz`].
    pub indices: &'a mut [i32],
    /// The values, of the same length.
    pub data: &'a mut [T],
}

impl DecodedRows {
    /// Number of values of the rows at `positions` as CSR: zeros of dense rows are left out, stored zeros of sparse rows are
    /// kept, as in scipy.
    ///
    /// # Panics
    /// Where a position is out of range.
    #[must_use]
    pub fn nnz(&self, positions: &[i64]) -> usize {
        positions.iter().map(|&position| self.row_nnz(position as usize)).sum()
    }

    /// Writes the rows at `positions` as CSR, and tells what was lost on the way.
    ///
    /// All positions must be in range, and `out` of the sizes that [`DecodedRows::nnz`] gives, below 2³¹. One thread does it,
    /// at memory speed, beside the threads that decode the next window.
    ///
    /// # Errors
    /// [`crate::error::Error::Inexact`] where an integer dtype cannot hold a value.
    ///
    /// # Panics
    /// Where a position is out of range or `out` too short.
    pub fn csr<T: Target>(&self, positions: &[i64], out: CsrOut<'_, T>) -> Result<Option<Lost>> {
        let mut lost = None;
        self.each_row(positions, out, |group, row, indices, data| {
            match group {
                RowGroup::Sparse { offsets, columns, values, .. } => {
                    let span = offsets[row]..offsets[row + 1];
                    with_columns!(columns, c => with_values!(values, v => {
                        let (c, v) = (&c[span.clone()], &v[span]);
                        indices.iter_mut().zip(c).for_each(|(o, &c)| *o = c as i32);
                        data.iter_mut().zip(v).for_each(|(o, &x)| *o = T::cast_from(x));
                        check::<_, T>(c.iter().map(|&c| u64::from(c)).zip(v.iter().copied()), &mut lost)?;
                    }));
                }
                RowGroup::Dense { n_cols, values, .. } => with_values!(values, v => {
                    let v = &v[row * n_cols..(row + 1) * n_cols];
                    let stored = || (0u64..).zip(v.iter().copied()).filter(|(_, x)| !is_zero(x));
                    for ((column, x), (index, out)) in stored().zip(indices.iter_mut().zip(data)) {
                        (*index, *out) = (column as i32, T::cast_from(x));
                    }
                    check::<_, T>(stored(), &mut lost)?;
                }),
            }
            Ok(())
        })?;
        Ok(lost)
    }

    /// As [`DecodedRows::csr`], with `ops` done to the values on the way, in float32, and rounded once (`ops.scale` fills rows, and
    /// is left out).
    ///
    /// # Errors
    /// [`crate::error::Error::NoTotals`] where `ops` need what was not kept.
    ///
    /// # Panics
    /// Where a position is out of range or `out` too short.
    pub(crate) fn csr_with<T: Computed>(
        &self,
        positions: &[i64],
        out: CsrOut<'_, T>,
        ops: &RowOps,
    ) -> Result<Option<Lost>> {
        let (mut done, mut table, mut lost) = (Vec::new(), Table::default(), None);
        self.each_row(positions, out, |group, row, indices, data| {
            let total = if ops.over_all && ops.target_sum.is_some() { Self::kept_total(group, row)? } else { None };
            let column = match group {
                RowGroup::Sparse { offsets, columns, values, .. } => {
                    let span = offsets[row]..offsets[row + 1];
                    let at = with_values!(values, v => {
                        ops.values::<_, T>(&v[span.clone()], total, &mut done, &mut table)
                    });
                    data.iter_mut().zip(&done).for_each(|(out, x)| *out = T::cast_from(*x));
                    with_columns!(columns, c => {
                        indices.iter_mut().zip(&c[span.clone()]).for_each(|(o, &c)| *o = c as i32);
                        at.map(|at| (at, c[span.start + at] as usize))
                    })
                }
                RowGroup::Dense { n_cols, values, .. } => with_values!(values, v => {
                    let v = &v[row * n_cols..(row + 1) * n_cols];
                    let at = ops.values::<_, T>(v, total, &mut done, &mut table);
                    let stored = (0i32..).zip(v.iter().zip(&done)).filter(|(_, (x, _))| !is_zero(*x));
                    for ((column, (_, done)), (index, out)) in stored.zip(indices.iter_mut().zip(data)) {
                        (*index, *out) = (column, T::cast_from(*done));
                    }
                    at.map(|at| (at, at))
                }),
            };
            if let (Some((at, column)), None) = (column, &lost) {
                let value = done[at].to_string();
                lost = Some(Lost { column: column as u64, value, what: What::TooLargeAfterOps });
            }
            Ok(())
        })?;
        Ok(lost)
    }

    /// Gives `write` each row with its part of `out`.
    fn each_row<T>(
        &self,
        positions: &[i64],
        out: CsrOut<'_, T>,
        mut write: impl FnMut(&RowGroup, usize, &mut [i32], &mut [T]) -> Result<()>,
    ) -> Result<()> {
        let CsrOut { indptr, indices, data } = out;
        let mut at = 0;
        indptr[0] = 0;
        for (position, end) in self.prefetched(positions).zip(&mut indptr[1..]) {
            let (group, row) = self.locate(position);
            let next = at + self.row_nnz(position);
            write(group, row, &mut indices[at..next], &mut data[at..next])
                .map_err(|e| self.named(position as i64, e))?;
            at = next;
            *end = at as i32;
        }
        Ok(())
    }

    fn row_nnz(&self, position: usize) -> usize {
        let (group, row) = self.locate(position);
        match group {
            RowGroup::Sparse { .. } => group.row_nnz(row),
            RowGroup::Dense { n_cols, values, .. } => {
                let span = row * n_cols..(row + 1) * n_cols;
                with_values!(values, v => v[span].iter().filter(|x| !is_zero(*x)).count())
            }
        }
    }
}

fn is_zero<T: PartialEq + Default>(x: &T) -> bool {
    *x == T::default()
}
