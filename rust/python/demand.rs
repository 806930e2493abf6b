//! `DemandFlag`, set while the consumer waits for the batch that a thread makes ahead.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;

use crate::threads::team::follow_demand;

/// Whether the consumer waits for the batch that a thread makes ahead.
///
/// In a `with` block of that thread, batches are made on one core until the consumer waits, then on all.
#[pyclass(frozen, module = "annfeed._core")]
pub(crate) struct DemandFlag {
    awaited: Arc<AtomicBool>,
}

#[pymethods]
impl DemandFlag {
    #[new]
    fn new() -> Self {
        Self { awaited: Arc::new(AtomicBool::new(true)) }
    }

    /// Sets whether the consumer waits.
    fn set(&self, awaited: bool) {
        self.awaited.store(awaited, Ordering::Relaxed);
    }

    fn __enter__(&self) {
        follow_demand(Some(Arc::clone(&self.awaited)));
    }

    #[pyo3(signature = (*_error))]
    #[allow(clippy::unused_self)]
    fn __exit__(&self, _error: &Bound<'_, pyo3::types::PyTuple>) {
        follow_demand(None);
    }
}
