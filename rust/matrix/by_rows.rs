//! A matrix that is stored by rows, sparse or dense: sorted rows are cut into units, read and decoded.

use std::sync::Arc;

use super::csr::CsrMatrix;
use super::dense::DenseMatrix;
use crate::cache::read::{RowGroups, Units};
use crate::error::Result;
use crate::file::{Asked, DataFile, Extent};
use crate::layout::ArrayLayout;
use crate::rows::{FreeList, Selection};
use crate::threads::jobs::Workers;

/// A matrix that is stored by rows.
#[derive(Debug)]
pub(crate) enum ByRows {
    /// Compressed.
    Csr(Box<CsrMatrix>),
    /// A two-dimensional array.
    Dense(Box<DenseMatrix>),
}

impl ByRows {
    /// The layout of its values.
    #[must_use]
    pub(crate) fn values(&self) -> &ArrayLayout {
        match self {
            Self::Csr(m) => &m.layout().data,
            Self::Dense(m) => m.layout(),
        }
    }

    /// Whether reading one row means decoding those of its unit.
    #[must_use]
    pub(crate) fn is_filtered(&self) -> bool {
        match self {
            Self::Csr(m) => m.layout().is_filtered(),
            Self::Dense(m) => m.layout().is_filtered(),
        }
    }

    /// How it is cut into units; of a matrix of `n_rows` whose rows are decoded to `width` columns.
    #[must_use]
    pub(crate) fn units(&self, n_rows: u64, width: usize) -> Units<'_> {
        let value = self.values().dtype.kind.size();
        match self {
            Self::Csr(m) => Units {
                unit_of: Box::new(|row| m.unit_of(row)),
                unit_rows: Box::new(|unit| m.unit_rows(unit)),
                guess_per_row: 16 + m.layout().data.len() / n_rows * 4,
            },
            Self::Dense(m) => Units {
                unit_of: Box::new(|row| m.unit_of(row)),
                unit_rows: Box::new(|unit| m.unit_rows(unit)),
                guess_per_row: (width * value) as u64,
            },
        }
    }

    /// What of the file so many threads read to decode `rows`, in the order in which they do.
    #[must_use]
    pub(crate) fn extents(&self, rows: &[u64], selection: Option<&Selection>, threads: usize) -> Vec<Extent> {
        match self {
            Self::Csr(m) => m.extents(rows, threads),
            Self::Dense(m) => m.extents(rows, selection),
        }
    }

    /// Decodes `rows` (sorted, distinct, in range), whose bytes may have been asked for `before`.
    ///
    /// # Errors
    /// As [`CsrMatrix::row_groups`] and [`DenseMatrix::row_groups`].
    pub(crate) fn row_groups(
        &self,
        file: &DataFile,
        rows: &[u64],
        before: Option<Arc<Asked>>,
        selection: Option<&Selection>,
        free_list: Option<&FreeList>,
        workers: &Workers,
    ) -> Result<RowGroups> {
        let file = file.fetched(before, || self.extents(rows, selection, workers.threads));
        match self {
            Self::Csr(m) => m.row_groups(&file, rows, selection, free_list, workers),
            Self::Dense(m) => m.row_groups(&file, rows, selection, workers),
        }
    }

    /// First row of each unit; `None` where any row can be read by itself.
    #[must_use]
    pub(crate) fn unit_starts(&self, n_rows: u64) -> Option<Vec<u64>> {
        if !self.is_filtered() {
            return None;
        }
        let units = self.units(n_rows, 0);
        let next = |row: &u64| Some((units.unit_rows)((units.unit_of)(*row)).end);
        let starts: Vec<u64> = std::iter::successors(Some(0), next).take_while(|&row| row < n_rows).collect();
        Some(starts)
    }

    /// Where row 0 lies, if all rows follow each other in the file as this machine writes numbers.
    #[must_use]
    pub(crate) fn direct_address(&self) -> Option<u64> {
        match self {
            Self::Csr(_) => None,
            Self::Dense(m) => m.direct_address(),
        }
    }

    /// `csr` or `dense`.
    #[must_use]
    pub(crate) fn format(&self) -> &'static str {
        match self {
            Self::Csr(_) => "csr",
            Self::Dense(_) => "dense",
        }
    }
}
