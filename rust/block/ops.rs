//! What can be done to a row while it is written: scale to a total, log1p, centre and scale.
//!
//! Done here it costs one pass over the stored values (a twentieth of a row), not one over the batch for each step.

use std::sync::Arc;

/// A held number, as the arithmetic here takes it.
pub(super) trait Number: Copy {
    /// Exact for all but huge integers, which no float32 step could tell apart.
    fn wide(self) -> f64;
}

macro_rules! numbers {
    ($($t:ty),*) => { $(
        #[allow(clippy::unnecessary_cast)]
        impl Number for $t {
            #[inline]
            fn wide(self) -> f64 { self as f64 }
        }
    )* };
}
numbers!(u8, u16, i32, i64, u64, f32, f64);

/// Steps in the order in which they are done.
#[derive(Clone, Debug, Default)]
pub struct RowOps {
    /// Multiply each row by this over the sum of its values (rows that sum to zero stay).
    pub target_sum: Option<f64>,
    /// ln(1 + x).
    pub log1p: bool,
    /// (x − mean) / std, clipped to ±max.
    pub scale: Option<Arc<ColumnScale>>,
}

/// Mean and standard deviation of each column.
#[derive(Clone, Debug)]
pub struct ColumnScale {
    /// Of each column.
    pub mean: Vec<f32>,
    /// Of each column, not zero.
    pub std: Vec<f32>,
    /// Values are clipped to ±max.
    pub max: Option<f32>,
}

impl RowOps {
    /// Fills `out` with the stored values of a row after `target_sum` and `log1p`.
    pub(super) fn values<V: Number>(&self, values: &[V], out: &mut Vec<f32>, table: &mut Table) {
        out.clear();
        let factor = self.factor(values);
        let step = |x: f32| {
            let scaled = factor.map_or(x, |f| x * f);
            if self.log1p { scaled.ln_1p() } else { scaled }
        };
        if size_of::<V>() <= 2 && self.log1p {
            // Counts of a row take few values, and ln_1p costs more than all the rest of a row.
            table.begin();
            out.extend(values.iter().map(|&v| table.get(v.wide() as usize, || step(v.wide() as f32))));
        } else {
            out.extend(values.iter().map(|&v| step(v.wide() as f32)));
        }
    }

    fn factor<V: Number>(&self, values: &[V]) -> Option<f32> {
        let target = self.target_sum?;
        let sum: f64 = values.iter().map(|&v| v.wide()).sum();
        (sum != 0.0).then(|| (target / sum) as f32)
    }

    /// The last step, on a whole row as it is delivered.
    pub(super) fn finish(&self, row: &mut [f32]) {
        let Some(scale) = &self.scale else { return };
        for ((x, mean), std) in row.iter_mut().zip(&scale.mean).zip(&scale.std) {
            *x = (*x - mean) / std;
        }
        if let Some(max) = scale.max {
            for x in row {
                *x = x.clamp(-max, max);
            }
        }
    }
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
    fn begin(&mut self) {
        self.current += 1;
    }

    #[inline]
    fn get(&mut self, at: usize, compute: impl FnOnce() -> f32) -> f32 {
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
