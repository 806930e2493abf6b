//! What the core was built with, and what it uses on this machine: for reports of faults.

use std::collections::BTreeMap;

use pyo3::prelude::*;

use crate::filters::inflates_in_pairs;
use crate::h5::library_version;

/// The version of HDF5, how deflated chunks are decoded, and the build.
#[pyfunction]
pub(super) fn about() -> BTreeMap<&'static str, String> {
    let inflate = if inflates_in_pairs() { "two streams at a time (AVX2, BMI2)" } else { "libdeflate" };
    let build = if cfg!(debug_assertions) { "with debug assertions" } else { "for release" };
    BTreeMap::from([("build", build.to_owned()), ("hdf5", library_version()), ("inflate", inflate.to_owned())])
}
