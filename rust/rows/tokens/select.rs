//! Which of a row's genes are first by some key, and their order. Equal keys are ordered by gene position.

/// Counts below this are sorted by counting.
const COUNTED: usize = 256;

/// Memory for sorting.
#[derive(Default)]
pub(super) struct Sorter {
    keys: Vec<u64>,
    pairs: Vec<(u64, u32)>,
    starts: Vec<u32>,
}

/// The key by which greater scores (0 or more) come first.
#[inline]
pub(super) fn falling(score: f64) -> u64 {
    !score.to_bits()
}

impl Sorter {
    /// Puts the places of the `k` least of `keys` into `chosen`, rising.
    pub(super) fn least(&mut self, keys: &[u64], k: usize, chosen: &mut Vec<u32>) {
        chosen.clear();
        if k == 0 {
            return;
        }
        self.keys.clear();
        self.keys.extend_from_slice(keys);
        let (less, &mut last, _) = self.keys.select_nth_unstable(k - 1);
        let mut equal = k - less.iter().filter(|key| **key < last).count();
        for (at, &key) in (0u32..).zip(keys) {
            let taken = key < last || (key == last && equal > 0);
            equal -= usize::from(taken && key == last);
            if taken {
                chosen.push(at);
            }
        }
    }

    /// Sorts `chosen`, which rises, by key.
    pub(super) fn sort(&mut self, chosen: &mut [u32], key: impl Fn(u32) -> u64) {
        self.pairs.clear();
        self.pairs.extend(chosen.iter().map(|&at| (key(at), at)));
        self.pairs.sort_unstable();
        chosen.iter_mut().zip(&self.pairs).for_each(|(out, (_, at))| *out = *at);
    }

    /// Puts the places of the `k` greatest scores into `chosen`, falling. `are_counts`: they are whole numbers below 2³¹.
    pub(super) fn greatest(&mut self, scores: &[f64], are_counts: bool, k: usize, chosen: &mut Vec<u32>) {
        if are_counts {
            self.greatest_counts(scores, k, chosen);
        } else if k < scores.len() {
            let mut keys = std::mem::take(&mut self.pairs);
            keys.clear();
            keys.extend((0u32..).zip(scores).map(|(at, &score)| (falling(score), at)));
            if k > 0 {
                keys.select_nth_unstable(k - 1);
            }
            keys.truncate(k);
            keys.sort_unstable();
            chosen.clear();
            chosen.extend(keys.iter().map(|(_, at)| *at));
            self.pairs = keys;
        } else {
            chosen.clear();
            chosen.extend(0..scores.len() as u32);
            self.sort(chosen, |at| falling(scores[at as usize]));
        }
    }

    /// By counting, which takes one pass to count and one to place; the few large ones are sorted.
    fn greatest_counts(&mut self, counts: &[f64], k: usize, chosen: &mut Vec<u32>) {
        let bucket = |count: f64| COUNTED - 1 - (count as usize).min(COUNTED - 1);
        self.starts.clear();
        self.starts.resize(COUNTED + 1, 0);
        for &count in counts {
            self.starts[bucket(count) + 1] += 1;
        }
        let n_large = self.starts[1] as usize;
        (1..=COUNTED).for_each(|i| self.starts[i] += self.starts[i - 1]);
        chosen.clear();
        chosen.resize(k.max(n_large), 0);
        for (at, &count) in (0u32..).zip(counts) {
            let place = &mut self.starts[bucket(count)];
            if let Some(out) = chosen.get_mut(*place as usize) {
                *out = at;
            }
            *place += 1;
        }
        self.sort(&mut chosen[..n_large], |at| falling(counts[at as usize]));
        chosen.truncate(k);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn by_sorting(scores: &[f64]) -> Vec<u32> {
        let mut all: Vec<u32> = (0..scores.len() as u32).collect();
        all.sort_by(|a, b| scores[*b as usize].total_cmp(&scores[*a as usize]));
        all
    }

    proptest! {
        #[test]
        fn the_greatest_come_first_and_ties_by_place(
            counts in proptest::collection::vec(prop_oneof![1u32..4, 1u32..400, 200u32..300], 0..80), part in 0.0f64..=1.0, scale in 1u32..5,
        ) {
            let scores: Vec<f64> = counts.iter().map(|&c| f64::from(c)).collect();
            let k = (scores.len() as f64 * part) as usize;
            let mut sorter = Sorter::default();
            let mut chosen = vec![99; 3];
            sorter.greatest(&scores, true, k, &mut chosen);
            prop_assert_eq!(&chosen, &by_sorting(&scores)[..k]);
            let scaled: Vec<f64> = (1u32..).zip(&scores).map(|(i, x)| x / f64::from(1 + i % scale)).collect();
            sorter.greatest(&scaled, false, k, &mut chosen);
            prop_assert_eq!(&chosen, &by_sorting(&scaled)[..k]);
            let keys: Vec<u64> = scaled.iter().map(|&x| falling(x)).collect();
            let mut rising = chosen.clone();
            rising.sort_unstable();
            sorter.least(&keys, k, &mut chosen);
            prop_assert_eq!(&chosen, &rising);
            sorter.sort(&mut chosen, |at| keys[at as usize]);
            prop_assert_eq!(&chosen, &by_sorting(&scaled)[..k]);
        }
    }
}
