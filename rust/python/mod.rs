//! The extension module `annfeed._core`: numpy in, numpy out, errors as exceptions, the GIL released. No algorithms.

// pyo3 hands arguments over by value.
#![allow(clippy::needless_pass_by_value)]

mod ahead;
mod block;
mod errors;
mod ops;
mod outside;
mod pool;
mod reader;
mod stored;

use pyo3::prelude::pymodule;

/// Reads row batches from `.h5ad` matrices without the GIL; used by `annfeed.sources.file`.
#[pymodule]
mod _core {
    #[pymodule_export]
    use super::ahead::PyAwaited;
    #[pymodule_export]
    use super::block::PyBlock;
    #[pymodule_export]
    use super::ops::PyRowOps;
    #[pymodule_export]
    use super::pool::{PyBuffer, PyPool};
    #[pymodule_export]
    use super::reader::{PyBudget, PyCancel, PyReader};
    #[pymodule_export]
    use super::stored::PyStoredRows;
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let end = wrap_pyfunction!(super::outside::end, module)?;
        module.py().import("atexit")?.call_method1("register", (end,))?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
