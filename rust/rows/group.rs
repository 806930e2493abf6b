//! A row group: some decoded rows of a matrix in narrow types, to be copied into batches. It never changes.

use super::{Columns, Selection, Totals, Values};
use crate::dtype::Kind;
use crate::rows::with_columns;

/// Decoded rows.
#[derive(Clone, Debug)]
pub enum RowGroup {
    /// Compressed rows: row i has elements `offsets[i]..offsets[i + 1]`, its columns strictly increasing.
    Sparse {
        /// One more than there are rows.
        offsets: Vec<usize>,
        /// Column of each value, below the number of columns that are delivered.
        columns: Columns,
        /// The values.
        values: Values,
        /// Whether no stored value is zero or less; false also where nobody looked.
        all_positive: bool,
        /// What the rows of the matrix sum to.
        totals: Totals,
    },
    /// Whole rows of `n_cols` values.
    Dense {
        /// Values in a row.
        n_cols: usize,
        /// Rows in the row group (needed for matrices without columns).
        n_rows: usize,
        /// Row-major.
        values: Values,
        /// What the rows of the matrix sum to.
        totals: Totals,
    },
}

impl RowGroup {
    /// Rows held.
    #[must_use]
    pub(crate) fn n_rows(&self) -> usize {
        match self {
            Self::Sparse { offsets, .. } => offsets.len() - 1,
            Self::Dense { n_rows, .. } => *n_rows,
        }
    }

    /// Bytes of memory held.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Sparse { offsets, columns, values, totals, .. } => {
                offsets.capacity() * 8 + columns.bytes() + values.bytes() + totals.bytes()
            }
            Self::Dense { values, totals, .. } => values.bytes() + totals.bytes(),
        }
    }

    /// Frees unused memory, before the row group is cached.
    pub(crate) fn shrink(&mut self) {
        match self {
            Self::Sparse { offsets, columns, values, .. } => {
                offsets.shrink_to_fit();
                columns.shrink();
                values.shrink();
            }
            Self::Dense { values, .. } => values.shrink(),
        }
    }

    /// Elements stored in row `row`.
    #[must_use]
    pub(crate) fn row_nnz(&self, row: usize) -> usize {
        match self {
            Self::Sparse { offsets, .. } => offsets[row + 1] - offsets[row],
            Self::Dense { n_cols, .. } => *n_cols,
        }
    }

    /// A sparse row group from rows as they are stored: columns in any order, perhaps repeated.
    ///
    /// `offsets` ends at the length of both vectors. Repeated columns are summed in storage order and in `kind`, the stored
    /// type: floats as in scipy, bool as a logical or.
    ///
    /// # Errors
    /// [`SumTooLarge`] where an integer `kind` does not hold a sum (scipy would wrap it).
    pub(crate) fn from_stored(
        offsets: Vec<usize>,
        columns: Columns,
        values: Values,
        kind: Kind,
        selection: Option<&Selection>,
    ) -> Result<Self, SumTooLarge> {
        let mut rows = (offsets, columns, values);
        let mut totals = Totals::OfValues;
        if let Some(selection) = selection {
            if let Some(counted) = selection.counted() {
                if kind == Kind::Bool && !is_canonical(&rows.0, &rows.1) {
                    rows = sort_and_sum(&rows.0, &rows.1, &rows.2, kind)?;
                }
                totals = Totals::Kept(counted.of_rows(&rows.0, &rows.1, &rows.2));
            } else {
                totals = Totals::Unknown;
            }
            rows = select(&rows.0, &rows.1, &rows.2, selection);
        }
        if !is_canonical(&rows.0, &rows.1) {
            rows = sort_and_sum(&rows.0, &rows.1, &rows.2, kind)?;
        }
        let (offsets, columns, values) = rows;
        let all_positive = values.are_positive_counts();
        Ok(Self::Sparse { offsets, columns, values, all_positive, totals })
    }

    /// A dense row group from the little-endian bytes of whole rows, with the columns of `selection`.
    #[must_use]
    pub(crate) fn from_rows(
        kind: Kind,
        rows: &[u8],
        n_rows: usize,
        n_cols: usize,
        selection: Option<&Selection>,
    ) -> Self {
        let mut values = Values::with_capacity(0);
        let Some(selection) = selection else {
            values.append(kind, rows);
            return Self::Dense { n_cols, n_rows, values, totals: Totals::OfValues };
        };
        let size = kind.size();
        let row = |i: usize| &rows[i * n_cols * size..(i + 1) * n_cols * size];
        let mut picked = Vec::with_capacity(n_rows * selection.width() * size);
        for i in 0..n_rows {
            for column in selection.order() {
                let value = column.map(|c| &row(i)[c as usize * size..][..size]);
                picked.extend_from_slice(value.unwrap_or(&[0; 8][..size]));
            }
        }
        values.append(kind, &picked);
        let totals = selection.counted().map_or(Totals::Unknown, |counted| {
            let mut whole = Values::with_capacity(0);
            Totals::Kept(
                (0..n_rows)
                    .map(|i| {
                        whole.clear();
                        whole.append(kind, row(i));
                        counted.of_row(&whole)
                    })
                    .collect(),
            )
        });
        Self::Dense { n_cols: selection.width(), n_rows, values, totals }
    }

    /// What the rows of the matrix sum to.
    #[must_use]
    pub(crate) fn totals(&self) -> &Totals {
        match self {
            Self::Sparse { totals, .. } | Self::Dense { totals, .. } => totals,
        }
    }
}

/// Offsets, columns and values of compressed rows.
type Rows = (Vec<usize>, Columns, Values);

/// The values that a row stores for one column sum to more than their type holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SumTooLarge {
    /// Row of the row group.
    pub(crate) row: usize,
    /// The sum.
    pub(crate) sum: i128,
    /// The type that the values are stored as.
    pub(crate) kind: Kind,
}

impl SumTooLarge {
    /// What was found in `row` of the matrix, for messages.
    #[must_use]
    pub(crate) fn found(&self, row: u64) -> String {
        format!(
            "row {row} stores a column more than once, and the sum {} is too large for {}",
            self.sum,
            self.kind.name()
        )
    }

    /// The remedy, for messages.
    pub(crate) const REMEDY: &str = "Write the matrix with a wider dtype, or with its repeated columns summed";
}

fn is_canonical(offsets: &[usize], columns: &Columns) -> bool {
    // Without an early exit within a row, the comparison is vectorised.
    #[allow(clippy::needless_bitwise_bool)]
    let canonical = with_columns!(columns, c => offsets.windows(2).all(|w| {
        let row = &c[w[0]..w[1]];
        row.iter().zip(&row[row.len().min(1)..]).fold(true, |rising, (a, b)| rising & (a < b))
    }));
    canonical
}

fn select(offsets: &[usize], columns: &Columns, values: &Values, selection: &Selection) -> Rows {
    let mut kept = Vec::new();
    let mut out_offsets = Vec::with_capacity(offsets.len());
    let mut out_columns = Columns::with_capacity(selection.width() as u64, 0);
    out_offsets.push(0);
    for w in offsets.windows(2) {
        with_columns!(columns, c => for (i, &column) in c[w[0]..w[1]].iter().enumerate() {
            if let Some(place) = selection.place(column) {
                out_columns.push(place);
                kept.push(w[0] + i);
            }
        });
        out_offsets.push(kept.len());
    }
    (out_offsets, out_columns, values.gather(&kept))
}

/// Rows with their columns sorted and repeated ones summed, in storage order (float sums depend on it).
fn sort_and_sum(offsets: &[usize], columns: &Columns, values: &Values, kind: Kind) -> Result<Rows, SumTooLarge> {
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
    let values = if distinct == order.len() {
        values
    } else {
        values.sum_groups(&first, kind).map_err(|(group, sum)| {
            let row = out_offsets.partition_point(|&end| end <= group) - 1;
            SumTooLarge { row, sum, kind }
        })?
    };
    Ok((out_offsets, out_columns, values))
}

#[cfg(test)]
mod tests {
    use super::super::Counted;
    use super::*;

    fn columns(c: &[u16]) -> Columns {
        Columns::U16(c.to_vec())
    }

    #[test]
    fn unsorted_and_repeated_columns_become_sorted_sums() {
        let group = RowGroup::from_stored(
            vec![0, 4, 4, 6],
            columns(&[5, 1, 5, 0, 2, 2]),
            Values::F32(vec![1.0, 2.0, 3.5, 4.0, 0.25, 0.5]),
            Kind::F32,
            None,
        )
        .unwrap();
        let RowGroup::Sparse { offsets, columns: c, values, .. } = group else { panic!() };
        assert_eq!(offsets, [0, 3, 3, 4]);
        assert_eq!(c, columns(&[0, 1, 5, 2]));
        assert_eq!(values, Values::F32(vec![4.0, 2.0, 4.5, 0.75]));
    }

    #[test]
    fn a_selection_renames_and_drops_columns() {
        let selection = Selection::new(&[4, 0, 2], 5).unwrap();
        let group = RowGroup::from_stored(
            vec![0, 3, 5],
            columns(&[0, 1, 4, 2, 3]),
            Values::U8(vec![1, 2, 3, 4, 5]),
            Kind::U8,
            Some(&selection),
        )
        .unwrap();
        let RowGroup::Sparse { offsets, columns: c, values, .. } = group else { panic!() };
        assert_eq!(offsets, [0, 2, 3]);
        assert_eq!(c, columns(&[0, 1, 2]));
        assert_eq!(values, Values::U8(vec![3, 1, 4]));
    }

    #[test]
    fn a_selection_may_have_gaps() {
        let selection = Selection::new(&[-1, 2, -1, 0], 3).unwrap();
        assert_eq!((selection.width(), selection.place(2u32), selection.place(1u32)), (4, Some(1), None));
        assert_eq!(selection.order().collect::<Vec<_>>(), [None, Some(2), None, Some(0)]);
        let values = Values::U8(vec![1, 2, 3]);
        let group = RowGroup::from_stored(vec![0, 3], columns(&[0, 1, 2]), values, Kind::U8, Some(&selection)).unwrap();
        let RowGroup::Sparse { columns: c, values, .. } = group else { panic!() };
        assert_eq!((c, values), (columns(&[1, 3]), Values::U8(vec![3, 1])));
    }

    #[test]
    fn totals_are_of_all_columns_and_of_bool_after_its_sums() {
        let totals = |selection: Selection, values: Values, kind: Kind| {
            let rows = columns(&[0, 1, 4, 1, 1]);
            let group = RowGroup::from_stored(vec![0, 3, 5], rows, values, kind, Some(&selection)).unwrap();
            group.totals().clone()
        };
        let some = Selection::new(&[4, 0], 5).unwrap();
        let values = Values::U8(vec![1, 2, 3, 4, 5]);
        assert_eq!(totals(some.clone(), values.clone(), Kind::U8), Totals::Unknown);
        let all = some.clone().with_totals(Counted::ALL);
        assert_eq!(totals(all.clone(), values.clone(), Kind::U8), Totals::Kept(vec![6.0, 9.0]));
        assert_eq!(totals(all, Values::U8(vec![1; 5]), Kind::Bool), Totals::Kept(vec![3.0, 1.0]));
        let viewed = some.with_totals(Counted::new(&[0, 4], 5).unwrap());
        assert_eq!(totals(viewed, values, Kind::U8), Totals::Kept(vec![4.0, 0.0]));
    }

    #[test]
    fn dense_rows_give_the_same() {
        let rows: Vec<u8> = [1i16, -2, 300, 0, 5, 6].iter().flat_map(|x| x.to_le_bytes()).collect();
        let selection = Selection::new(&[2, -1, 0], 3).unwrap().with_totals(Counted::ALL);
        let RowGroup::Dense { n_cols, n_rows, values, totals } =
            RowGroup::from_rows(Kind::I16, &rows, 2, 3, Some(&selection))
        else {
            panic!()
        };
        assert_eq!((n_cols, n_rows), (3, 2));
        assert_eq!(values, Values::U16(vec![300, 0, 1, 6, 0, 0]));
        assert_eq!(totals, Totals::Kept(vec![299.0, 11.0]));
    }

    fn summed(values: Values, kind: Kind) -> Result<Values, SumTooLarge> {
        let n = values.len();
        let group = RowGroup::from_stored(vec![0, 0, n], columns(&vec![1; n]), values, kind, None)?;
        let RowGroup::Sparse { values, .. } = group else { panic!() };
        Ok(values)
    }

    #[test]
    fn sums_are_those_of_the_stored_type() {
        assert_eq!(summed(Values::U8(vec![1, 1]), Kind::Bool), Ok(Values::U8(vec![1])));
        assert_eq!(summed(Values::U8(vec![0, 0]), Kind::Bool), Ok(Values::U8(vec![0])));
        assert_eq!(summed(Values::U8(vec![200, 100]), Kind::U16), Ok(Values::I64(vec![300])));
        assert_eq!(summed(Values::I32(vec![-100, -28]), Kind::I8), Ok(Values::I64(vec![-128])));
        assert_eq!(summed(Values::U8(vec![200, 100]), Kind::F16), Ok(Values::F32(vec![300.0])));
        // Each fits float32, their sum does not.
        let tiny = f32::EPSILON / 4.0;
        assert_eq!(summed(Values::F32(vec![1.0, tiny]), Kind::F32), Ok(Values::F32(vec![1.0])));
        let wide = summed(Values::F32(vec![1.0, tiny]), Kind::F64);
        assert_eq!(wide, Ok(Values::F64(vec![1.0 + f64::from(tiny)])));
    }

    #[test]
    fn a_sum_that_its_type_does_not_hold_is_refused() {
        let error = summed(Values::U8(vec![200, 100]), Kind::U8).unwrap_err();
        assert_eq!(error, SumTooLarge { row: 1, sum: 300, kind: Kind::U8 });
        assert!(error.found(7).contains("row 7") && error.found(7).contains("300 is too large for uint8"));
        for (values, kind) in [
            (Values::U8(vec![100, 28]), Kind::I8),
            (Values::I32(vec![i32::MAX, 1]), Kind::I32),
            (Values::I64(vec![i64::MIN, -1]), Kind::I64),
            (Values::U64(vec![u64::MAX, 1]), Kind::U64),
        ] {
            assert!(summed(values, kind).is_err());
        }
    }
}
