//! A band: some rows of a matrix, decoded, narrow, ready to be copied into batches. Never changed once made.

use super::{Columns, Values};
use crate::with_columns;

/// Marks a column of the matrix that is not wanted in a [`Selection`], and a wanted one that the matrix does not have.
const NONE: u32 = u32::MAX;

/// Which columns are wanted, and in which order; the matrix may lack some of them.
#[derive(Clone, Debug)]
pub struct Selection {
    order: Vec<u32>,
    place: Vec<u32>,
}

impl Selection {
    /// A wanted column that the matrix does not have: all zero.
    pub const GAP: i64 = -1;

    /// Columns `order` of a matrix of `n_cols`, all distinct and in range or [`Selection::GAP`], else the first that is not.
    ///
    /// # Errors
    /// The offending column.
    pub fn new(order: &[i64], n_cols: u64) -> Result<Self, i64> {
        let mut place = vec![NONE; n_cols as usize];
        for (to, &from) in order.iter().enumerate().filter(|(_, from)| **from != Self::GAP) {
            match usize::try_from(from).ok().and_then(|from| place.get_mut(from)) {
                Some(slot) if *slot == NONE => *slot = to as u32,
                _ => return Err(from),
            }
        }
        Ok(Self { order: order.iter().map(|&c| u32::try_from(c).unwrap_or(NONE)).collect(), place })
    }

    /// Columns delivered.
    #[must_use]
    pub fn width(&self) -> usize {
        self.order.len()
    }

    /// The matrix's columns in delivery order; `None` for those that it does not have.
    #[must_use]
    pub fn order(&self) -> impl ExactSizeIterator<Item = Option<u32>> + '_ {
        self.order.iter().map(|&column| (column != NONE).then_some(column))
    }

    /// Where a column of the matrix goes, if it is wanted.
    #[must_use]
    pub fn place(&self, column: u32) -> Option<u32> {
        self.place.get(column as usize).copied().filter(|&place| place != NONE)
    }
}

/// Decoded rows.
#[derive(Clone, Debug)]
pub enum Band {
    /// Compressed rows: row i has elements `offsets[i]..offsets[i + 1]`, its columns strictly increasing.
    Sparse {
        /// One more than there are rows.
        offsets: Vec<usize>,
        /// Column of each value, below the block's number of columns.
        columns: Columns,
        /// The values.
        values: Values,
    },
    /// Whole rows of `n_cols` values.
    Dense {
        /// Values in a row.
        n_cols: usize,
        /// Rows in the band (told apart for matrices without columns).
        n_rows: usize,
        /// Row-major.
        values: Values,
    },
}

impl Band {
    /// Rows held.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        match self {
            Self::Sparse { offsets, .. } => offsets.len() - 1,
            Self::Dense { n_rows, .. } => *n_rows,
        }
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Sparse { offsets, columns, values } => offsets.capacity() * 8 + columns.bytes() + values.bytes(),
            Self::Dense { values, .. } => values.bytes(),
        }
    }

    /// Gives back memory that is not used, before the band is kept for long.
    pub fn shrink(&mut self) {
        match self {
            Self::Sparse { offsets, columns, values } => {
                offsets.shrink_to_fit();
                columns.shrink();
                values.shrink();
            }
            Self::Dense { values, .. } => values.shrink(),
        }
    }

    /// Elements stored in row `row`.
    #[must_use]
    pub fn row_nnz(&self, row: usize) -> usize {
        match self {
            Self::Sparse { offsets, .. } => offsets[row + 1] - offsets[row],
            Self::Dense { n_cols, .. } => *n_cols,
        }
    }

    /// A sparse band from rows as they are stored: columns in any order, perhaps repeated.
    ///
    /// `offsets` ends at the length of both vectors. Repeated columns are summed in storage order, as scipy does.
    #[must_use]
    pub fn from_stored(offsets: Vec<usize>, columns: Columns, values: Values, selection: Option<&Selection>) -> Self {
        let selected = selection.map(|s| select(&offsets, &columns, &values, s));
        let (offsets, columns, values) = selected.unwrap_or((offsets, columns, values));
        if is_canonical(&offsets, &columns) {
            return Self::Sparse { offsets, columns, values };
        }
        sort_and_sum(&offsets, &columns, &values)
    }
}

fn is_canonical(offsets: &[usize], columns: &Columns) -> bool {
    // Without an early exit within a row the comparison runs over many columns at once.
    #[allow(clippy::needless_bitwise_bool)]
    let canonical = with_columns!(columns, c => offsets.windows(2).all(|w| {
        let row = &c[w[0]..w[1]];
        row.iter().zip(&row[row.len().min(1)..]).fold(true, |rising, (a, b)| rising & (a < b))
    }));
    canonical
}

fn select(
    offsets: &[usize],
    columns: &Columns,
    values: &Values,
    selection: &Selection,
) -> (Vec<usize>, Columns, Values) {
    let mut kept = Vec::new();
    let mut out_offsets = Vec::with_capacity(offsets.len());
    let mut out_columns = Columns::with_capacity(selection.width() as u64, 0);
    out_offsets.push(0);
    for w in offsets.windows(2) {
        with_columns!(columns, c => for (i, &column) in c[w[0]..w[1]].iter().enumerate() {
            let place = selection.place[column as usize];
            if place != NONE {
                out_columns.push(place);
                kept.push(w[0] + i);
            }
        });
        out_offsets.push(kept.len());
    }
    (out_offsets, out_columns, values.gather(&kept))
}

/// Rows with their columns sorted and repeated ones summed, in storage order (float sums depend on it).
fn sort_and_sum(offsets: &[usize], columns: &Columns, values: &Values) -> Band {
    let mut order: Vec<usize> = (0..columns.len()).collect();
    for w in offsets.windows(2) {
        order[w[0]..w[1]].sort_by_key(|&i| columns.get(i));
    }
    let sorted: Vec<u32> = order.iter().map(|&i| columns.get(i)).collect();
    // first[i]: this element opens a new column of its row, the next ones of the same column are added to it.
    let mut first = vec![true; order.len()];
    let mut out_offsets = Vec::with_capacity(offsets.len());
    out_offsets.push(0);
    let mut distinct = 0;
    for w in offsets.windows(2) {
        for i in w[0]..w[1] {
            first[i] = i == w[0] || sorted[i] != sorted[i - 1];
            distinct += usize::from(first[i]);
        }
        out_offsets.push(distinct);
    }
    let mut out_columns = match columns {
        Columns::U16(_) => Columns::U16(Vec::with_capacity(distinct)),
        Columns::U32(_) => Columns::U32(Vec::with_capacity(distinct)),
    };
    sorted.iter().zip(&first).filter(|(_, first)| **first).for_each(|(&c, _)| out_columns.push(c));
    let values = values.gather(&order);
    let values = if distinct == order.len() { values } else { sum_groups(values, &first) };
    Band::Sparse { offsets: out_offsets, columns: out_columns, values }
}

/// Adds each element that is not the first of its group to the group's first. Integers are summed wide: they never wrap.
fn sum_groups(values: Values, first: &[bool]) -> Values {
    fn fold<T: Copy, S: Copy>(v: &[T], first: &[bool], wide: impl Fn(T) -> S, add: impl Fn(S, S) -> S) -> Vec<S> {
        let mut out: Vec<S> = Vec::with_capacity(v.len());
        for (&x, &opens) in v.iter().zip(first) {
            match out.last_mut() {
                Some(last) if !opens => *last = add(*last, wide(x)),
                _ => out.push(wide(x)),
            }
        }
        out
    }
    match values {
        Values::U8(v) => Values::I64(fold(&v, first, i64::from, i64::saturating_add)),
        Values::U16(v) => Values::I64(fold(&v, first, i64::from, i64::saturating_add)),
        Values::I32(v) => Values::I64(fold(&v, first, i64::from, i64::saturating_add)),
        Values::I64(v) => Values::I64(fold(&v, first, |x| x, i64::saturating_add)),
        Values::U64(v) => Values::U64(fold(&v, first, |x| x, u64::saturating_add)),
        Values::F32(v) => Values::F32(fold(&v, first, |x| x, |a, b| a + b)),
        Values::F64(v) => Values::F64(fold(&v, first, |x| x, |a, b| a + b)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(c: &[u16]) -> Columns {
        Columns::U16(c.to_vec())
    }

    #[test]
    fn unsorted_and_repeated_columns_become_sorted_sums() {
        let band = Band::from_stored(
            vec![0, 4, 4, 6],
            columns(&[5, 1, 5, 0, 2, 2]),
            Values::F32(vec![1.0, 2.0, 3.5, 4.0, 0.25, 0.5]),
            None,
        );
        let Band::Sparse { offsets, columns: c, values } = band else { panic!() };
        assert_eq!(offsets, [0, 3, 3, 4]);
        assert_eq!(c, columns(&[0, 1, 5, 2]));
        assert_eq!(values, Values::F32(vec![4.0, 2.0, 4.5, 0.75]));
    }

    #[test]
    fn a_selection_renames_and_drops_columns() {
        let selection = Selection::new(&[4, 0, 2], 5).unwrap();
        let band = Band::from_stored(
            vec![0, 3, 5],
            columns(&[0, 1, 4, 2, 3]),
            Values::U8(vec![1, 2, 3, 4, 5]),
            Some(&selection),
        );
        let Band::Sparse { offsets, columns: c, values } = band else { panic!() };
        assert_eq!(offsets, [0, 2, 3]);
        assert_eq!(c, columns(&[0, 1, 2]));
        assert_eq!(values, Values::U8(vec![3, 1, 4]));
    }

    #[test]
    fn a_selection_refuses_repeats_and_strangers() {
        assert_eq!(Selection::new(&[1, 1], 3).unwrap_err(), 1);
        assert_eq!(Selection::new(&[0, 3], 3).unwrap_err(), 3);
        assert_eq!(Selection::new(&[-2], 3).unwrap_err(), -2);
    }

    #[test]
    fn a_selection_may_have_gaps() {
        let selection = Selection::new(&[-1, 2, -1, 0], 3).unwrap();
        assert_eq!((selection.width(), selection.place(2), selection.place(1)), (4, Some(1), None));
        assert_eq!(selection.order().collect::<Vec<_>>(), [None, Some(2), None, Some(0)]);
        let band = Band::from_stored(vec![0, 3], columns(&[0, 1, 2]), Values::U8(vec![1, 2, 3]), Some(&selection));
        let Band::Sparse { columns: c, values, .. } = band else { panic!() };
        assert_eq!((c, values), (columns(&[1, 3]), Values::U8(vec![3, 1])));
    }

    #[test]
    fn byte_sums_do_not_wrap() {
        let band = Band::from_stored(vec![0, 2], columns(&[1, 1]), Values::U8(vec![200, 100]), None);
        let Band::Sparse { values, .. } = band else { panic!() };
        assert_eq!(values, Values::I64(vec![300]));
    }
}
