//! Memory of bands that are gone, for the next ones: fresh memory costs page faults, a third of what a band costs to fill.
//!
//! Blocks own it together: it lives while one of a matrix's blocks does, so that reading windows one after the other goes
//! round in the memory of two, and the end of an epoch leaves nothing behind.

use std::sync::{Mutex, TryLockError};

use super::{Band, Columns, Values};

type Part = (Columns, Values);

/// Emptied vectors of dropped bands.
#[derive(Debug, Default)]
pub(crate) struct Spare {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    parts: Vec<Part>,
    /// Elements that were wanted last.
    wanted: usize,
}

impl Spare {
    /// Empty columns and values with room for `capacity` elements, of a matrix of `n_cols` columns.
    ///
    /// Used memory keeps the width that the values needed before.
    #[must_use]
    pub(crate) fn take(&self, n_cols: u64, capacity: usize) -> Part {
        self.with(|state| state.best_for(capacity)).flatten().unwrap_or_else(|| {
            // Jobs are of about one size: a little more makes the memory fit the next.
            let room = capacity + capacity / 8;
            (Columns::with_capacity(n_cols, room), Values::with_capacity(room))
        })
    }

    /// Keeps the memory of a band of the same matrix.
    pub(super) fn keep(&self, band: Band) {
        let Band::Sparse { mut columns, mut values, .. } = band else { return };
        columns.clear();
        values.clear();
        let part = (columns, values);
        // What is much too small comes from the small windows at the start of an epoch, and would not be used again.
        self.with(|state| {
            if room_in(&part) >= state.wanted / 2 {
                state.parts.push(part);
            }
        });
    }

    /// `None` where another thread is at it, or was in the process that this one was forked from.
    fn with<R>(&self, work: impl FnOnce(&mut State) -> R) -> Option<R> {
        match self.state.try_lock() {
            Ok(mut state) => Some(work(&mut state)),
            Err(TryLockError::Poisoned(state)) => Some(work(&mut state.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl State {
    /// The smallest part that is large enough. Where none is, the largest goes, so that a larger one can come in its place.
    fn best_for(&mut self, capacity: usize) -> Option<Part> {
        self.wanted = capacity;
        let rank = |part| match room_in(part) {
            room if room >= capacity => (0, room),
            room => (1, usize::MAX - room),
        };
        let at = self.parts.iter().enumerate().min_by_key(|(_, part)| rank(part))?.0;
        Some(self.parts.swap_remove(at)).filter(|part| room_in(part) >= capacity)
    }
}

fn room_in((columns, values): &Part) -> usize {
    columns.capacity().min(values.capacity())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Block;
    use super::*;

    fn band(n: usize) -> Band {
        let (mut columns, mut values) = (Columns::with_capacity(100, n), Values::with_capacity(n));
        (0..n).for_each(|i| columns.push(i as u32));
        values.append(crate::dtype::Kind::U16, &vec![1; 2 * n]);
        Band::Sparse { offsets: vec![0, n], columns, values, totals: crate::rows::Totals::OfValues }
    }

    #[test]
    fn a_dropped_block_leaves_the_memory_of_its_own_bands() {
        let spare = Arc::new(Spare::default());
        let kept = Arc::new(band(50));
        let mut block = Block::new(100).with_spare(Arc::clone(&spare));
        block.push_band(Arc::new(band(60)));
        block.push_band(Arc::clone(&kept));
        let other = block.clone();
        drop(block);
        assert_eq!(spare.with(|state| state.parts.len()), Some(0), "the other block still reads them");
        drop(other);
        assert_eq!(spare.with(|state| state.parts.len()), Some(1), "the cache still has the second");

        let (columns, values) = spare.take(100, 60);
        assert_eq!((columns.len(), values.len()), (0, 0));
        assert!(matches!(values, Values::U16(_)), "as wide as before");
        assert!(matches!(spare.take(100, 60).1, Values::U8(_)), "new memory where there is none");
    }

    #[test]
    fn the_smallest_that_fits_is_used() {
        let spare = Spare::default();
        for n in [7, 5, 90, 6] {
            spare.keep(band(n));
        }
        let room = |capacity| room_in(&spare.take(100, capacity));
        assert_eq!(room(6), 6);
        assert_eq!(room(6), 7);
        assert_eq!(room(6), 90);
        assert!(room(80) >= 80, "the last, of 5, is too small and goes");
        assert_eq!(spare.with(|state| state.parts.len()), Some(0));
    }

    #[test]
    fn memory_that_is_much_too_small_is_not_kept() {
        let spare = Spare::default();
        drop(spare.take(100, 20));
        spare.keep(band(9));
        spare.keep(band(10));
        assert_eq!(spare.with(|state| state.parts.len()), Some(1));
    }
}
