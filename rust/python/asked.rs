//! `Asked`: bytes of a window that are read before they are wanted.

use std::sync::Arc;

use pyo3::prelude::*;

use crate::file;

/// Bytes that a reader was asked for; they are read while this is kept.
#[pyclass(frozen, module = "annfeed._core")]
pub(crate) struct Asked {
    /// Held, not looked at.
    _asked: Arc<file::Asked>,
}

impl Asked {
    pub(super) fn new(asked: Arc<file::Asked>) -> Self {
        Self { _asked: asked }
    }
}
