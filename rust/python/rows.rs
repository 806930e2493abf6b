//! `DecodedRows`: decoded rows, and batches of them as numpy arrays.

use numpy::{IntoPyArray, Ix1, Ix2, PyArray1, PyReadonlyArray1, PyReadwriteArray1};
use pyo3::exceptions::{PyIndexError, PyOverflowError, PyValueError};
use pyo3::prelude::*;

use super::batch::{Batch, LostTuple, as_tuple, write_batch};
use super::errors::{to_python, unknown_dtype};
use super::gil::outside;
use super::ops::{RowOps, ops_fit};
use super::tokens::{NotExpression, TokenSpec, or_not_expression};
use crate::dtype::Kind;
use crate::matrix::Wanted;
use crate::rows::{
    self, Columns, Computed, CsrOut, Lost, Part, RowGroup, Selection, SumTooLarge, Target, TokenRows, TokensOut, Values,
};

/// Decoded rows of a matrix, from which batches are copied in any order, with repeats.
#[pyclass(frozen, module = "annfeed._core")]
pub(crate) struct DecodedRows {
    decoded: rows::DecodedRows,
}

impl DecodedRows {
    pub(super) fn new(decoded: rows::DecodedRows) -> Self {
        Self { decoded }
    }

    fn check_positions(&self, positions: &[i64]) -> PyResult<()> {
        match self.decoded.first_out_of_range(positions) {
            None => Ok(()),
            Some(p) => Err(PyIndexError::new_err(format!(
                "position {p} is out of range for {} decoded rows",
                self.decoded.n_rows()
            ))),
        }
    }

    fn check_out(&self, positions: &[i64], found: usize) -> PyResult<()> {
        let expected = positions.len() * self.decoded.n_cols();
        if found == expected {
            Ok(())
        } else {
            Err(PyValueError::new_err(format!("out has {found} elements; expected {expected}")))
        }
    }

    fn token_rows<'a>(
        &self,
        positions: &'a [i64],
        rows: &'a [i64],
        epoch: u64,
        spec: &TokenSpec,
    ) -> PyResult<TokenRows<'a>> {
        self.check_positions(positions)?;
        spec.fits(self.decoded.n_cols())?;
        if rows.len() != positions.len() {
            let (found, expected) = (rows.len(), positions.len());
            return Err(PyValueError::new_err(format!("found {found} numbers of rows; expected {expected}")));
        }
        Ok(TokenRows { positions, rows, epoch })
    }

    /// Checks that `out` has the sizes that the rows need.
    fn check_csr<T>(&self, positions: &[i64], out: &CsrOut<'_, T>) -> PyResult<()> {
        let (n_rows, nnz) = (positions.len(), out.indices.len());
        if out.indptr.len() != n_rows + 1 || out.data.len() != nnz || nnz != self.decoded.nnz(positions) {
            return Err(PyValueError::new_err(format!(
                "indptr, indices and data have {}, {nnz} and {} elements, which does not fit {n_rows} rows",
                out.indptr.len(),
                out.data.len(),
            )));
        }
        Ok(())
    }
}

#[pymethods]
impl DecodedRows {
    /// Rows and columns.
    #[getter]
    fn shape(&self) -> (usize, usize) {
        (self.decoded.n_rows(), self.decoded.n_cols())
    }

    /// Bytes of memory held.
    #[getter]
    fn nbytes(&self) -> usize {
        self.decoded.bytes()
    }

    /// Writes the rows at `positions` into `out`; gives column and value of the first number that was lost, and how:
    /// "rounded", "too large", or "too large after the transform".
    ///
    /// `ops` are done to each row on the way, in float32; `dtype` must be float32 or narrower.
    #[pyo3(signature = (positions, out, dtype, threads=1, ops=None))]
    fn dense(
        &self,
        py: Python<'_>,
        positions: PyReadonlyArray1<'_, i64>,
        out: &Bound<'_, PyAny>,
        dtype: &str,
        threads: usize,
        ops: Option<&RowOps>,
    ) -> PyResult<LostTuple> {
        let positions = positions.as_slice()?;
        self.check_positions(positions)?;
        let batch = DenseBatch { rows: self, py, positions, threads };
        write_batch::<Ix2>(out, dtype, ops.map(|ops| &ops.ops), batch)
    }

    /// Number of values of the rows at `positions` as CSR.
    fn nnz(&self, py: Python<'_>, positions: PyReadonlyArray1<'_, i64>) -> PyResult<usize> {
        let positions = positions.as_slice()?;
        self.check_positions(positions)?;
        let nnz = outside(py, || self.decoded.nnz(positions));
        // 32-bit indices, for torch and MKL.
        i32::try_from(nnz)
            .map(|_| nnz)
            .map_err(|_| PyOverflowError::new_err("the batch has 2^31 values or more: ask for fewer rows at a time"))
    }

    /// Writes the rows at `positions` as CSR; gives what `dense` gives.
    ///
    /// `indices` and `data` are as long as `nnz` says. `ops` are done to the values on the way.
    #[pyo3(signature = (positions, indptr, indices, data, dtype, ops=None))]
    #[allow(clippy::too_many_arguments)]
    fn csr(
        &self,
        py: Python<'_>,
        positions: PyReadonlyArray1<'_, i64>,
        mut indptr: PyReadwriteArray1<'_, i32>,
        mut indices: PyReadwriteArray1<'_, i32>,
        data: &Bound<'_, PyAny>,
        dtype: &str,
        ops: Option<&RowOps>,
    ) -> PyResult<LostTuple> {
        let positions = positions.as_slice()?;
        self.check_positions(positions)?;
        let (indptr, indices) = (indptr.as_slice_mut()?, indices.as_slice_mut()?);
        let batch = CsrBatch { rows: self, py, positions, indptr, indices };
        write_batch::<Ix1>(data, dtype, ops.map(|ops| &ops.ops), batch)
    }

    /// The same rows in memory of their own, without other rows and spare room.
    fn compact(&self, py: Python<'_>) -> Self {
        outside(py, || Self { decoded: self.decoded.compact() })
    }

    /// Numbers of expressed genes of the rows at `positions`, tokens of the longest, and what is no expression if there is
    /// such: the place of the row among `positions`, its column, and the value.
    fn expressed<'py>(
        &self,
        py: Python<'py>,
        positions: PyReadonlyArray1<'_, i64>,
        spec: &TokenSpec,
        threads: usize,
    ) -> PyResult<(Bound<'py, PyArray1<i64>>, usize, NotExpression)> {
        let positions = positions.as_slice()?;
        self.check_positions(positions)?;
        spec.fits(self.decoded.n_cols())?;
        let spec = &spec.spec;
        let counted = outside(py, || self.decoded.expressed(positions, spec, threads));
        let (counts, wrong) = or_not_expression(py, counted)?;
        let counts = counts.unwrap_or_default();
        let longest = spec.longest(&counts, self.decoded.n_cols());
        Ok((counts.into_pyarray(py), longest, wrong))
    }

    /// Writes the tokens of the rows at `positions` into `genes`, `values` and `mask` (row-major, flat, one length).
    ///
    /// `rows` are their numbers in the data, `epoch` is the key of draws, and `n_expressed` is what `expressed` gave. Gives a
    /// value that float32 cannot hold, as `dense` does, and a sum that is no expression, as `expressed` does.
    #[allow(clippy::too_many_arguments)]
    fn tokens(
        &self,
        py: Python<'_>,
        positions: PyReadonlyArray1<'_, i64>,
        rows: PyReadonlyArray1<'_, i64>,
        epoch: u64,
        n_expressed: PyReadonlyArray1<'_, i64>,
        spec: &TokenSpec,
        mut genes: PyReadwriteArray1<'_, i64>,
        mut values: PyReadwriteArray1<'_, f32>,
        mut mask: PyReadwriteArray1<'_, u8>,
        threads: usize,
    ) -> PyResult<(LostTuple, NotExpression)> {
        let positions = positions.as_slice()?;
        let wanted = self.token_rows(positions, rows.as_slice()?, epoch, spec)?;
        let (counts, spec) = (n_expressed.as_slice()?, &spec.spec);
        let (genes, values, mask) = (genes.as_slice_mut()?, values.as_slice_mut()?, mask.as_slice_mut()?);
        let width = genes.len() / positions.len().max(1);
        let fits = [genes.len(), values.len(), mask.len()] == [width * positions.len(); 3];
        let is_wide = positions.is_empty() || width >= spec.longest(counts, self.decoded.n_cols());
        if counts.len() != positions.len() || !fits || !is_wide {
            return Err(PyValueError::new_err("genes, values, mask and n_expressed do not fit the rows"));
        }
        let out = TokensOut { genes, values, mask, width };
        let done = outside(py, || self.decoded.tokens(wanted, counts, spec, out, threads));
        let (lost, wrong) = or_not_expression(py, done)?;
        Ok((lost.flatten().map(as_tuple), wrong))
    }

    /// Sums of the rows at `positions` over all columns of their matrix (float64).
    fn totals<'py>(
        &self,
        py: Python<'py>,
        positions: PyReadonlyArray1<'_, i64>,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let positions = positions.as_slice()?;
        self.check_positions(positions)?;
        let totals = outside(py, || self.decoded.totals(positions)).map_err(|e| to_python(py, e))?;
        Ok(totals.into_pyarray(py))
    }

    /// Concatenates rows of several parts of `n_cols` columns: the decoded rows, positions in them (None: all), and their
    /// place, for errors (empty: none; parts that are concatenated themselves keep theirs).
    #[staticmethod]
    fn concat(n_cols: usize, parts: Vec<PyPart<'_>>) -> PyResult<Self> {
        let mut found = Vec::with_capacity(parts.len());
        for (rows, positions, place) in &parts {
            if rows.decoded.n_cols() != n_cols {
                let other = rows.decoded.n_cols();
                return Err(PyValueError::new_err(format!(
                    "{place}: found decoded rows of {other} columns; expected {n_cols}"
                )));
            }
            let positions = positions.as_ref().map(|p| p.as_slice()).transpose()?;
            rows.check_positions(positions.unwrap_or_default())?;
            found.push(Part { rows: &rows.decoded, positions, place });
        }
        Ok(Self { decoded: rows::DecodedRows::concat(n_cols, found) })
    }

    /// Rows of a CSR matrix in memory; `indices` and `data` are the little-endian bytes of arrays of the named dtypes.
    ///
    /// With `totals`, sums of rows over all columns are kept, too.
    #[staticmethod]
    #[pyo3(signature = (n_cols, indptr, indices, index_dtype, data, dtype, columns=None, totals=false, total_over=None))]
    #[allow(clippy::too_many_arguments)]
    fn from_csr(
        py: Python<'_>,
        n_cols: u64,
        indptr: PyReadonlyArray1<'_, i64>,
        indices: PyReadonlyArray1<'_, u8>,
        index_dtype: &str,
        data: PyReadonlyArray1<'_, u8>,
        dtype: &str,
        columns: Option<PyReadonlyArray1<'_, i64>>,
        totals: bool,
        total_over: Option<PyReadonlyArray1<'_, i64>>,
    ) -> PyResult<Self> {
        let selection = selection(columns.as_ref(), n_cols, totals, total_over.as_ref())?;
        let (index_kind, kind) = (kind(index_dtype)?, kind(dtype)?);
        let (indptr, indices, data) = (indptr.as_slice()?, indices.as_slice()?, data.as_slice()?);
        let total = data.len() / kind.size();
        let rises = indptr.first() == Some(&0) && indptr.is_sorted() && indptr.last() == Some(&(total as i64));
        if !rises || indices.len() / index_kind.size() != total {
            return Err(PyValueError::new_err("indptr, indices and data of a CSR matrix do not fit together"));
        }
        outside(py, || {
            let mut held = Columns::with_capacity(n_cols, total);
            held.append(index_kind, indices, n_cols).map_err(|(at, value)| {
                PyValueError::new_err(format!("element {at} of indices is {value}; expected 0 to {n_cols} - 1"))
            })?;
            let mut values = Values::with_capacity(total);
            values.append(kind, data);
            let offsets = indptr.iter().map(|&i| i as usize).collect();
            let width = selection.as_ref().map_or(n_cols as usize, Selection::width);
            let group = RowGroup::from_stored(offsets, held, values, kind, selection.as_ref()).map_err(|error| {
                let row = error.row as u64;
                PyValueError::new_err(format!(
                    "{} (counted from the first row that is read). {}",
                    error.found(row),
                    SumTooLarge::REMEDY
                ))
            })?;
            Ok(Self::of_group(width, group))
        })
    }

    /// Rows of a dense matrix in memory; `data` has the little-endian bytes of a row-major array of `dtype`.
    ///
    /// With `totals`, sums of rows over all columns are kept, too.
    #[staticmethod]
    #[pyo3(signature = (n_rows, n_cols, data, dtype, columns=None, totals=false, total_over=None))]
    #[allow(clippy::too_many_arguments)]
    fn from_dense(
        py: Python<'_>,
        n_rows: usize,
        n_cols: usize,
        data: PyReadonlyArray1<'_, u8>,
        dtype: &str,
        columns: Option<PyReadonlyArray1<'_, i64>>,
        totals: bool,
        total_over: Option<PyReadonlyArray1<'_, i64>>,
    ) -> PyResult<Self> {
        let selection = selection(columns.as_ref(), n_cols as u64, totals, total_over.as_ref())?;
        let kind = kind(dtype)?;
        let data = data.as_slice()?;
        if n_rows.checked_mul(n_cols).and_then(|n| n.checked_mul(kind.size())) != Some(data.len()) {
            return Err(PyValueError::new_err(format!("{} bytes are not {n_rows} x {n_cols} of {dtype}", data.len())));
        }
        outside(py, || {
            let width = selection.as_ref().map_or(n_cols, Selection::width);
            Ok(Self::of_group(width, RowGroup::from_rows(kind, data, n_rows, n_cols, selection.as_ref())))
        })
    }
}

impl DecodedRows {
    fn of_group(n_cols: usize, group: RowGroup) -> Self {
        let mut decoded = rows::DecodedRows::new(n_cols);
        decoded.push_group(std::sync::Arc::new(group));
        Self { decoded }
    }
}

fn selection(
    columns: Option<&PyReadonlyArray1<'_, i64>>,
    n_cols: u64,
    totals: bool,
    over: Option<&PyReadonlyArray1<'_, i64>>,
) -> PyResult<Option<Selection>> {
    let Some(columns) = columns else { return Ok(None) };
    let over = over.map(PyReadonlyArray1::as_slice).transpose()?;
    wanted(Some(columns.as_slice()?), totals, over)
        .selection(n_cols)
        .map_err(|c| PyValueError::new_err(format!("column {c} is repeated or not one of {n_cols}")))
}

/// The wanted columns, from Python's arguments.
pub(super) fn wanted<'a>(columns: Option<&'a [i64]>, totals: bool, over: Option<&'a [i64]>) -> Wanted<'a> {
    match columns {
        None => Wanted::All,
        Some(columns) if !totals => Wanted::Columns(columns),
        Some(columns) => Wanted::ColumnsAndTotals { columns, over },
    }
}

fn kind(dtype: &str) -> PyResult<Kind> {
    Kind::from_name(dtype).ok_or_else(|| unknown_dtype(dtype))
}

/// Decoded rows, positions in them (None: all), and their place.
type PyPart<'py> = (PyRef<'py, DecodedRows>, Option<PyReadonlyArray1<'py, i64>>, String);

/// Rows that go into a dense batch.
struct DenseBatch<'a, 'py> {
    rows: &'a DecodedRows,
    py: Python<'py>,
    positions: &'a [i64],
    threads: usize,
}

impl Batch for DenseBatch<'_, '_> {
    fn write<T: Target>(self, out: &mut [T]) -> PyResult<Option<Lost>> {
        let Self { rows, py, positions, threads } = self;
        rows.check_out(positions, out.len())?;
        outside(py, || rows.decoded.dense(positions, out, threads)).map_err(|e| to_python(py, e))
    }

    fn compute<T: Computed>(self, out: &mut [T], ops: &rows::RowOps) -> PyResult<Option<Lost>> {
        let Self { rows, py, positions, threads } = self;
        rows.check_out(positions, out.len())?;
        ops_fit(ops, rows.decoded.n_cols())?;
        outside(py, || rows.decoded.dense_with(positions, out, threads, ops)).map_err(|e| to_python(py, e))
    }
}

/// Rows that go into a CSR batch.
struct CsrBatch<'a, 'py> {
    rows: &'a DecodedRows,
    py: Python<'py>,
    positions: &'a [i64],
    indptr: &'a mut [i32],
    indices: &'a mut [i32],
}

impl Batch for CsrBatch<'_, '_> {
    fn write<T: Target>(self, data: &mut [T]) -> PyResult<Option<Lost>> {
        let Self { rows, py, positions, indptr, indices } = self;
        let out = CsrOut { indptr, indices, data };
        rows.check_csr(positions, &out)?;
        outside(py, || rows.decoded.csr(positions, out)).map_err(|e| to_python(py, e))
    }

    fn compute<T: Computed>(self, data: &mut [T], ops: &rows::RowOps) -> PyResult<Option<Lost>> {
        let Self { rows, py, positions, indptr, indices } = self;
        let out = CsrOut { indptr, indices, data };
        rows.check_csr(positions, &out)?;
        outside(py, || rows.decoded.csr_with(positions, out, ops)).map_err(|e| to_python(py, e))
    }
}
