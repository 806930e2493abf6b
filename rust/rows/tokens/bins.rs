//! Quantile bins of a row's expressed genes, as scGPT defines them, from ranks alone.
//!
//! The borders are the quantiles 0 to 1 of the row's values at equal distances, `bins - 1` of them; a value's bin is the number of
//! borders up to it. Where borders are equal to the value, its bin is drawn among those between them. A border is
//! between two neighbours in sorted order (or on one), so how many borders are below a value depends on ranks
//! only: no quantile is computed, and counts have the bins of their logarithms.

use super::draw::Draws;

/// Writes the bin (1 to `bins - 1`) of each score into `bins_of`; `falling` are their places, the greatest first.
pub(super) fn quantile_bins(
    scores: &[f64],
    genes: &[u32],
    falling: &[u32],
    bins: u32,
    draws: Draws,
    bins_of: &mut Vec<f32>,
) {
    let n = falling.len();
    bins_of.clear();
    bins_of.resize(n, 0.0);
    let mut start = 0;
    while start < n {
        let score = scores[falling[start] as usize];
        let run = falling[start..].iter().take_while(|at| scores[**at as usize] >= score).count();
        // So many are less, and so many are less or equal.
        let (less, up_to) = (n - start - run, n - start);
        let (below, within) = borders(less, up_to, n, bins);
        for &at in &falling[start..start + run] {
            let skipped = draws.below(genes[at as usize], u64::from(within - below)) as u32;
            bins_of[at as usize] = (within - skipped) as f32;
        }
        start += run;
    }
}

/// Of the `bins - 1` borders (two or more), how many are below a value and how many are not above it.
fn borders(less: usize, up_to: usize, n: usize, bins: u32) -> (u32, u32) {
    // Border i is at place i * (n - 1) / last of the sorted values.
    let (last, steps) = (u64::from(bins) - 2, n as u64 - 1);
    if steps == 0 {
        return (0, bins - 1);
    }
    let (less, up_to) = (less as u64, up_to as u64);
    let below = (less * last).div_ceil(steps);
    let within = ((up_to - 1) * last) / steps + 1;
    (below as u32, within as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The borders of `values` (sorted), with numpy's definition of a quantile; exact where `bins - 2` is a power of two.
    fn quantiles(values: &[f64], bins: u32) -> Vec<f64> {
        (0..bins - 1)
            .map(|i| {
                let at = f64::from(i) / f64::from(bins - 2) * (values.len() - 1) as f64;
                let (low, part) = (values[at as usize], at.fract());
                let high = values[(at as usize + 1).min(values.len() - 1)];
                low + (high - low) * part
            })
            .collect()
    }

    proptest! {
        #[test]
        fn borders_are_counted_as_among_quantiles(
            mut values in proptest::collection::vec(prop_oneof![1u32..5, 1u32..1000], 1..60), power in 0u32..6,
        ) {
            values.sort_unstable();
            let bins = 2 + (1 << power);
            let sorted: Vec<f64> = values.iter().map(|&x| f64::from(x)).collect();
            let edges = quantiles(&sorted, bins);
            for &x in &sorted {
                let (less, up_to) = (sorted.partition_point(|y| *y < x), sorted.partition_point(|y| *y <= x));
                let wanted = (edges.iter().filter(|e| **e < x).count(), edges.iter().filter(|e| **e <= x).count());
                let (below, within) = borders(less, up_to, sorted.len(), bins);
                prop_assert_eq!((below as usize, within as usize), wanted);
            }
        }
    }
}
