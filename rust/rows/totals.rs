//! Sums of rows over all columns of their matrix, beside a selection of columns.
//!
//! Rows are normalised before genes are selected, as in scanpy, so the totals need values that are left out.

use super::number::sum;
use super::{Columns, Values};
use crate::rows::{with_columns, with_values};

/// Which columns of a matrix count in the totals of its rows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Counted {
    /// Of each column; `None` where all count.
    columns: Option<Vec<bool>>,
}

impl Counted {
    /// All columns.
    pub(crate) const ALL: Self = Self { columns: None };

    /// The given ones of `n_cols` columns.
    ///
    /// # Errors
    /// The first that is not there.
    pub(crate) fn new(columns: &[i64], n_cols: u64) -> Result<Self, i64> {
        let mut counts = vec![false; n_cols as usize];
        for &column in columns {
            *usize::try_from(column).ok().and_then(|at| counts.get_mut(at)).ok_or(column)? = true;
        }
        Ok(Self { columns: counts.contains(&false).then_some(counts) })
    }

    /// Whether column `column` counts.
    #[must_use]
    pub(crate) fn has(&self, column: usize) -> bool {
        self.columns.as_ref().is_none_or(|counts| counts[column])
    }

    /// Adds up each row of compressed rows.
    pub(super) fn of_rows(&self, offsets: &[usize], columns: &Columns, values: &Values) -> Vec<f64> {
        with_values!(values, v => match &self.columns {
            None => offsets.windows(2).map(|w| sum(v[w[0]..w[1]].iter().copied())).collect(),
            Some(counts) => with_columns!(columns, c => {
                let of_row = |w: &[usize]| {
                    let row = c[w[0]..w[1]].iter().zip(&v[w[0]..w[1]]);
                    sum(row.filter(|(column, _)| counts[position(**column)]).map(|(_, x)| *x))
                };
                offsets.windows(2).map(of_row).collect()
            }),
        })
    }

    /// Adds up one whole row.
    pub(super) fn of_row(&self, row: &Values) -> f64 {
        with_values!(row, v => match &self.columns {
            None => sum(v.iter().copied()),
            Some(counts) => sum(v.iter().zip(counts).filter(|(_, counts)| **counts).map(|(x, _)| *x)),
        })
    }
}

fn position(column: impl Into<u32>) -> usize {
    column.into() as usize
}

/// The totals of a row group's rows.
#[derive(Clone, Debug, PartialEq)]
pub enum Totals {
    /// The sums of the row group's values: it has all columns.
    OfValues,
    /// Sums that include columns that the row group does not have.
    Kept(Vec<f64>),
    /// The row group does not have all columns, and was read without totals.
    Unknown,
}

impl Totals {
    /// Bytes of memory held.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Kept(totals) => totals.capacity() * size_of::<f64>(),
            Self::OfValues | Self::Unknown => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_added_up_over_the_columns_that_count() {
        let (offsets, columns) = ([0, 3, 3, 4], Columns::U16(vec![0, 1, 2, 2]));
        let values = Values::F32(vec![1.0, 2.5, 4.0, 8.0]);
        assert_eq!(Counted::ALL.of_rows(&offsets, &columns, &values), [7.5, 0.0, 8.0]);
        let some = Counted::new(&[2, 0], 3).unwrap();
        assert_eq!(some.of_rows(&offsets, &columns, &values), [5.0, 0.0, 8.0]);
        assert_eq!(some.of_row(&Values::U8(vec![1, 2, 4])).to_bits(), 5f64.to_bits());
        assert_eq!([0, 1, 2].map(|c| some.has(c)), [true, false, true]);
    }

    #[test]
    fn columns_that_are_not_there_are_refused() {
        assert_eq!(Counted::new(&[0, 3], 3), Err(3));
        assert_eq!(Counted::new(&[-1], 3), Err(-1));
        assert_eq!(Counted::new(&[2, 1, 0], 3), Ok(Counted::ALL));
    }
}
