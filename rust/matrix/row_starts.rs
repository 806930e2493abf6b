//! `RowStarts`: an indptr in four bytes per row.

use std::ops::Range;

/// The first element of each row: one base per [`RowStarts::GROUP`] rows, and four bytes per row.
#[derive(Clone, Debug, Default)]
pub struct RowStarts {
    n_rows: u64,
    bases: Vec<u64>,
    offsets: Vec<u32>,
    /// Only if 256 rows have 2³² elements or more.
    wide: Vec<u64>,
}

impl RowStarts {
    const GROUP: usize = 256;

    /// From an indptr, which must be monotone and begin with zero.
    ///
    /// # Errors
    /// The first position that breaks the order.
    pub fn new(indptr: &[u64]) -> Result<Self, usize> {
        if indptr.first().is_some_and(|&first| first != 0) {
            return Err(0);
        }
        if let Some(at) = indptr.windows(2).position(|w| w[0] > w[1]) {
            return Err(at + 1);
        }
        let n_rows = indptr.len().saturating_sub(1) as u64;
        let bases: Vec<u64> = indptr.iter().step_by(Self::GROUP).copied().collect();
        // Exact capacity: there may be a hundred million rows.
        let mut offsets = Vec::with_capacity(indptr.len());
        for (group, &base) in indptr.chunks(Self::GROUP).zip(&bases) {
            for &start in group {
                let Ok(offset) = u32::try_from(start - base) else {
                    return Ok(Self { n_rows, bases: Vec::new(), offsets: Vec::new(), wide: indptr.to_vec() });
                };
                offsets.push(offset);
            }
        }
        Ok(Self { n_rows, bases, offsets, wide: Vec::new() })
    }

    /// First element of `row`; for `row == n_rows`, the number of elements.
    #[must_use]
    pub fn start(&self, row: u64) -> u64 {
        let row = row as usize;
        match (self.wide.get(row), self.offsets.get(row)) {
            (Some(&start), _) => start,
            (None, Some(&offset)) => self.bases[row / Self::GROUP] + u64::from(offset),
            (None, None) => 0,
        }
    }

    /// The first row that begins at `element` or after it; the number of rows if there is none.
    #[must_use]
    pub(crate) fn first_row_from(&self, element: u64) -> u64 {
        let (mut low, mut high) = (0, self.n_rows);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.start(middle) < element { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// Elements of `row`.
    #[must_use]
    pub fn span(&self, row: u64) -> Range<u64> {
        self.start(row)..self.start(row + 1)
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn row_starts_refuse_a_broken_indptr() {
        assert_eq!(RowStarts::new(&[1, 2]).unwrap_err(), 0);
        assert_eq!(RowStarts::new(&[0, 5, 4, 9]).unwrap_err(), 2);
        assert_eq!(RowStarts::new(&[]).unwrap().n_rows, 0);
    }

    #[test]
    fn row_starts_hold_more_than_four_bytes_can_count() {
        let huge = [0, 1 << 33, (1 << 33) + 5];
        let starts = RowStarts::new(&huge).unwrap();
        assert_eq!((starts.span(0), starts.span(1)), (0..1 << 33, 1 << 33..(1 << 33) + 5));
        // Past 2³¹ and 2³² in all, yet few in any 256 rows.
        let many: Vec<u64> = (0..2000u64).map(|r| r * 5_000_000).collect();
        let starts = RowStarts::new(&many).unwrap();
        assert!(starts.wide.is_empty());
        assert_eq!(starts.start(1999), 1999 * 5_000_000);
    }

    proptest! {
        #[test]
        fn row_starts_equal_the_indptr(lengths in proptest::collection::vec(0u64..5000, 0..1500)) {
            let mut indptr = vec![0u64];
            for length in &lengths {
                indptr.push(indptr[indptr.len() - 1] + length);
            }
            let starts = RowStarts::new(&indptr).unwrap();
            for (row, &start) in indptr.iter().enumerate() {
                prop_assert_eq!(starts.start(row as u64), start);
            }
            for element in [0, 1, 4999, 5000, indptr[indptr.len() - 1] / 2, u64::MAX] {
                let first = indptr[..lengths.len()].iter().position(|&start| start >= element).unwrap_or(lengths.len());
                prop_assert_eq!(starts.first_row_from(element), first as u64);
            }
        }
    }
}
