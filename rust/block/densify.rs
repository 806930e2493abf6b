//! Rows of a block into a dense batch: each byte of it written once, by as many threads as allowed.

use super::cast::{CastFrom, Loss, Target};
use super::{Band, Block, Rounded, rows_per_thread};
use crate::error::{Error, Result};
use crate::{with_columns, with_values};

/// Rows below which a second thread costs more than it saves (an empty scope takes 0.2 to 0.4 ms on 2 cores).
const MIN_BYTES_PER_THREAD: usize = 1 << 21;

impl Block {
    /// Writes the rows at `positions` to `out`, row-major and `n_cols` wide, and tells of the first whole number rounded.
    ///
    /// All positions must be rows of the block (see [`Block::first_out_of_range`]); `out` must be of the exact size.
    ///
    /// # Errors
    /// [`Error::Inexact`] where an integer dtype cannot hold a value.
    ///
    /// # Panics
    /// Where a position is out of range.
    pub fn dense<T: Target>(&self, positions: &[i64], out: &mut [T], threads: usize) -> Result<Option<Rounded>> {
        if self.n_cols == 0 || positions.is_empty() {
            return Ok(None);
        }
        let least = (MIN_BYTES_PER_THREAD / (self.n_cols * size_of::<T>()).max(1)).max(1);
        let share = rows_per_thread(positions.len(), threads, least);
        let mut pieces = positions.chunks(share).zip(out.chunks_mut(share * self.n_cols));
        let Some((first, first_out)) = pieces.next() else { return Ok(None) };
        std::thread::scope(|scope| {
            let others: Vec<_> =
                pieces.map(|(rows, out)| scope.spawn(move || self.dense_rows(rows, out))).collect();
            let mut rounded = self.dense_rows(first, first_out)?;
            for other in others {
                let found = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                rounded = rounded.or(found);
            }
            Ok(rounded)
        })
    }

    fn dense_rows<T: Target>(&self, positions: &[i64], out: &mut [T]) -> Result<Option<Rounded>> {
        let mut rounded = None;
        for (&position, out) in positions.iter().zip(out.chunks_exact_mut(self.n_cols)) {
            let (band, row) = self.locate(position as usize);
            match band {
                Band::Dense { n_cols, values, .. } => {
                    let span = row * n_cols..(row + 1) * n_cols;
                    with_values!(values, v => {
                        out.iter_mut().zip(&v[span.clone()]).for_each(|(o, x)| *o = T::cast_from(*x));
                        check::<_, T>((0u64..).zip(v[span].iter().copied()), &mut rounded)?;
                    });
                }
                Band::Sparse { offsets, columns, values } => {
                    let span = offsets[row]..offsets[row + 1];
                    out.fill(T::default());
                    with_columns!(columns, c => with_values!(values, v => {
                        let (c, v) = (&c[span.clone()], &v[span]);
                        for (&column, &value) in c.iter().zip(v) {
                            out[usize::try_from(column).unwrap_or(usize::MAX)] = T::cast_from(value);
                        }
                        check::<_, T>(c.iter().map(|&c| u64::from(c)).zip(v.iter().copied()), &mut rounded)?;
                    }));
                }
            }
        }
        Ok(rounded)
    }
}

/// Looks for what the conversion of these values lost; free where the pair of types is exact.
pub(super) fn check<V, T>(values: impl Iterator<Item = (u64, V)>, rounded: &mut Option<Rounded>) -> Result<()>
where
    T: Target + CastFrom<V>,
    V: Copy + std::fmt::Display,
{
    if <T as CastFrom<V>>::EXACT {
        return Ok(());
    }
    for (column, value) in values {
        match T::loss(value) {
            Loss::None => {}
            Loss::Rounded if rounded.is_some() => {}
            Loss::Rounded => *rounded = Some(Rounded { column, value: value.to_string() }),
            Loss::Impossible => {
                return Err(Error::Inexact { column, value: value.to_string(), dtype: T::NAME });
            }
        }
    }
    Ok(())
}
