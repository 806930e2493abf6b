//! Rows of a block into a CSR batch: sorted, distinct columns, 32-bit indices.

use super::cast::Target;
use super::densify::check;
use super::{Band, Block, Rounded, rows_per_thread};
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

/// Values below which a second thread costs more than it saves.
const MIN_VALUES_PER_THREAD: usize = 1 << 18;

impl Block {
    /// The rows at `positions` as CSR. Zeros of dense rows are left out; stored zeros of sparse rows are kept, as scipy does.
    ///
    /// All positions must be rows of the block. `None` where the batch has 2³¹ values or more.
    ///
    /// # Errors
    /// [`crate::Error::Inexact`] where an integer dtype cannot hold a value.
    ///
    /// # Panics
    /// Where a position is out of range.
    pub fn csr<T: Target>(&self, positions: &[i64], threads: usize) -> Result<Option<CsrBatch<T>>> {
        let mut indptr = Vec::with_capacity(positions.len() + 1);
        let mut total = 0usize;
        indptr.push(0);
        for &position in positions {
            total += self.row_stored(position as usize);
            let Ok(end) = i32::try_from(total) else { return Ok(None) };
            indptr.push(end);
        }
        let mut indices = vec![0i32; total];
        let mut data = vec![T::default(); total];
        let least = positions.len().saturating_mul(MIN_VALUES_PER_THREAD) / total.max(1);
        let share = rows_per_thread(positions.len(), threads, least);
        let rounded = std::thread::scope(|scope| {
            let (mut free_indices, mut free_data) = (&mut indices[..], &mut data[..]);
            let mut others = Vec::new();
            let mut own = None;
            for (i, rows) in positions.chunks(share).enumerate() {
                let from = indptr[i * share] as usize;
                let n = indptr[i * share + rows.len()] as usize - from;
                let (piece_indices, rest_indices) = std::mem::take(&mut free_indices).split_at_mut(n);
                let (piece_data, rest_data) = std::mem::take(&mut free_data).split_at_mut(n);
                (free_indices, free_data) = (rest_indices, rest_data);
                if i == 0 {
                    own = Some((rows, piece_indices, piece_data));
                } else {
                    others.push(scope.spawn(move || self.csr_rows(rows, piece_indices, piece_data)));
                }
            }
            let mut rounded = match own {
                Some((rows, indices, data)) => self.csr_rows(rows, indices, data)?,
                None => None,
            };
            for other in others {
                let found = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                rounded = rounded.or(found);
            }
            Ok(rounded)
        })?;
        Ok(Some(CsrBatch { indptr, indices, data, rounded }))
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

    fn csr_rows<T: Target>(&self, positions: &[i64], indices: &mut [i32], data: &mut [T]) -> Result<Option<Rounded>> {
        let mut rounded = None;
        let mut at = 0;
        for &position in positions {
            let (band, row) = self.locate(position as usize);
            match band {
                Band::Sparse { offsets, columns, values } => {
                    let span = offsets[row]..offsets[row + 1];
                    let end = at + span.len();
                    with_columns!(columns, c => {
                        let c = &c[span.clone()];
                        indices[at..end].iter_mut().zip(c).for_each(|(o, &c)| *o = u32::from(c) as i32);
                        with_values!(values, v => {
                            let v = &v[span];
                            data[at..end].iter_mut().zip(v).for_each(|(o, x)| *o = T::cast_from(*x));
                            check::<_, T>(c.iter().map(|&c| u64::from(c)).zip(v.iter().copied()), &mut rounded)?;
                        });
                    });
                    at = end;
                }
                Band::Dense { n_cols, values, .. } => {
                    let span = row * n_cols..(row + 1) * n_cols;
                    with_values!(values, v => {
                        let stored = || (0u64..).zip(v[span.clone()].iter().copied()).filter(|(_, x)| !is_zero(x));
                        for (column, x) in stored() {
                            indices[at] = column as i32;
                            data[at] = T::cast_from(x);
                            at += 1;
                        }
                        check::<_, T>(stored(), &mut rounded)?;
                    });
                }
            }
        }
        Ok(rounded)
    }
}

fn is_zero<T: PartialEq + Default>(x: &T) -> bool {
    *x == T::default()
}
