//! Memory of bands that are gone, for the next ones: fresh memory costs page faults, a third of what a band costs to fill.
//!
//! Blocks own it together: it lives while one of a matrix's blocks does, so that reading windows one after the other goes
//! round in the memory of two, and the end of an epoch leaves nothing behind.

use std::sync::{Mutex, TryLockError};

use super::{Band, Columns, Values};

/// Emptied vectors of dropped bands.
#[derive(Debug, Default)]
pub struct Spare {
    parts: Mutex<Vec<(Columns, Values)>>,
}

impl Spare {
    /// Empty columns and values with room for `capacity` elements, of a matrix of `n_cols` columns.
    ///
    /// Used memory keeps the width that the values needed before.
    #[must_use]
    pub fn take(&self, n_cols: u64, capacity: usize) -> (Columns, Values) {
        let room_in = |(columns, values): &(Columns, Values)| columns.capacity().min(values.capacity());
        // The smallest that is large enough. Where none is, the largest goes, and one that fits more comes in its place.
        let best = |parts: &mut Vec<_>| {
            let rank = |part| match room_in(part) {
                room if room >= capacity => (0, room),
                room => (1, usize::MAX - room),
            };
            let at = parts.iter().enumerate().min_by_key(|(_, part)| rank(part))?.0;
            Some(parts.swap_remove(at)).filter(|part| room_in(part) >= capacity)
        };
        let used = self.with(best).flatten();
        used.unwrap_or_else(|| {
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
        self.with(|parts| parts.push((columns, values)));
    }

    /// `None` where another thread is at it, or was in the process that this one was forked from.
    fn with<R>(&self, work: impl FnOnce(&mut Vec<(Columns, Values)>) -> R) -> Option<R> {
        match self.parts.try_lock() {
            Ok(mut parts) => Some(work(&mut parts)),
            Err(TryLockError::Poisoned(parts)) => Some(work(&mut parts.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Block;
    use super::*;

    fn band(n: usize) -> Band {
        let (mut columns, mut values) = (Columns::with_capacity(100, n), Values::with_capacity(n));
        (0..n).for_each(|i| columns.push(i as u32));
        values.append(crate::h5::dtype::Kind::U16, &vec![1; 2 * n]);
        Band::Sparse { offsets: vec![0, n], columns, values }
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
        assert_eq!(spare.with(|parts| parts.len()), Some(0), "the other block still reads them");
        drop(other);
        assert_eq!(spare.with(|parts| parts.len()), Some(1), "the cache still has the second");

        let (columns, values) = spare.take(100, 60);
        assert_eq!((columns.len(), values.len()), (0, 0));
        assert!(matches!(values, Values::U16(_)), "as wide as before");
        assert!(matches!(spare.take(100, 60).1, Values::U8(_)), "new memory where there is none");
    }

    #[test]
    fn memory_that_is_too_small_is_not_used() {
        let spare = Spare::default();
        spare.keep(band(5));
        let (columns, values) = spare.take(100, 6);
        assert!(columns.capacity() >= 6 && values.capacity() >= 6);
    }
}
