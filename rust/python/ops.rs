//! `RowOps`: steps on rows while they are written.

use std::sync::Arc;

use numpy::PyReadonlyArray1;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::rows::{self, ColumnScale};

/// Normalising to a total (`over_all`: of all columns of the matrix), log1p and scaling, in this order.
#[pyclass(frozen, module = "annfeed._core")]
pub(crate) struct RowOps {
    pub(super) ops: rows::RowOps,
}

#[pymethods]
impl RowOps {
    #[new]
    #[pyo3(signature = (target_sum=None, log1p=false, mean=None, std=None, max_value=None, over_all=true))]
    fn new(
        target_sum: Option<f64>,
        log1p: bool,
        mean: Option<PyReadonlyArray1<'_, f32>>,
        std: Option<PyReadonlyArray1<'_, f32>>,
        max_value: Option<f32>,
        over_all: bool,
    ) -> PyResult<Self> {
        let scale = match (mean, std) {
            (None, None) => None,
            (Some(mean), Some(std)) if mean.len()? == std.len()? => Some(Arc::new(ColumnScale {
                mean: mean.as_slice()?.to_vec(),
                std: std.as_slice()?.to_vec(),
                max: max_value,
            })),
            _ => return Err(PyValueError::new_err("mean and std must be given together, of one length")),
        };
        Ok(Self { ops: rows::RowOps { target_sum, over_all, log1p, scale } })
    }
}

/// Checks that the steps have as many columns as the rows.
pub(super) fn ops_fit(ops: &rows::RowOps, n_cols: usize) -> PyResult<()> {
    match &ops.scale {
        Some(scale) if scale.mean.len() != n_cols => Err(PyValueError::new_err(format!(
            "Scale: mean and std have {} values, X has {n_cols} columns",
            scale.mean.len()
        ))),
        _ => Ok(()),
    }
}
