//! The core of annfeed: sorted row batches out of `.h5ad` files, decoded on threads, into the caller's memory.
//!
//! Data goes one way: `h5` finds the matrix, `matrix` plans, reads and decodes (through `filters`), `rows` holds what was
//! decoded and writes batches, `cache` keeps it for later. `rewrite` has what writes a file again. The Python bindings are the feature `python`.

#![cfg_attr(not(test), warn(unused_crate_dependencies))]
// Much of the core is called by the bindings only; with them, dead code is an error.
#![cfg_attr(not(feature = "python"), allow(dead_code, unused_imports))]

mod cache;
mod dtype;
mod error;
mod file;
mod filters;
mod h5;
mod layout;
mod matrix;
mod memory;
#[cfg(feature = "python")]
mod python;
mod rewrite;
#[cfg(test)]
mod rooms;
mod rows;
mod threads;

/// The parts that `benches/` and `tests/rust/` call. This is no public interface: users have the Python package.
pub mod internals {
    pub use crate::cache::Budget;
    pub use crate::dtype::Kind;
    pub use crate::error::{Error, Result};
    pub use crate::file::{Asked, ByteSource, DEFAULT_DEPTH, Identity};
    pub use crate::filters::{Bitshuffle, BlockCodec, Decoder, Filter, Front, Pipeline};
    pub use crate::h5::layout;
    pub use crate::layout::{ArrayLayout, Chunk, MatrixLayout, Storage};
    pub use crate::matrix::plan;
    pub use crate::matrix::row_starts::RowStarts;
    pub use crate::matrix::{Matrix, Wanted};
    pub use crate::rows::{Columns, CsrOut, DecodedRows, RowGroup, Totals, Values};
    pub use crate::threads::jobs::Workers;
}
