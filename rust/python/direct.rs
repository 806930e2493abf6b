//! `DirectRows`: rows that are read from the file straight into a batch.

use numpy::{PyReadonlyArray1, PyReadwriteArray1};
use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;

use super::errors::to_python;
use super::gil::outside;
use crate::matrix::direct;

/// Rows of a matrix that are read from the file straight into a batch.
#[pyclass(frozen, module = "annfeed._core")]
pub(crate) struct DirectRows {
    rows: direct::DirectRows,
}

impl DirectRows {
    pub(super) fn new(rows: direct::DirectRows) -> Self {
        Self { rows }
    }
}

#[pymethods]
impl DirectRows {
    /// Rows and columns.
    #[getter]
    fn shape(&self) -> (usize, usize) {
        (self.rows.n_rows(), self.rows.n_cols())
    }

    /// Bytes of memory held, without the rows.
    #[getter]
    fn nbytes(&self) -> usize {
        self.rows.n_rows() * size_of::<u64>()
    }

    /// Reads the rows at `positions` into `out` (uint8), one after the other.
    #[pyo3(signature = (positions, out, threads=1))]
    fn read(
        &self,
        py: Python<'_>,
        positions: PyReadonlyArray1<'_, i64>,
        mut out: PyReadwriteArray1<'_, u8>,
        threads: usize,
    ) -> PyResult<()> {
        let (positions, out) = (positions.as_slice()?, out.as_slice_mut()?);
        let (n_rows, n_cols) = self.shape();
        if let Some(p) = positions.iter().find(|&&p| usize::try_from(p).map_or(true, |p| p >= n_rows)) {
            return Err(PyIndexError::new_err(format!("position {p} is out of range for {n_rows} rows")));
        }
        let expected = positions.len() * n_cols * self.rows.dtype().kind.size();
        if out.len() != expected {
            return Err(PyValueError::new_err(format!("out has {} bytes; expected {expected}", out.len())));
        }
        outside(py, || self.rows.read(positions, out, threads)).map_err(|e| to_python(py, e))
    }
}
