//! The core of annfeed: sorted row batches out of `.h5ad` files, decoded on threads, into the caller's memory.
//!
//! Data goes one way: [`h5`] finds the matrix, [`matrix`] plans, reads and decodes (through [`filters`]), [`rows`] holds the
//! rows and writes batches. The Python bindings are the feature `python`.

pub mod cache;
pub mod dtype;
pub mod error;
pub mod file;
pub mod filters;
pub mod h5;
pub mod layout;
pub mod matrix;
pub mod memory;
#[cfg(feature = "python")]
mod python;
pub mod rows;
pub mod threads;

pub use error::{Error, Place, Result};
