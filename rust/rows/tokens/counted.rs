//! The greatest counts of a row in falling order, by counting: a pass counts, another places, and no element is compared.
//!
//! Most counts of a cell are 1 or 2, and to add to one number again and again takes a processor several steps each time. So
//! a row is cut into four parts, which are done side by side.

/// Counts from here on are few, and are sorted.
const LARGE: u16 = 255;

const PARTS: usize = 4;

/// Memory for counting.
#[derive(Debug)]
pub(super) struct Counter {
    /// Of each part and count (the greatest first): how many, then where the next goes.
    places: Box<[[u32; 256]; PARTS]>,
    large: Vec<(u16, u32)>,
}

impl Default for Counter {
    fn default() -> Self {
        Self { places: Box::new([[0; 256]; PARTS]), large: Vec::new() }
    }
}

fn bucket(count: u16) -> usize {
    usize::from((LARGE - count.min(LARGE)) as u8)
}

impl Counter {
    /// Puts `genes` into `falling` by their counts, the greatest first, those of equal counts as they are; writes the values of the
    /// first `values.len()`, each as `value` says.
    pub(super) fn fall(
        &mut self,
        genes: &[u32],
        counts: &[u16],
        value: impl Fn(u16) -> f32,
        falling: &mut Vec<u32>,
        values: &mut [f32],
    ) {
        let (n, part) = (genes.len(), genes.len() / PARTS);
        falling.resize(n, 0);
        self.places.fill([0; 256]);
        let places = &mut *self.places;
        for i in 0..part {
            for (p, places) in places.iter_mut().enumerate() {
                places[bucket(counts[p * part + i])] += 1;
            }
        }
        counts[PARTS * part..].iter().for_each(|count| places[PARTS - 1][bucket(*count)] += 1);

        let (mut start, mut n_large, k) = (0, 0, values.len());
        for at in 0..256 {
            let begin = start as usize;
            for places in &mut *places {
                (places[at], start) = (start, start + places[at]);
            }
            let end = (start as usize).min(k);
            if at == 0 {
                n_large = start as usize;
            } else if begin < end {
                values[begin..end].fill(value(LARGE - at as u16));
            }
        }

        let mut place = |p: usize, at: usize| {
            let to = &mut places[p][bucket(counts[at])];
            falling[*to as usize] = genes[at];
            *to += 1;
        };
        for i in 0..part {
            (0..PARTS).for_each(|p| place(p, p * part + i));
        }
        (PARTS * part..n).for_each(|at| place(PARTS - 1, at));
        if n_large > 0 {
            self.place_large(genes, counts, value, &mut falling[..n_large], values);
        }
    }

    fn place_large(
        &mut self,
        genes: &[u32],
        counts: &[u16],
        value: impl Fn(u16) -> f32,
        falling: &mut [u32],
        values: &mut [f32],
    ) {
        self.large.clear();
        self.large.extend(counts.iter().zip(genes).filter(|(count, _)| **count >= LARGE).map(|(c, g)| (!*c, *g)));
        self.large.sort_unstable();
        falling.iter_mut().zip(&self.large).for_each(|(out, (_, gene))| *out = *gene);
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
            counts in proptest::collection::vec(prop_oneof![1u16..4, 1u16..600, 250u16..260, Just(u16::MAX)], 0..90), part in 0.0f64..=1.0,
        ) {
            let genes: Vec<u32> = (0..counts.len() as u32).map(|at| 3 * at + 1).collect();
            let k = (counts.len() as f64 * part) as usize;
            let (mut falling, mut values) = (vec![7; 2], vec![0.0; k]);
            Counter::default().fall(&genes, &counts, |count| f32::from(count) / 2.0, &mut falling, &mut values);
            let mut wanted: Vec<(u16, u32)> = counts.iter().map(|c| !*c).zip(genes).collect();
            wanted.sort_unstable();
            prop_assert_eq!(falling, wanted.iter().map(|(_, gene)| *gene).collect::<Vec<_>>());
            prop_assert_eq!(values, wanted[..k].iter().map(|(c, _)| f32::from(!*c) / 2.0).collect::<Vec<_>>());
        }
    }
}
