//! The extension module `annfeed._core`: one file for each of its classes.
//!
//! numpy in, numpy out, errors as exceptions, the GIL released. No algorithms are here: those are in the rooms below.

// pyo3 hands arguments over by value.
#![allow(clippy::needless_pass_by_value)]

mod about;
mod asked;
mod batch;
mod budget;
mod buffers;
mod cancel;
mod demand;
mod direct;
mod errors;
mod gil;
mod ops;
mod reader;
mod rewrite;
mod rows;
mod tokens;

use pyo3::prelude::pymodule;

/// Reads row batches from `.h5ad` matrices without the GIL; used by `annfeed.sources.file`.
#[pymodule]
mod _core {
    #[pymodule_export]
    use super::about::about;
    #[pymodule_export]
    use super::asked::Asked;
    #[pymodule_export]
    use super::budget::Budget;
    #[pymodule_export]
    use super::buffers::{Buffer, BufferPool};
    #[pymodule_export]
    use super::cancel::Cancel;
    #[pymodule_export]
    use super::demand::DemandFlag;
    #[pymodule_export]
    use super::direct::DirectRows;
    #[pymodule_export]
    use super::ops::RowOps;
    #[pymodule_export]
    use super::reader::Reader;
    #[pymodule_export]
    use super::rewrite::{ChunkEncoder, StoredArray, gather_items, order_by_key, row_digests};
    #[pymodule_export]
    use super::rows::DecodedRows;
    #[pymodule_export]
    use super::tokens::TokenSpec;
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let end = wrap_pyfunction!(super::gil::end, module)?;
        module.py().import("atexit")?.call_method1("register", (end,))?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
