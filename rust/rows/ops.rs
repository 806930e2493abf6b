//! Steps on a row while it is written: normalise to a total, log1p, centre and scale.
//!
//! Here they cost one pass over the stored values, instead of one over the batch for each step.

use std::sync::Arc;

use half::{bf16, f16};

use super::cast::{CastFrom as _, Target};
use super::number::{Number, sum};

/// Steps in the order in which they are done, in float32.
#[derive(Clone, Debug, Default)]
pub(crate) struct RowOps {
    /// Multiply each row by this divided by its total (rows with a total of zero stay).
    pub(crate) target_sum: Option<f64>,
    /// Whether the total is over all columns of the matrix, not only over delivered ones.
    pub(crate) over_all: bool,
    /// ln(1 + x).
    pub(crate) log1p: bool,
    /// (x − mean) / std, clipped to ±max.
    pub(crate) scale: Option<Arc<ColumnScale>>,
}

/// A dtype that computed rows are rounded to, once.
pub(crate) trait Computed: Target {
    /// The least number that is rounded to infinity.
    const LIMIT: f32;

    /// Where a row is computed: in place for float32, else in `scratch`.
    fn row<'a>(out: &'a mut [Self], scratch: &'a mut Vec<f32>) -> &'a mut [f32];
    /// Rounds what was computed in `scratch`, if it was.
    fn round(out: &mut [Self], scratch: &[f32]);
}

impl Computed for f32 {
    const LIMIT: f32 = f32::INFINITY;

    fn row<'a>(out: &'a mut [Self], _: &'a mut Vec<f32>) -> &'a mut [f32] {
        out
    }
    fn round(_: &mut [Self], _: &[f32]) {}
}

macro_rules! rounded_to {
    ($($t:ty, $limit:expr);*) => { $(
        impl Computed for $t {
            const LIMIT: f32 = $limit;

            fn row<'a>(out: &'a mut [Self], scratch: &'a mut Vec<f32>) -> &'a mut [f32] {
                scratch.resize(out.len(), 0.0);
                scratch
            }
            fn round(out: &mut [Self], scratch: &[f32]) {
                out.iter_mut().zip(scratch).for_each(|(out, x)| *out = Self::cast_from(*x));
            }
        }
    )* };
}
// Half way between the greatest finite number and the next power of two.
rounded_to!(f16, 65_520.0; bf16, f32::from_bits(0x7F7F_8000));

/// Mean and standard deviation of each column.
#[derive(Clone, Debug)]
pub(crate) struct ColumnScale {
    /// Of each column.
    pub(crate) mean: Vec<f32>,
    /// Of each column, not zero.
    pub(crate) std: Vec<f32>,
    /// Values are clipped to ±max.
    pub(crate) max: Option<f32>,
}

impl RowOps {
    /// Fills `out` with the stored values of a row after `target_sum` and `log1p`; gives the place of the first that is too
    /// large. The total of the row is that of `values` where none is given.
    pub(super) fn values<V: Number, T: Computed>(
        &self,
        values: &[V],
        total: Option<f64>,
        out: &mut Vec<f32>,
        table: &mut Table,
    ) -> Option<usize> {
        out.clear();
        let factor = self.factor(values, total);
        let step = |x: f32| {
            let scaled = times(x, factor);
            if self.log1p { scaled.ln_1p() } else { scaled }
        };
        if size_of::<V>() <= 2 && self.log1p {
            // Counts of a row have few distinct values, and ln_1p costs more than all the rest.
            table.begin();
            out.extend(values.iter().map(|&v| table.get(v.wide() as usize, || step(v.wide() as f32))));
        } else {
            out.extend(values.iter().map(|&v| step(v.wide() as f32)));
        }
        let limit = if self.scale.is_some() { f32::INFINITY } else { T::LIMIT };
        first_beyond(values.iter().zip(&*out).map(|(&v, &x)| (v.wide().is_finite(), x)), limit)
    }

    fn factor<V: Number>(&self, values: &[V], total: Option<f64>) -> Option<f64> {
        let target = self.target_sum?;
        let sum = total.unwrap_or_else(|| sum(values.iter().copied()));
        (sum != 0.0).then(|| target / sum)
    }

    /// The last step, on a whole row as it is delivered; gives the place of the first value that is too large.
    pub(super) fn finish<T: Computed>(&self, row: &mut [f32]) -> Option<usize> {
        let scale = self.scale.as_ref()?;
        let max = scale.max.unwrap_or(f32::INFINITY);
        let scaled = row.iter_mut().zip(&scale.mean).zip(&scale.std).map(|((x, mean), std)| {
            let was_finite = x.is_finite();
            *x = ((*x - mean) / std).clamp(-max, max);
            (was_finite, *x)
        });
        first_beyond(scaled, T::LIMIT)
    }
}

/// A value times the factor of its row.
#[inline]
pub(super) fn times(x: f32, factor: Option<f64>) -> f32 {
    match factor {
        None => x,
        Some(factor) if factor <= f64::from(f32::MAX) => x * factor as f32,
        // Or zeros would become NaN.
        Some(factor) => (f64::from(x) * factor) as f32,
    }
}

/// The place of the first finite number whose result is beyond ±`limit`; without an early exit, to be vectorised.
fn first_beyond(results: impl Iterator<Item = (bool, f32)>, limit: f32) -> Option<usize> {
    let place = |(place, (was_finite, x)): (u32, (bool, f32))| {
        if was_finite && x.abs() >= limit { place } else { u32::MAX }
    };
    let first = (0u32..).zip(results).map(place).fold(u32::MAX, u32::min);
    (first != u32::MAX).then_some(first as usize)
}

/// Results for the counts below 256, for one row at a time.
pub(super) struct Table {
    results: [f32; 256],
    row: [u32; 256],
    current: u32,
}

impl Default for Table {
    fn default() -> Self {
        Self { results: [0.0; 256], row: [0; 256], current: 0 }
    }
}

impl Table {
    /// Forgets the results of the row before.
    pub(super) fn begin(&mut self) {
        self.current += 1;
    }

    /// The result for `at`, computed once in a row.
    #[inline]
    pub(super) fn get(&mut self, at: usize, compute: impl FnOnce() -> f32) -> f32 {
        if at >= self.row.len() {
            return compute();
        }
        if self.row[at] != self.current {
            self.row[at] = self.current;
            self.results[at] = compute();
        }
        self.results[at]
    }
}
