//! Turns the name of a dtype into a type, to write a batch of it.
//!
//! numpy has no bfloat16 and the bindings no float16: both are passed as uint16 arrays of their bits.

use half::slice::HalfBitsSliceExt;
use half::{bf16, f16};
use numpy::PyReadwriteArray;
use numpy::ndarray::Dimension;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use super::errors::unknown_dtype;
use crate::rows::{Computed, Lost, RowOps, Target, What};

/// Column and value of a number that was lost, and how.
pub(super) type LostTuple = Option<(u64, String, &'static str)>;

/// A batch to write into an array of any dtype.
pub(super) trait Batch {
    /// Writes the values as they are.
    fn write<T: Target>(self, out: &mut [T]) -> PyResult<Option<Lost>>;
    /// Writes them after `ops`, computed in float32.
    fn compute<T: Computed>(self, out: &mut [T], ops: &RowOps) -> PyResult<Option<Lost>>;
}

/// Writes `batch` into `out`, which has `D` axes and elements of `dtype`.
pub(super) fn write_batch<D: Dimension>(
    out: &Bound<'_, PyAny>,
    dtype: &str,
    ops: Option<&RowOps>,
    batch: impl Batch,
) -> PyResult<LostTuple> {
    macro_rules! with_out {
        ($t:ty, $out:ident => $write:expr) => {{
            let mut out: PyReadwriteArray<'_, $t, D> = out.extract()?;
            let $out = out.as_slice_mut()?;
            $write
        }};
    }
    let lost = match (dtype, ops) {
        ("float32", None) => with_out!(f32, out => batch.write(out)),
        ("float64", None) => with_out!(f64, out => batch.write(out)),
        ("float16", None) => with_out!(u16, out => batch.write(out.reinterpret_cast_mut::<f16>())),
        ("bfloat16", None) => with_out!(u16, out => batch.write(out.reinterpret_cast_mut::<bf16>())),
        ("uint8", None) => with_out!(u8, out => batch.write(out)),
        ("int8", None) => with_out!(i8, out => batch.write(out)),
        ("int16", None) => with_out!(i16, out => batch.write(out)),
        ("int32", None) => with_out!(i32, out => batch.write(out)),
        ("int64", None) => with_out!(i64, out => batch.write(out)),
        ("float32", Some(ops)) => with_out!(f32, out => batch.compute(out, ops)),
        ("float16", Some(ops)) => with_out!(u16, out => batch.compute(out.reinterpret_cast_mut::<f16>(), ops)),
        ("bfloat16", Some(ops)) => with_out!(u16, out => batch.compute(out.reinterpret_cast_mut::<bf16>(), ops)),
        (other, None) => Err(unknown_dtype(other)),
        (other, Some(_)) => Err(not_computed(other)),
    };
    Ok(lost?.map(as_tuple))
}

/// The same for Python.
pub(super) fn as_tuple(lost: Lost) -> (u64, String, &'static str) {
    let what = match lost.what {
        What::Rounded => "rounded",
        What::TooLarge => "too large",
        What::TooLargeAfterOps => "too large after the transform",
    };
    (lost.column, lost.value, what)
}

fn not_computed(dtype: &str) -> PyErr {
    PyTypeError::new_err(format!("rows are not computed in dtype {dtype}; expected float32, float16 or bfloat16"))
}
