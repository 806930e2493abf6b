//! `BufferPool` and `Buffer`: recycled memory for batches, as Python objects with the buffer protocol.

use std::ffi::{c_int, c_void};

use pyo3::exceptions::PyMemoryError;
use pyo3::ffi;
use pyo3::prelude::*;

use super::gil::outside;
use crate::memory::buffers;

/// Memory for batches, reused when the last array on it is freed.
#[pyclass(frozen, module = "annfeed._core")]
pub(crate) struct BufferPool {
    pool: buffers::BufferPool,
}

#[pymethods]
impl BufferPool {
    #[new]
    fn new() -> Self {
        Self { pool: buffers::BufferPool::default() }
    }

    /// A writable buffer of `nbytes` bytes, of unspecified content.
    fn take(&self, py: Python<'_>, nbytes: usize) -> PyResult<Buffer> {
        let buffer = outside(py, || self.pool.take(nbytes)).map_err(|e| PyMemoryError::new_err(e.to_string()))?;
        Ok(Buffer { buffer, nbytes })
    }
}

/// Memory of a pool, returned to it when nothing refers to it.
#[pyclass(frozen, module = "annfeed._core")]
pub(crate) struct Buffer {
    buffer: buffers::Buffer,
    nbytes: usize,
}

#[pymethods]
impl Buffer {
    fn __len__(&self) -> usize {
        self.nbytes
    }

    #[allow(unsafe_code)]
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let this = slf.get();
        let start = this.buffer.as_mut_ptr().cast::<c_void>();
        // SAFETY: `view` comes from the interpreter. The memory is `nbytes` long at least, mapped until the buffer is
        // dropped, and never moves; the view owns a reference to the buffer. Rust itself holds no reference into it.
        let status =
            unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, this.nbytes as ffi::Py_ssize_t, 0, flags) };
        if status == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}
