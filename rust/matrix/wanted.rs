//! Which columns of a matrix are wanted, and what is kept beside them.

use crate::rows::{Counted, Selection};

/// Which columns of a matrix are wanted.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    /// All columns.
    All,
    /// These, in this order, with [`Selection::MISSING`] for columns that the matrix lacks.
    Columns(&'a [i64]),
    /// These, and the sums of rows.
    ColumnsAndTotals {
        /// As above.
        columns: &'a [i64],
        /// The columns of the sums; `None` for all.
        over: Option<&'a [i64]>,
    },
}

impl Wanted<'_> {
    /// The selection among `n_cols` columns.
    ///
    /// # Errors
    /// The first column that does not exist or is repeated.
    pub(crate) fn selection(self, n_cols: u64) -> std::result::Result<Option<Selection>, i64> {
        Ok(match self {
            Self::All => None,
            Self::Columns(columns) => Some(Selection::new(columns, n_cols)?),
            Self::ColumnsAndTotals { columns, over } => {
                let counted = over.map_or(Ok(Counted::ALL), |over| Counted::new(over, n_cols))?;
                Some(Selection::new(columns, n_cols)?.with_totals(counted))
            }
        })
    }
}
