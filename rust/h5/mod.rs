//! The only room that talks to libhdf5: a path and an element in, a [`crate::layout::MatrixLayout`] out, and the file closed.
//!
//! libhdf5 serialises every call under one process-wide lock, so nothing of it may outlive the opening.

mod array;
pub(crate) mod describe;
mod dtype;
mod open;

pub use open::open;
pub(crate) use open::open_array;
