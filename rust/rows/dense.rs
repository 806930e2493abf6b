//! Decoded rows into a dense batch: each byte is written once, by several threads.

use super::cast::{Target, check};
use super::ops::{Computed, RowOps, Table};
use super::{DecodedRows, Lost, RowGroup, What};
use crate::error::Result;
use crate::rows::{with_columns, with_values};
use crate::threads::team::share_rows;

impl DecodedRows {
    /// Writes the rows at `positions` to `out`, row-major and `n_cols` wide, and tells what was lost on the way.
    ///
    /// All positions must be rows that are held (see [`DecodedRows::first_out_of_range`]); `out` must be of the exact size.
    ///
    /// # Errors
    /// [`crate::error::Error::Inexact`] where an integer dtype cannot hold a value.
    ///
    /// # Panics
    /// Where a position is out of range.
    pub fn dense<T: Target>(&self, positions: &[i64], out: &mut [T], threads: usize) -> Result<Option<Lost>> {
        let found = self.by_rows(positions, out, threads, |rows, out| {
            let mut lost = None;
            for (&position, out) in rows.iter().zip(out.chunks_exact_mut(self.n_cols)) {
                self.dense_row(position as usize, out, &mut lost).map_err(|e| self.named(position, e))?;
            }
            Ok(lost)
        })?;
        Ok(Lost::worst(found))
    }

    /// As [`DecodedRows::dense`], with `ops` done to each row on the way, in float32, and rounded once.
    ///
    /// # Errors
    /// [`crate::error::Error::NoTotals`] where `ops` need what was not kept.
    ///
    /// # Panics
    /// Where a position is out of range.
    pub(crate) fn dense_with<T: Computed>(
        &self,
        positions: &[i64],
        out: &mut [T],
        threads: usize,
        ops: &RowOps,
    ) -> Result<Option<Lost>> {
        let found = self.by_rows(positions, out, threads, |rows, out| {
            let (mut wide, mut scratch, mut lost) = (Vec::new(), Scratch::default(), None);
            for (&position, out) in rows.iter().zip(out.chunks_exact_mut(self.n_cols)) {
                let row = T::row(out, &mut wide);
                let found = self
                    .dense_row_with::<T>(position as usize, row, ops, &mut scratch)
                    .map_err(|e| self.named(position, e))?;
                T::round(out, &wide);
                lost = lost.or(found);
            }
            Ok(lost)
        })?;
        Ok(Lost::worst(found))
    }

    /// Shares rows and their part of `out` among threads; the results come in the order of the rows.
    fn by_rows<T: Send, R: Send>(
        &self,
        positions: &[i64],
        out: &mut [T],
        threads: usize,
        work: impl Fn(&[i64], &mut [T]) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        if self.n_cols == 0 || positions.is_empty() {
            return Ok(Vec::new());
        }
        share_rows(threads, positions, out, self.n_cols, work).into_iter().collect()
    }

    fn dense_row<T: Target>(&self, position: usize, out: &mut [T], lost: &mut Option<Lost>) -> Result<()> {
        let (group, row) = self.locate(position);
        match group {
            RowGroup::Dense { n_cols, values, .. } => {
                let span = row * n_cols..(row + 1) * n_cols;
                with_values!(values, v => {
                    out.iter_mut().zip(&v[span.clone()]).for_each(|(o, x)| *o = T::cast_from(*x));
                    check::<_, T>((0u64..).zip(v[span].iter().copied()), lost)
                })
            }
            RowGroup::Sparse { offsets, columns, values, .. } => {
                let span = offsets[row]..offsets[row + 1];
                out.fill(T::default());
                with_columns!(columns, c => with_values!(values, v => {
                    let (c, v) = (&c[span.clone()], &v[span]);
                    for (&column, &value) in c.iter().zip(v) {
                        out[column as usize] = T::cast_from(value);
                    }
                    check::<_, T>(c.iter().map(|&c| u64::from(c)).zip(v.iter().copied()), lost)
                }))
            }
        }
    }

    fn dense_row_with<T: Computed>(
        &self,
        position: usize,
        out: &mut [f32],
        ops: &RowOps,
        Scratch { values: done, table }: &mut Scratch,
    ) -> Result<Option<Lost>> {
        let (group, row) = self.locate(position);
        let total = if ops.over_all && ops.target_sum.is_some() { Self::kept_total(group, row)? } else { None };
        let mut column = match group {
            RowGroup::Dense { n_cols, values, .. } => {
                let span = row * n_cols..(row + 1) * n_cols;
                let lost = with_values!(values, v => ops.values::<_, T>(&v[span], total, done, table));
                out.copy_from_slice(done);
                lost
            }
            RowGroup::Sparse { offsets, columns, values, .. } => {
                let span = offsets[row]..offsets[row + 1];
                let lost = with_values!(values, v => ops.values::<_, T>(&v[span.clone()], total, done, table));
                out.fill(0.0);
                with_columns!(columns, c => {
                    let c = &c[span];
                    for (&column, &value) in c.iter().zip(done.iter()) {
                        out[column as usize] = value;
                    }
                    lost.map(|at| c[at] as usize)
                })
            }
        };
        let late = ops.finish::<T>(out);
        column = column.or(late);
        let lost = |at: usize| Lost { column: at as u64, value: out[at].to_string(), what: What::TooLargeAfterOps };
        Ok(column.map(lost))
    }
}

/// Memory that a thread uses for all of its rows.
#[derive(Default)]
struct Scratch {
    values: Vec<f32>,
    table: Table,
}
