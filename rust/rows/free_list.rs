//! A free list: memory of dropped row groups for the next ones. New memory costs page faults.
//!
//! The windows of one matrix share the list: consecutive windows alternate between two allocations, which are freed with
//! the last window.

use std::sync::{Mutex, TryLockError};

use super::{Columns, RowGroup, Values};

type Part = (Columns, Values);

/// Emptied vectors of dropped row groups.
#[derive(Debug, Default)]
pub(crate) struct FreeList {
    state: Mutex<FreeParts>,
}

#[derive(Debug, Default)]
struct FreeParts {
    parts: Vec<Part>,
    /// Elements that were requested last.
    wanted: usize,
}

impl FreeList {
    /// Empty columns and values with room for `capacity` elements, of a matrix of `n_cols` columns.
    ///
    /// Used memory keeps the width that the values needed before.
    #[must_use]
    pub(crate) fn take(&self, n_cols: u64, capacity: usize) -> Part {
        self.with(|state| state.best_for(capacity)).flatten().unwrap_or_else(|| {
            // Jobs have similar sizes: with some more room the memory fits the next one.
            let room = capacity + capacity / 8;
            (Columns::with_capacity(n_cols, room), Values::with_capacity(room))
        })
    }

    /// Keeps the memory of a row group of the same matrix.
    pub(super) fn keep(&self, group: RowGroup) {
        let RowGroup::Sparse { mut columns, mut values, .. } = group else { return };
        columns.clear();
        values.clear();
        let part = (columns, values);
        // Memory that is much too small comes from the small windows at the start of an epoch, and would not be used again.
        self.with(|state| {
            if room_in(&part) >= state.wanted / 2 {
                state.parts.push(part);
            }
        });
    }

    /// `None` while another thread holds the lock, or if one did when this process was forked.
    fn with<R>(&self, work: impl FnOnce(&mut FreeParts) -> R) -> Option<R> {
        match self.state.try_lock() {
            Ok(mut state) => Some(work(&mut state)),
            Err(TryLockError::Poisoned(state)) => Some(work(&mut state.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl FreeParts {
    /// The smallest part that is large enough. If none is, the largest is dropped, to make room for a larger one.
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

    use super::super::DecodedRows;
    use super::*;

    fn group(n: usize) -> RowGroup {
        let (mut columns, mut values) = (Columns::with_capacity(100, n), Values::with_capacity(n));
        (0..n).for_each(|i| columns.push(i as u32));
        values.append(crate::dtype::Kind::U16, &vec![1; 2 * n]);
        RowGroup::Sparse {
            offsets: vec![0, n],
            columns,
            values,
            all_positive: true,
            totals: crate::rows::Totals::OfValues,
        }
    }

    #[test]
    fn a_dropped_block_leaves_the_memory_of_its_own_bands() {
        let free_list = Arc::new(FreeList::default());
        let kept = Arc::new(group(50));
        let mut decoded = DecodedRows::new(100).with_free_list(Arc::clone(&free_list));
        decoded.push_group(Arc::new(group(60)));
        decoded.push_group(Arc::clone(&kept));
        let other = decoded.clone();
        drop(decoded);
        assert_eq!(free_list.with(|state| state.parts.len()), Some(0), "the other still reads them");
        drop(other);
        assert_eq!(free_list.with(|state| state.parts.len()), Some(1), "the cache still has the second");

        let (columns, values) = free_list.take(100, 60);
        assert_eq!((columns.len(), values.len()), (0, 0));
        assert!(matches!(values, Values::U16(_)), "as wide as before");
        assert!(matches!(free_list.take(100, 60).1, Values::U8(_)), "new memory where there is none");
    }

    #[test]
    fn the_smallest_that_fits_is_used() {
        let free_list = FreeList::default();
        for n in [7, 5, 90, 6] {
            free_list.keep(group(n));
        }
        let room = |capacity| room_in(&free_list.take(100, capacity));
        assert_eq!(room(6), 6);
        assert_eq!(room(6), 7);
        assert_eq!(room(6), 90);
        assert!(room(80) >= 80, "the last, of 5, is too small and goes");
        assert_eq!(free_list.with(|state| state.parts.len()), Some(0));
    }

    #[test]
    fn memory_that_is_much_too_small_is_not_kept() {
        let free_list = FreeList::default();
        drop(free_list.take(100, 20));
        free_list.keep(group(9));
        free_list.keep(group(10));
        assert_eq!(free_list.with(|state| state.parts.len()), Some(1));
    }
}
