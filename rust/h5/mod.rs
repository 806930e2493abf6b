//! The only room that talks to libhdf5: a path and an element in, a [`crate::layout::MatrixLayout`] out, and the file closed.
//!
//! libhdf5 serialises all calls under one process-wide lock, so it is used only to open a file.

mod array;
mod btree;
pub(crate) mod describe;
mod dtype;
mod open;
mod tenx;

pub use open::layout;
pub(crate) use open::{open, open_array};

/// The version of the libhdf5 that is linked in.
pub(crate) fn library_version() -> String {
    let (major, minor, patch) = hdf5::library_version();
    format!("{major}.{minor}.{patch}")
}
