//! Held numbers as float64, in which rows are summed.

/// A held number, as the arithmetic here takes it.
pub(crate) trait Number: Copy {
    /// Exact except for huge integers, which are equal in float32 anyway.
    fn wide(self) -> f64;
    /// Cut to 16 bits: of use for those of at most 16.
    fn narrow(self) -> u16;
    /// Above zero as a float32.
    fn is_positive(self) -> bool;
}

macro_rules! numbers {
    ($($t:ty: $zero:expr),*) => { $(
        #[allow(clippy::unnecessary_cast)]
        impl Number for $t {
            #[inline]
            fn wide(self) -> f64 { self as f64 }
            #[inline]
            fn narrow(self) -> u16 { self as u16 }
            #[inline]
            fn is_positive(self) -> bool { self > $zero }
        }
    )* };
}
// The greatest float64 that is 0 as a float32 is half of the least float32, 2⁻¹⁵⁰.
numbers!(u8: 0, u16: 0, i32: 0, i64: 0, u64: 0, f32: 0.0, f64: f64::from_bits((1023 - 150) << 52));

/// The sum of `values`: in storage order and in float64, so that every sum of a row has the same bits.
pub(super) fn sum<V: Number>(values: impl Iterator<Item = V>) -> f64 {
    values.map(Number::wide).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_positive_is_so_as_a_float32(bits: u64, exponent in -160i32..-140, part in 1.0f64..2.0) {
            for x in [f64::from_bits(bits), part * f64::from(exponent).exp2(), f64::from(exponent).exp2()] {
                prop_assert_eq!(Number::is_positive(x), x as f32 > 0.0, "{}", x);
            }
        }
    }
}
