//! `Budget`: most bytes of decoded rows that readers keep.

use std::sync::Arc;

use pyo3::prelude::*;

use crate::cache;

/// Most bytes of decoded rows that are kept, shared by all readers with this budget.
#[pyclass(frozen, module = "annfeed._core")]
pub(crate) struct Budget {
    budget: Arc<cache::Budget>,
}

impl Budget {
    pub(super) fn of(budget: Option<&Self>) -> Arc<cache::Budget> {
        budget.map_or_else(|| cache::Budget::new(0), |b| Arc::clone(&b.budget))
    }
}

#[pymethods]
impl Budget {
    #[new]
    fn new(limit: u64) -> Self {
        Self { budget: cache::Budget::new(limit) }
    }

    /// A budget whose limit begins at 0 and is moved, up to `most`, as other processes leave room.
    #[staticmethod]
    fn movable(most: u64) -> Self {
        Self { budget: cache::Budget::movable(most) }
    }

    /// Bytes that may be held, now or when the limit is moved.
    #[getter]
    fn most(&self) -> u64 {
        self.budget.most()
    }

    /// Bytes that are held.
    #[getter]
    fn held(&self) -> u64 {
        self.budget.held()
    }

    /// Set the limit; rows that are held beyond it stay.
    fn move_limit(&self, limit: u64) {
        self.budget.move_limit(limit);
    }

    /// Bytes that may be held.
    #[getter]
    fn limit(&self) -> u64 {
        self.budget.limit()
    }
}
