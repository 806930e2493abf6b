//! The greatest counts of a row in falling order, by counting: a pass counts, another places, and no element is compared.
//!
//! Most counts of a cell are 1 or 2. These come last, as they are, so they are split off first, where that is fast. To add to
//! one number again and again takes a processor several steps each time, so the rest is cut into four parts, which are
//! counted side by side.

use super::split::{is_fast, split_off};

/// Counts from here on are few, and are sorted.
const LARGE: u16 = 255;

const PARTS: usize = 4;

/// Counts that are split off, the greatest first.
const SPLIT: [u16; 2] = [2, 1];

/// Memory for counting.
#[derive(Debug)]
pub(super) struct Counter {
    /// Of each part and count (the greatest first): how many, then where the next goes.
    places: Box<[[u32; 256]; PARTS]>,
    large: Vec<(u16, u32)>,
    /// Genes of the counts that are split off.
    split: [Vec<u32>; SPLIT.len()],
    /// Tokens and values of which some are cut off.
    cut: (Vec<i64>, Vec<f32>),
}

impl Default for Counter {
    fn default() -> Self {
        Self {
            places: Box::new([[0; 256]; PARTS]),
            large: Vec::new(),
            split: Default::default(),
            cut: Default::default(),
        }
    }
}

fn bucket(count: u16) -> usize {
    usize::from((LARGE - count.min(LARGE)) as u8)
}

impl Counter {
    /// Puts the tokens of `genes` into `out` by their counts, the greatest first, those of equal counts as they are, as many
    /// as there is room for; and their values. Those that were split off are no longer in `genes` and `counts` afterwards.
    pub(super) fn fall(
        &mut self,
        genes: &mut Vec<u32>,
        counts: &mut Vec<u16>,
        (token, value): (impl Fn(u32) -> i64, impl Fn(u16) -> f32),
        out: &mut [i64],
        values: &mut [f32],
    ) {
        if is_fast() {
            let mut end = genes.len();
            for (count, equal) in SPLIT.iter().zip(&mut self.split).rev() {
                split_off(*count, genes, counts, equal);
                let start = end - equal.len();
                let places = start.min(out.len())..end.min(out.len());
                end = start;
                out[places.clone()].iter_mut().zip(&*equal).for_each(|(out, gene)| *out = token(*gene));
                values[places].fill(value(*count));
            }
        }
        let n = genes.len();
        if n <= out.len() {
            self.by_counting(genes, counts, (token, value), &mut out[..n], &mut values[..n]);
            return;
        }
        let (mut all, mut all_values) = std::mem::take(&mut self.cut);
        all.resize(n, 0);
        all_values.resize(n, 0.0);
        self.by_counting(genes, counts, (token, value), &mut all, &mut all_values);
        out.copy_from_slice(&all[..out.len()]);
        values.copy_from_slice(&all_values[..out.len()]);
        self.cut = (all, all_values);
    }

    /// Gene and count of the first token, of what the last call of [`Self::fall`] was given and left.
    pub(super) fn greatest(&self, genes: &[u32], counts: &[u16]) -> Option<(u32, u16)> {
        let others = genes.iter().copied().zip(counts.iter().copied()).rev().max_by_key(|(_, count)| *count);
        let split = self.split.iter().zip(SPLIT).find_map(|(genes, count)| Some((*genes.first()?, count)));
        others.or(split)
    }

    fn by_counting(
        &mut self,
        genes: &[u32],
        counts: &[u16],
        (token, value): (impl Fn(u32) -> i64, impl Fn(u16) -> f32),
        out: &mut [i64],
        values: &mut [f32],
    ) {
        let part = genes.len() / PARTS;
        let rest = PARTS * part..;
        // Greater counts than the greatest are not there.
        let begin = bucket(counts.iter().copied().max().unwrap_or(0));
        let [first, second, third, fourth] = &mut *self.places;
        for places in [&mut *first, &mut *second, &mut *third, &mut *fourth] {
            places[begin..].fill(0);
        }
        let of = |p: usize| counts[p * part..(p + 1) * part].iter();
        for (((a, b), c), d) in of(0).zip(of(1)).zip(of(2)).zip(of(3)) {
            first[bucket(*a)] += 1;
            second[bucket(*b)] += 1;
            third[bucket(*c)] += 1;
            fourth[bucket(*d)] += 1;
        }
        counts[rest.clone()].iter().for_each(|count| fourth[bucket(*count)] += 1);

        // One addition after the other for a count, and not one for each part.
        let mut start = 0;
        for at in begin..256 {
            let [a, b, c, d] = [first[at], second[at], third[at], fourth[at]];
            (first[at], second[at], third[at], fourth[at]) = (start, start + a, start + a + b, start + a + b + c);
            start += a + b + c + d;
        }

        let mut place = |places: &mut [u32; 256], (gene, count): (&u32, &u16)| {
            let to = &mut places[bucket(*count)];
            out[*to as usize] = token(*gene);
            values[*to as usize] = value(*count);
            *to += 1;
        };
        let of = |p: usize| genes[p * part..(p + 1) * part].iter().zip(of(p));
        for (((a, b), c), d) in of(0).zip(of(1)).zip(of(2)).zip(of(3)) {
            place(first, a);
            place(second, b);
            place(third, c);
            place(fourth, d);
        }
        genes[rest.clone()].iter().zip(&counts[rest]).for_each(|pair| place(fourth, pair));
        if begin == 0 {
            self.place_large(genes, counts, (token, value), out, values);
        }
    }

    fn place_large(
        &mut self,
        genes: &[u32],
        counts: &[u16],
        (token, value): (impl Fn(u32) -> i64, impl Fn(u16) -> f32),
        out: &mut [i64],
        values: &mut [f32],
    ) {
        self.large.clear();
        self.large.extend(counts.iter().zip(genes).filter(|(count, _)| **count >= LARGE).map(|(c, g)| (!*c, *g)));
        self.large.sort_unstable();
        out.iter_mut().zip(&self.large).for_each(|(out, (_, gene))| *out = token(*gene));
        values.iter_mut().zip(&self.large).for_each(|(out, (count, _))| *out = value(!*count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn counts_fall_and_equal_ones_stay(
            counts in proptest::collection::vec(prop_oneof![1u16..4, 1u16..600, 250u16..260, Just(u16::MAX)], 0..90),
            room in 0usize..100,
        ) {
            let genes: Vec<u32> = (0..counts.len() as u32).map(|at| 3 * at + 1).collect();
            let (mut falling, mut values) = (vec![7; genes.len()], vec![0.0; genes.len()]);
            let (token, value) = (|gene: u32| -i64::from(gene), |count: u16| f32::from(count) / 2.0);
            let mut counter = Counter::default();
            // Of the row before.
            counter.fall(&mut vec![5, 6], &mut vec![u16::MAX, 3], (token, value), &mut [0, 0], &mut [0.0; 2]);
            let (mut left, mut their_left) = (genes.clone(), counts.clone());
            counter.fall(&mut left, &mut their_left, (token, value), &mut falling, &mut values);
            let greatest = counter.greatest(&left, &their_left).map(|(gene, count)| (token(gene), value(count)));
            prop_assert_eq!(greatest, falling.first().copied().zip(values.first().copied()));
            let room = counts.len() * room / 100;
            let (mut some, mut their_values) = (vec![9; room], vec![0.0; room]);
            counter.fall(&mut genes.clone(), &mut counts.clone(), (token, value), &mut some, &mut their_values);
            prop_assert_eq!((&some[..], &their_values[..]), (&falling[..room], &values[..room]));
            let (mut counted, mut their_values) = (vec![8; genes.len()], vec![0.0; genes.len()]);
            counter.by_counting(&genes, &counts, (token, value), &mut counted, &mut their_values);
            prop_assert_eq!((&falling, &values), (&counted, &their_values));
            let mut wanted: Vec<(u16, u32)> = counts.iter().map(|c| !*c).zip(genes).collect();
            wanted.sort_unstable();
            prop_assert_eq!(falling, wanted.iter().map(|(_, gene)| -i64::from(*gene)).collect::<Vec<_>>());
            prop_assert_eq!(values, wanted.iter().map(|(c, _)| f32::from(!*c) / 2.0).collect::<Vec<_>>());
        }
    }
}
