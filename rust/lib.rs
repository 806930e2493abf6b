//! The core of annfeed: sorted row batches out of `.h5ad` files, decoded on threads, into the caller's memory.
//!
//! Data goes one way: [`h5`] finds the matrix, [`matrix`] plans, reads and decodes (through [`filters`]), [`block`] holds the
//! rows and writes batches. The Python bindings are the feature `python`.

pub mod block;
pub mod crew;
pub mod error;
pub mod filters;
pub mod h5;
pub mod matrix;
#[cfg(feature = "python")]
mod python;

pub use error::{Error, Place, Result};
