//! `TokenSpec`: how rows become tokens.

use numpy::PyReadonlyArray1;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::errors::to_python;
use crate::error::{Error, Result};
use crate::rows::{self, Arrange, Choose, Kept, TokenValues};

/// Which genes of a row become tokens, in which order, with which values; `annfeed.Tokens` checks the numbers.
///
/// `scale`, `ids` and `kept` have one element for each of `n_cols` columns.
#[pyclass(frozen, module = "annfeed._core")]
pub(crate) struct TokenSpec {
    pub(super) spec: rows::TokenSpec,
    n_cols: usize,
}

impl TokenSpec {
    /// Checks that it has as many columns as the rows.
    pub(super) fn fits(&self, n_cols: usize) -> PyResult<()> {
        if self.n_cols == n_cols {
            Ok(())
        } else {
            let found = self.n_cols;
            Err(PyValueError::new_err(format!("found tokens of {found} columns; expected {n_cols}, as the rows have")))
        }
    }
}

#[pymethods]
impl TokenSpec {
    #[new]
    #[pyo3(signature = (
        n_cols, length, choose, order, values, target_sum, bins, scale, ids, kept, zeros, pad_id, pad_value, cls_id,
    ))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        n_cols: usize,
        length: usize,
        choose: &str,
        order: &str,
        values: &str,
        target_sum: f64,
        bins: u32,
        scale: Option<PyReadonlyArray1<'_, f64>>,
        ids: Option<PyReadonlyArray1<'_, i64>>,
        kept: Option<PyReadonlyArray1<'_, bool>>,
        zeros: usize,
        pad_id: i64,
        pad_value: f32,
        cls_id: Option<i64>,
    ) -> PyResult<Self> {
        let choose = match choose {
            "top" => Choose::Top,
            "random" => Choose::Random,
            "weighted" => Choose::Weighted,
            "first" => Choose::First,
            other => return Err(unknown("choose", other)),
        };
        let order = match order {
            "value" => Arrange::Value,
            "gene" => Arrange::Gene,
            "random" => Arrange::Random,
            other => return Err(unknown("order", other)),
        };
        let values = match values {
            "counts" => TokenValues::Counts,
            "normalized" => TokenValues::Normalized,
            "log1p" => TokenValues::Log1p,
            "binned" => TokenValues::Binned,
            "rank" => TokenValues::Rank,
            other => return Err(unknown("values", other)),
        };
        if bins < 3 || length < zeros + 1 + usize::from(cls_id.is_some()) {
            return Err(PyValueError::new_err("bins are fewer than 3, or no room is left for expressed genes"));
        }
        let scale = scale.map(|x| Ok::<_, PyErr>(x.as_slice()?.to_vec())).transpose()?;
        let ids = ids.map(|x| Ok::<_, PyErr>(x.as_slice()?.to_vec())).transpose()?;
        let kept = kept.map(|x| Ok::<_, PyErr>(x.as_slice()?.to_vec())).transpose()?;
        let lengths = [scale.as_ref().map(Vec::len), ids.as_ref().map(Vec::len), kept.as_ref().map(Vec::len)];
        if lengths.into_iter().flatten().any(|n| n != n_cols) {
            return Err(PyValueError::new_err(format!(
                "scale, ids or kept do not have one element for each of {n_cols}"
            )));
        }
        let kept = kept.map(|marks| Kept::new(&marks));
        let spec = rows::TokenSpec {
            length,
            choose,
            order,
            values,
            target_sum,
            bins,
            scale,
            ids,
            kept,
            zeros,
            pad_id,
            pad_value,
            cls_id,
        };
        Ok(Self { spec, n_cols })
    }
}

/// A value of a gene, or the sum of a row, that is no expression: place of the row in the batch, column, and value.
pub(super) type NotExpression = Option<(usize, Option<u32>, String)>;

/// What was done, or what is no expression, for which Python has the words.
pub(super) fn or_not_expression<T>(py: Python<'_>, done: Result<T>) -> PyResult<(Option<T>, NotExpression)> {
    match done {
        Ok(done) => Ok((Some(done), None)),
        Err(Error::NotExpression { at, column, value }) => Ok((None, Some((at, column, value)))),
        Err(error) => Err(to_python(py, error)),
    }
}

fn unknown(name: &str, value: &str) -> PyErr {
    PyValueError::new_err(format!("{name} is '{value}', which the core does not know"))
}
