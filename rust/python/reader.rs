//! `Reader`: one matrix of one open file.

use std::path::PathBuf;

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::asked::Asked;
use super::budget::Budget;
use super::cancel::{Cancel, interruptible};
use super::direct::DirectRows;
use super::errors::to_python;
use super::gil::outside;
use super::rows::{DecodedRows, wanted};
use crate::cache::RowCache;
use crate::file::DEFAULT_DEPTH;
use crate::h5::describe::describe;
use crate::matrix::Matrix;
use crate::matrix::csc::memory_needed;

/// A matrix of an `.h5ad` file, open to read sorted rows.
#[pyclass(frozen, module = "annfeed._core")]
pub(crate) struct Reader {
    matrix: Matrix,
}

#[pymethods]
impl Reader {
    #[new]
    #[pyo3(signature = (path, elem, *, columns=None, totals=false, total_over=None, budget=None, threads=1, io_depth=None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        elem: &str,
        columns: Option<PyReadonlyArray1<'_, i64>>,
        totals: bool,
        total_over: Option<PyReadonlyArray1<'_, i64>>,
        budget: Option<&Budget>,
        threads: usize,
        io_depth: Option<usize>,
    ) -> PyResult<Self> {
        let budget = Budget::of(budget);
        let owned =
            |array: Option<PyReadonlyArray1<'_, i64>>| array.map(|a| a.as_slice().map(<[i64]>::to_vec)).transpose();
        let (columns, over) = (owned(columns)?, owned(total_over)?);
        let wanted = wanted(columns.as_deref(), totals, over.as_deref());
        let io_depth = io_depth.unwrap_or(DEFAULT_DEPTH);
        interruptible(py, threads, None, None, |_| Matrix::open(&path, elem, wanted, &budget, io_depth))
            .map(|matrix| Self { matrix })
    }

    /// The same matrix with a new file descriptor, for a forked process.
    #[pyo3(signature = (budget=None))]
    fn reopen(&self, py: Python<'_>, budget: Option<&Budget>) -> PyResult<Self> {
        let budget = Budget::of(budget);
        let matrix = outside(py, || self.matrix.reopen(&budget)).map_err(|e| to_python(py, e))?;
        Ok(Self { matrix })
    }

    /// Rows and columns in the file.
    #[getter]
    fn shape(&self) -> (u64, u64) {
        let [rows, columns] = self.matrix.shape();
        (rows, columns)
    }

    /// `csr`, `csc` or `dense`.
    #[getter]
    fn format(&self) -> &'static str {
        self.matrix.format()
    }

    /// Name of the stored dtype, as numpy gives it.
    #[getter]
    fn dtype(&self) -> &'static str {
        self.matrix.values().dtype.kind.name()
    }

    /// Device, inode, size and modification time (ns) of the file when it was opened.
    #[getter]
    fn identity(&self) -> (u64, u64, u64, i64) {
        let id = self.matrix.file().identity();
        (id.device, id.inode, id.size, id.modified_ns)
    }

    /// Bytes read from the file so far, those of them that were read ahead, how often threads that decode waited for bytes, and
    /// for how many microseconds.
    #[getter]
    fn read_stats(&self) -> (u64, u64, u64, u64) {
        let stats = self.matrix.file().read_stats();
        (stats.bytes, stats.ahead, stats.waits, stats.waited.as_micros() as u64)
    }

    /// Whether reads are waited for, so that bytes are worth asking for before they are wanted.
    #[getter]
    fn waits(&self) -> bool {
        self.matrix.file().waits()
    }

    /// Bytes that came out of filters so far.
    #[getter]
    fn bytes_decoded(&self) -> u64 {
        self.matrix.file().bytes_decoded()
    }

    /// Rows found in the cache, rows not found, bytes held.
    #[getter]
    fn cache_stats(&self) -> (u64, u64, u64) {
        self.matrix.cache().map_or((0, 0, 0), RowCache::stats)
    }

    /// First row of each decode unit (int64); None if any row can be read by itself.
    fn unit_starts<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyArray1<i64>>> {
        let starts = outside(py, || self.matrix.unit_starts())?;
        Some(starts.into_iter().map(|row| row as i64).collect::<Vec<_>>().into_pyarray(py))
    }

    /// The dtype of dense batches that only copy stored rows; None if rows must be decoded.
    #[getter]
    fn direct_dtype(&self) -> Option<&'static str> {
        self.matrix.direct_dtype()
    }

    /// `rows` (int64, sorted, distinct) for a direct read into batches of `direct_dtype`. The system is asked to read ahead.
    fn direct(&self, py: Python<'_>, rows: PyReadonlyArray1<'_, i64>) -> PyResult<DirectRows> {
        let rows = checked(&rows)?;
        let stored = outside(py, || {
            let stored = self.matrix.direct(rows)?;
            if let Some(rows) = &stored {
                rows.advise();
            }
            Ok(stored)
        });
        let stored = stored.map_err(|e| to_python(py, e))?;
        let declined =
            || PyValueError::new_err("found rows that are to be decoded; expected a matrix with a direct_dtype");
        stored.map(DirectRows::new).ok_or_else(declined)
    }

    /// Elements that the conversion of a CSC matrix to rows reads; None if no conversion is needed.
    #[getter]
    fn unconverted(&self) -> Option<u64> {
        self.matrix.conversion().map(|(elements, _)| elements)
    }

    /// Converts a CSC matrix to rows, unless that was done; `progress` is called from time to time with the number of elements
    /// read. `read` converts, too.
    #[pyo3(signature = (threads=1, cancel=None, progress=None))]
    fn convert(
        &self,
        py: Python<'_>,
        threads: usize,
        cancel: Option<&Cancel>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let report = |py: Python<'_>| match (&progress, self.matrix.conversion()) {
            (Some(progress), Some((_, done))) => progress.call1(py, (done,)).map(drop),
            _ => Ok(()),
        };
        interruptible(py, threads, cancel, Some(&report), |workers| self.matrix.convert(workers))
    }

    /// Describes how the matrix `elem` is stored in the file at `path`; reads no values.
    #[staticmethod]
    fn describe<'py>(py: Python<'py>, path: PathBuf, elem: &str) -> PyResult<Bound<'py, PyDict>> {
        let facts = outside(py, || describe(&path, elem)).map_err(|e| to_python(py, e))?;
        let dict = PyDict::new(py);
        let values = &facts.arrays[0];
        let needed = memory_needed(values.shape.iter().product(), values.item_size, facts.shape[0]);
        dict.set_item("path", facts.path)?;
        dict.set_item("format", facts.format)?;
        dict.set_item("shape", (facts.shape[0], facts.shape[1]))?;
        dict.set_item("declined", facts.declined)?;
        dict.set_item("conversion_bytes", if facts.format == "csc" { needed } else { 0 })?;
        let arrays = PyList::empty(py);
        for array in &facts.arrays {
            let of_array = PyDict::new(py);
            of_array.set_item("name", &array.name)?;
            of_array.set_item("dtype", &array.dtype)?;
            of_array.set_item("item_size", array.item_size)?;
            of_array.set_item("shape", &array.shape)?;
            of_array.set_item("storage", array.storage)?;
            of_array.set_item("chunk", &array.chunk)?;
            of_array.set_item("filters", &array.filters)?;
            of_array.set_item("stored_bytes", array.stored_bytes)?;
            arrays.append(of_array)?;
        }
        dict.set_item("arrays", arrays)?;
        Ok(dict)
    }

    /// Asks for the bytes of `rows` (int64, sorted, distinct), which `read` will decode with so many threads: while what this
    /// returns is kept, they are read. None where reads are not waited for.
    #[pyo3(signature = (rows, threads=1))]
    fn ask(&self, py: Python<'_>, rows: PyReadonlyArray1<'_, i64>, threads: usize) -> PyResult<Option<Asked>> {
        let rows = checked(&rows)?;
        let asked = outside(py, || self.matrix.ask(rows, threads.max(1))).map_err(|e| to_python(py, e))?;
        Ok(asked.map(Asked::new))
    }

    /// Decodes `rows` (int64, sorted, distinct) into a block; once `cancel` is set, it gives up with `KeyboardInterrupt`.
    #[pyo3(signature = (rows, threads=1, cancel=None))]
    fn read(
        &self,
        py: Python<'_>,
        rows: PyReadonlyArray1<'_, i64>,
        threads: usize,
        cancel: Option<&Cancel>,
    ) -> PyResult<DecodedRows> {
        let rows = checked(&rows)?;
        interruptible(py, threads, cancel, None, |workers| self.matrix.read(rows, workers)).map(DecodedRows::new)
    }
}

/// Rows as the core takes them.
fn checked<'a>(rows: &'a PyReadonlyArray1<'_, i64>) -> PyResult<&'a [u64]> {
    let rows = rows.as_slice()?;
    if !rows.is_sorted_by(|a, b| a < b) || rows.first().is_some_and(|&r| r < 0) {
        return Err(PyValueError::new_err("rows must be sorted, distinct and not negative"));
    }
    Ok(bytemuck::cast_slice(rows))
}
