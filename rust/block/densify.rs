//! Rows of a block into a dense batch: each byte of it written once, by as many threads as allowed.

use super::cast::{Target, check};
use super::ops::{RowOps, Table};
use super::{Band, Block, Rounded};
use crate::crew::share_rows;
use crate::error::Result;
use crate::{with_columns, with_values};

impl Block {
    /// Writes the rows at `positions` to `out`, row-major and `n_cols` wide, and tells of the first whole number rounded.
    ///
    /// All positions must be rows of the block (see [`Block::first_out_of_range`]); `out` must be of the exact size.
    ///
    /// # Errors
    /// [`crate::Error::Inexact`] where an integer dtype cannot hold a value.
    ///
    /// # Panics
    /// Where a position is out of range.
    pub fn dense<T: Target>(&self, positions: &[i64], out: &mut [T], threads: usize) -> Result<Option<Rounded>> {
        let found = self.by_rows(positions, out, threads, |rows, out| {
            let mut rounded = None;
            for (&position, out) in rows.iter().zip(out.chunks_exact_mut(self.n_cols)) {
                self.dense_row(position as usize, out, &mut rounded)?;
            }
            Ok(rounded)
        })?;
        Ok(found.into_iter().flatten().next())
    }

    /// As [`Block::dense`], with `ops` done to each row on the way.
    ///
    /// # Errors
    /// None; the signature is that of [`Block::dense`].
    ///
    /// # Panics
    /// Where a position is out of range.
    pub fn dense_with(&self, positions: &[i64], out: &mut [f32], threads: usize, ops: &RowOps) -> Result<()> {
        self.by_rows(positions, out, threads, |rows, out| {
            let (mut values, mut table) = (Vec::new(), Table::default());
            for (&position, out) in rows.iter().zip(out.chunks_exact_mut(self.n_cols)) {
                self.dense_row_with(position as usize, out, ops, &mut values, &mut table);
            }
            Ok(())
        })?;
        Ok(())
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

    fn dense_row<T: Target>(&self, position: usize, out: &mut [T], rounded: &mut Option<Rounded>) -> Result<()> {
        let (band, row) = self.locate(position);
        match band {
            Band::Dense { n_cols, values, .. } => {
                let span = row * n_cols..(row + 1) * n_cols;
                with_values!(values, v => {
                    out.iter_mut().zip(&v[span.clone()]).for_each(|(o, x)| *o = T::cast_from(*x));
                    check::<_, T>((0u64..).zip(v[span].iter().copied()), rounded)
                })
            }
            Band::Sparse { offsets, columns, values } => {
                let span = offsets[row]..offsets[row + 1];
                out.fill(T::default());
                with_columns!(columns, c => with_values!(values, v => {
                    let (c, v) = (&c[span.clone()], &v[span]);
                    for (&column, &value) in c.iter().zip(v) {
                        out[column as usize] = T::cast_from(value);
                    }
                    check::<_, T>(c.iter().map(|&c| u64::from(c)).zip(v.iter().copied()), rounded)
                }))
            }
        }
    }

    fn dense_row_with(
        &self,
        position: usize,
        out: &mut [f32],
        ops: &RowOps,
        scratch: &mut Vec<f32>,
        table: &mut Table,
    ) {
        let (band, row) = self.locate(position);
        match band {
            Band::Dense { n_cols, values, .. } => {
                with_values!(values, v => ops.values(&v[row * n_cols..(row + 1) * n_cols], scratch, table));
                out.copy_from_slice(scratch);
            }
            Band::Sparse { offsets, columns, values } => {
                let span = offsets[row]..offsets[row + 1];
                with_values!(values, v => ops.values(&v[span.clone()], scratch, table));
                out.fill(0.0);
                with_columns!(columns, c => {
                    for (&column, &value) in c[span].iter().zip(scratch.iter()) {
                        out[column as usize] = value;
                    }
                });
            }
        }
        ops.finish(out);
    }
}
