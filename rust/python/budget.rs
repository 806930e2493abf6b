//! `Budget`: how many bytes of decoded rows readers may keep.

use std::sync::Arc;

use pyo3::prelude::*;

use crate::cache::Budget;

/// Bytes of decoded rows that may be kept; readers with one budget share it.
#[pyclass(frozen, module = "annfeed._core", name = "Budget")]
pub(crate) struct PyBudget {
    budget: Arc<Budget>,
}

impl PyBudget {
    pub(super) fn of(budget: Option<&Self>) -> Arc<Budget> {
        budget.map_or_else(|| Budget::new(0), |b| Arc::clone(&b.budget))
    }
}

#[pymethods]
impl PyBudget {
    #[new]
    fn new(limit: u64) -> Self {
        Self { budget: Budget::new(limit) }
    }

    /// A budget of nothing as yet, whose limit is moved, up to `most`, as other processes leave room.
    #[staticmethod]
    fn movable(most: u64) -> Self {
        Self { budget: Budget::movable(most) }
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

    /// Move the limit; what is held beyond it stays.
    fn move_limit(&self, limit: u64) {
        self.budget.move_limit(limit);
    }

    /// Bytes that may be held.
    #[getter]
    fn limit(&self) -> u64 {
        self.budget.limit()
    }
}
