//! Draws that depend on nothing but their key and a counter, so that they are the same on every machine.
//!
//! They are splitmix64, as those of `order/random.py` (Steele, Lea, Flood, OOPSLA 2014).

/// The step of splitmix64's counter.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The finaliser of splitmix64, a bijection.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// The key of `key` and one more number, as `derive_key` of `order/random.py` folds it in.
fn derived(key: u64, part: u64) -> u64 {
    mix((key ^ part).wrapping_add(GOLDEN))
}

/// What is drawn in a row; the numbers never change.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stream {
    Choice = 0,
    Order = 1,
    Zeros = 2,
    Bins = 3,
}

/// The draws of one row in one epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowDraws(u64);

impl RowDraws {
    /// Those of `row` (its number in the data) in the epoch of key `epoch`.
    pub(super) fn new(epoch: u64, row: i64) -> Self {
        Self(derived(epoch, row as u64))
    }

    /// The draws of a stream.
    pub(super) fn of(self, stream: Stream) -> Draws {
        Draws(derived(self.0, stream as u64))
    }
}

/// A sequence of 64-bit numbers, all different.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draws(u64);

impl Draws {
    /// Number `counter`.
    #[inline]
    pub(super) fn at(self, counter: u32) -> u64 {
        mix((u64::from(counter) + 1).wrapping_mul(GOLDEN).wrapping_add(self.0))
    }

    /// Number `counter` as one of 0 to `n` - 1.
    #[inline]
    pub(super) fn below(self, counter: u32, n: u64) -> u64 {
        ((u128::from(self.at(counter)) * u128::from(n)) >> 64) as u64
    }

    /// -ln(u) of number `counter` as a uniform u: above 0, at most 1.
    #[inline]
    pub(super) fn exponential(self, counter: u32) -> f64 {
        minus_ln(((self.at(counter) >> 11) + 1) as f64 / (1u64 << 53) as f64)
    }

    /// Marks `k` different numbers below `n` in `bits`: each set of them is equally likely (Floyd's algorithm).
    pub(super) fn distinct(self, n: usize, k: usize, bits: &mut Bits) {
        bits.clear(n);
        for last in n - k..n {
            let drawn = self.below(last as u32, last as u64 + 1) as usize;
            bits.set(if bits.has(drawn) { last } else { drawn });
        }
    }
}

/// Small numbers that are marked.
#[derive(Debug, Default)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    /// Unmarks all, for numbers below `n`.
    pub(super) fn clear(&mut self, n: usize) {
        self.0.clear();
        self.0.resize(n.div_ceil(64), 0);
    }

    /// Marks a number.
    pub(super) fn set(&mut self, at: usize) {
        self.0[at / 64] |= 1 << (at % 64);
    }

    fn has(&self, at: usize) -> bool {
        self.0[at / 64] >> (at % 64) & 1 == 1
    }

    /// The marked numbers, rising.
    pub(super) fn rising(&self) -> impl Iterator<Item = u32> + '_ {
        (0u32..).zip(&self.0).flat_map(|(word, &bits)| {
            std::iter::successors((bits != 0).then_some(bits), |bits| Some(bits & (bits - 1)).filter(|left| *left != 0))
                .map(move |bits| word * 64 + bits.trailing_zeros())
        })
    }
}

/// -ln(x) for 0 < x <= 1, with arithmetic alone: the logarithms of systems' libraries differ in their last bits.
fn minus_ln(x: f64) -> f64 {
    // x = m * 2^e with m in [sqrt(1/2), sqrt(2)), and ln(m) = 2 artanh((m - 1) / (m + 1)).
    let bits = x.to_bits();
    let mut exponent = (bits >> 52) as i32 - 1023;
    let mut m = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
    if m > std::f64::consts::SQRT_2 {
        (m, exponent) = (m / 2.0, exponent + 1);
    }
    let s = (m - 1.0) / (m + 1.0);
    let square = s * s;
    let series = (0..11).rev().fold(0.0, |sum, i| sum * square + 1.0 / f64::from(2 * i + 1));
    // Not the negative: that of 0 is -0, whose bits are those of a great number.
    0.0 - (f64::from(exponent) * std::f64::consts::LN_2 + 2.0 * s * series)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_those_of_splitmix64() {
        // The first outputs of Vigna's splitmix64.c with the seed 1234567.
        let found: Vec<u64> = (0..3).map(|i| Draws(1_234_567).at(i)).collect();
        assert_eq!(found, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn the_logarithm_of_1_is_0_and_not_below() {
        assert_eq!(minus_ln(1.0).to_bits(), 0);
    }

    #[test]
    fn every_number_is_drawn_equally_often() {
        let (n, k, mut seen) = (10usize, 3, [0u32; 10]);
        let mut bits = Bits::default();
        for row in 0..20_000 {
            RowDraws::new(7, row).of(Stream::Zeros).distinct(n, k, &mut bits);
            let drawn: Vec<u32> = bits.rising().collect();
            assert_eq!(drawn.len(), k);
            for &at in &drawn {
                seen[at as usize] += 1;
            }
        }
        // 6,000 expected of each; six standard deviations are 389.
        assert!(seen.iter().all(|&n| n.abs_diff(6_000) < 389), "{seen:?}");
    }

    proptest! {
        #[test]
        fn the_logarithm_is_that_of_the_library(x in prop_oneof![0.0f64..1.0, (-53.0f64..0.0).prop_map(f64::exp2)]) {
            prop_assume!(x > 0.0);
            let (found, wanted) = (minus_ln(x), -x.ln());
            prop_assert!((found - wanted).abs() <= 4e-16 * wanted.abs() + 1e-17, "{found} {wanted}");
        }

        #[test]
        fn distinct_numbers_are_distinct_and_below(n in 1usize..300, part in 0.0f64..=1.0, key: u64) {
            let k = (n as f64 * part) as usize;
            let mut bits = Bits::default();
            Draws(key).distinct(n, k, &mut bits);
            let drawn: Vec<u32> = bits.rising().collect();
            prop_assert_eq!(drawn.len(), k);
            prop_assert!(drawn.is_sorted() && drawn.iter().all(|&at| (at as usize) < n));
        }
    }
}
