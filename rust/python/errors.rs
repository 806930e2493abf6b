//! Errors of the core become Python exceptions (annfeed's own classes are in `annfeed.errors`).

use std::io::{Error as IoError, ErrorKind};

use pyo3::exceptions::{PyIndexError, PyKeyboardInterrupt, PyMemoryError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::error::Error;

/// The exception for a dtype that batches cannot have.
pub(super) fn unknown_dtype(name: &str) -> PyErr {
    PyTypeError::new_err(format!(
        "dtype {name} is not supported; expected float16, bfloat16, float32, float64, uint8, int8, int16, int32 or int64"
    ))
}

/// The exception for `error`.
pub(super) fn to_python(py: Python<'_>, error: Error) -> PyErr {
    // HDF5's messages contain names from the file, which the wrapper does not check to be UTF-8.
    let text = String::from_utf8_lossy(error.to_string().as_bytes()).into_owned();
    let ours = |class: &str| match own_class(py, class) {
        Ok(class) => PyErr::from_type(class, text.clone()),
        Err(import_failed) => import_failed,
    };
    match error {
        Error::Io { source, .. } => match source.kind() {
            // A short read means that the file shrank after the sizes were checked.
            ErrorKind::UnexpectedEof => ours("StaleFileError"),
            kind => IoError::new(kind, text).into(),
        },
        Error::Format { .. } => ours("FormatError"),
        Error::Unsupported { .. } => ours("UnsupportedError"),
        Error::Missing { .. } => ours("UnknownNameError"),
        Error::Stale { .. } => ours("StaleFileError"),
        Error::RowOutOfRange { .. } => PyIndexError::new_err(text),
        Error::TooLarge { .. } | Error::OutOfMemory { .. } => PyMemoryError::new_err(text),
        Error::Inexact { .. } | Error::NoTotals | Error::NotExpression { .. } | Error::OfPart { .. } => {
            PyValueError::new_err(text)
        }
        Error::Interrupted => PyKeyboardInterrupt::new_err(()),
    }
}

fn own_class<'py>(py: Python<'py>, class: &str) -> PyResult<Bound<'py, PyType>> {
    Ok(py.import("annfeed.errors")?.getattr(class)?.cast_into::<PyType>()?)
}
