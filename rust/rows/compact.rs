//! Copies of decoded rows that take no more memory than they need: rows that are kept for long.

use std::ops::Range;
use std::sync::Arc;

use super::{DecodedRows, RowGroup, Totals};

impl DecodedRows {
    /// The same rows, in row groups that have no other rows and no spare memory.
    #[must_use]
    pub(crate) fn compact(&self) -> Self {
        let mut kept = Self::new(self.n_cols);
        for run in self.rows.chunk_by(|a, b| a.group == b.group) {
            let group = &self.groups[run[0].group as usize];
            let rows: Vec<usize> = run.iter().map(|place| place.row as usize).collect();
            if let Some((_, place)) = self.places.iter().rfind(|(first, _)| *first <= run[0].group)
                && kept.places.last().is_none_or(|(_, last)| last != place)
            {
                kept.places.push((kept.groups.len() as u32, place.clone()));
            }
            kept.push_group(Arc::new(some_rows(group, &rows)));
        }
        kept.groups.shrink_to_fit();
        kept.rows.shrink_to_fit();
        kept
    }
}

fn some_rows(group: &RowGroup, rows: &[usize]) -> RowGroup {
    let totals = match group.totals() {
        Totals::Kept(totals) => Totals::Kept(rows.iter().map(|&row| totals[row]).collect()),
        other => other.clone(),
    };
    match group {
        RowGroup::Sparse { offsets, columns, values, all_positive, .. } => {
            let ranges: Vec<Range<usize>> = rows.iter().map(|&row| offsets[row]..offsets[row + 1]).collect();
            let mut ends = Vec::with_capacity(rows.len() + 1);
            ends.push(0);
            ends.extend(ranges.iter().scan(0, |end, range| {
                *end += range.len();
                Some(*end)
            }));
            let (columns, values) = (columns.at(&ranges), values.at(&ranges));
            RowGroup::Sparse { offsets: ends, columns, values, all_positive: *all_positive, totals }
        }
        RowGroup::Dense { n_cols, values, .. } => {
            let ranges: Vec<Range<usize>> = rows.iter().map(|&row| row * n_cols..(row + 1) * n_cols).collect();
            RowGroup::Dense { n_cols: *n_cols, n_rows: rows.len(), values: values.at(&ranges), totals }
        }
    }
}

/// The elements in `ranges`, one range after the other.
pub(super) fn joined<T: Copy>(elements: &[T], ranges: &[Range<usize>]) -> Vec<T> {
    let mut out = Vec::with_capacity(ranges.iter().map(ExactSizeIterator::len).sum());
    for range in ranges {
        out.extend_from_slice(&elements[range.clone()]);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Columns, Part, Values};
    use super::*;

    /// Three sparse rows: one value, none, two; and two dense rows of the same three columns.
    fn rows() -> DecodedRows {
        let mut roomy = Vec::with_capacity(100);
        roomy.extend([7u8, 8, 9]);
        let sparse = RowGroup::Sparse {
            offsets: vec![0, 1, 1, 3],
            columns: Columns::U16(vec![2, 0, 1]),
            values: Values::U8(roomy),
            all_positive: true,
            totals: Totals::Kept(vec![70.0, 80.0, 90.0]),
        };
        let dense = RowGroup::Dense {
            n_cols: 3,
            n_rows: 2,
            values: Values::F32(vec![0.5, 0.0, 1.5, 2.5, 3.5, 4.5]),
            totals: Totals::OfValues,
        };
        let mut rows = DecodedRows::new(3);
        rows.push_group(Arc::new(sparse));
        let mut others = DecodedRows::new(3);
        others.push_group(Arc::new(dense));
        let part = |rows, place| Part { rows, positions: None, place };
        DecodedRows::concat(3, [part(&rows, "a"), part(&others, "b")])
    }

    proptest! {
        #[test]
        fn rows_and_places_stay_and_nothing_else(chosen in prop::collection::vec(0i64..5, 0..9)) {
            let all = rows();
            let some = DecodedRows::concat(3, [Part { rows: &all, positions: Some(&chosen), place: "" }]);
            let kept = some.compact();
            let at: Vec<i64> = (0..chosen.len() as i64).collect();
            let (mut wanted, mut found) = (vec![0f64; chosen.len() * 3], vec![0f64; chosen.len() * 3]);
            all.dense(&chosen, &mut wanted, 1).unwrap();
            kept.dense(&at, &mut found, 1).unwrap();
            prop_assert_eq!(wanted, found);
            prop_assert_eq!(all.totals(&chosen).unwrap(), kept.totals(&at).unwrap());
            let place = |rows: &DecodedRows, position| rows.named(position, crate::error::Error::NoTotals).to_string();
            for (&before, &after) in chosen.iter().zip(&at) {
                prop_assert_eq!(place(&all, before), place(&kept, after));
            }
            // 12 bytes of a dense row, up to 6 of a sparse one; two offsets and a total a row; and its place.
            prop_assert!(kept.bytes() <= chosen.len() * (12 + 16 + 8 + 8));
        }
    }
}
