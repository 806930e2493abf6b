//! What `annfeed.rewriting` calls: arrays as they are stored, chunks compressed, digests of rows.

use std::path::PathBuf;

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1, PyReadwriteArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::cancel::{Cancel, interruptible};
use super::errors::to_python;
use super::gil::outside;
use crate::filters::{Decoder, Pipeline};
use crate::rewrite::array;
use crate::rewrite::chunks::encode;
use crate::rewrite::digest::Rows;
use crate::rewrite::sorting;

/// An array of a file, read stretch by stretch as it is stored.
#[pyclass(frozen, module = "annfeed._core")]
pub(crate) struct StoredArray {
    array: array::StoredArray,
}

#[pymethods]
impl StoredArray {
    #[new]
    fn new(py: Python<'_>, path: PathBuf, name: &str) -> PyResult<Self> {
        let array = outside(py, || array::StoredArray::open(&path, name)).map_err(|e| to_python(py, e))?;
        Ok(Self { array })
    }

    /// Elements along the first axis that are decoded together.
    #[getter]
    fn unit(&self) -> u64 {
        self.array.unit()
    }

    /// Reads elements `first` to `last` of the first axis into `out`, which has room for just these.
    #[pyo3(signature = (first, last, out, threads=1, cancel=None))]
    fn read(
        &self,
        py: Python<'_>,
        first: u64,
        last: u64,
        mut out: PyReadwriteArray1<'_, u8>,
        threads: usize,
        cancel: Option<&Cancel>,
    ) -> PyResult<()> {
        let out = out.as_slice_mut()?;
        let len = self.array.layout().shape[0];
        let bytes = last.checked_sub(first).map(|n| n as usize * self.array.step_bytes());
        if last > len || bytes != Some(out.len()) {
            return Err(PyValueError::new_err(format!(
                "found elements {first} to {last} of {len} and {} bytes of room; expected room for just these",
                out.len()
            )));
        }
        interruptible(py, threads, cancel, None, |workers| self.array.read(first..last, out, workers))
    }
}

/// Compresses chunks with filters of HDF5.
#[pyclass(frozen, module = "annfeed._core")]
pub(crate) struct ChunkEncoder {
    pipeline: Pipeline,
    level: i32,
    chunk_bytes: usize,
}

#[pymethods]
impl ChunkEncoder {
    /// Of `filters` (HDF5's number and values of each, first applied first), for chunks of `chunk_bytes` bytes.
    #[new]
    fn new(filters: Vec<(i32, Vec<u32>)>, item_size: usize, level: i32, chunk_bytes: usize) -> PyResult<Self> {
        let pipeline =
            Pipeline::from_hdf5(&filters, item_size).map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(Self { pipeline, level, chunk_bytes })
    }

    /// What is to be stored of each chunk of `data`, with the mask of skipped filters; a short last one is filled up with zeros.
    #[pyo3(signature = (data, threads=1, cancel=None))]
    fn encode<'py>(
        &self,
        py: Python<'py>,
        data: PyReadonlyArray1<'py, u8>,
        threads: usize,
        cancel: Option<&Cancel>,
    ) -> PyResult<Vec<(Bound<'py, PyBytes>, u32)>> {
        let data = data.as_slice()?;
        let chunks = interruptible(py, threads, cancel, None, |workers| {
            encode(&self.pipeline, self.level, data, self.chunk_bytes, workers)
        })?;
        Ok(chunks.into_iter().map(|(bytes, mask)| (PyBytes::new(py, &bytes), mask)).collect())
    }

    /// Decodes what `encode` gave of one chunk into `out`.
    fn decode(&self, py: Python<'_>, stored: &[u8], mask: u32, mut out: PyReadwriteArray1<'_, u8>) -> PyResult<()> {
        let out = out.as_slice_mut()?;
        outside(py, || self.pipeline.decode(&mut Decoder::new(), stored, mask, out))
            .map_err(|error| PyValueError::new_err(error.to_string()))
    }
}

/// The numbers of items by their keys (int64, 0 to `n_keys` - 1), equal keys in the order of the items.
#[pyfunction]
pub(super) fn order_by_key<'py>(
    py: Python<'py>,
    keys: PyReadonlyArray1<'py, i64>,
    n_keys: usize,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let keys = keys.as_slice()?;
    if keys.iter().any(|&key| key < 0 || key as usize >= n_keys) {
        return Err(PyValueError::new_err(format!("found a key out of range; expected 0 to {n_keys} - 1")));
    }
    Ok(outside(py, || sorting::by_key(keys, n_keys)).into_pyarray(py))
}

/// The bytes of the items at `order`, one after the other; item i is the bytes `starts[i]` to `starts[i + 1]`.
#[pyfunction]
pub(super) fn gather_items<'py>(
    py: Python<'py>,
    items: PyReadonlyArray1<'py, u8>,
    starts: PyReadonlyArray1<'py, i64>,
    order: PyReadonlyArray1<'py, i64>,
) -> PyResult<Bound<'py, PyArray1<u8>>> {
    let (items, starts, order) = (items.as_slice()?, starts.as_slice()?, order.as_slice()?);
    let rises = starts.is_sorted() && starts.first() == Some(&0) && starts.last() == Some(&(items.len() as i64));
    if !rises || order.iter().any(|&item| item < 0 || item as usize + 1 >= starts.len()) {
        return Err(PyValueError::new_err(
            "found items out of range; expected starts that rise to the end of the bytes",
        ));
    }
    Ok(outside(py, || sorting::gather(items, starts, order)).into_pyarray(py))
}

/// Adds to `digests` (uint64, one a row) what `elements`, the bytes of those from number `first` on, say of their rows.
///
/// Row i holds elements `starts[i]` to `starts[i + 1]`.
#[pyfunction]
#[pyo3(signature = (starts, first, elements, item_size, salt, digests, threads=1))]
#[allow(clippy::too_many_arguments)]
pub(super) fn row_digests(
    py: Python<'_>,
    starts: PyReadonlyArray1<'_, i64>,
    first: u64,
    elements: PyReadonlyArray1<'_, u8>,
    item_size: usize,
    salt: u64,
    mut digests: PyReadwriteArray1<'_, u64>,
    threads: usize,
) -> PyResult<()> {
    let (starts, elements, digests) = (starts.as_slice()?, elements.as_slice()?, digests.as_slice_mut()?);
    let known = [1, 2, 4, 8].contains(&item_size);
    let end = known.then(|| first as i64 + (elements.len() / item_size) as i64);
    let fits = digests.len() + 1 == starts.len() && starts.is_sorted() && starts.first() == Some(&0);
    if !fits || end.is_none_or(|end| starts.last().is_none_or(|&last| end > last)) {
        return Err(PyValueError::new_err(format!(
            "found {} elements of {item_size} bytes from number {first} on, {} digests and {} starts; expected elements \
             within the rows",
            elements.len() / item_size.max(1),
            digests.len(),
            starts.len()
        )));
    }
    let rows = Rows { starts, element_size: item_size, salt };
    interruptible(py, threads, None, None, |workers| rows.add(first, elements, digests, workers))
}
