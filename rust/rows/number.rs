//! Held numbers as float64, in which rows are summed.

/// A held number, as the arithmetic here takes it.
pub(crate) trait Number: Copy {
    /// Exact except for huge integers, which are equal in float32 anyway.
    fn wide(self) -> f64;
    /// Cut to 16 bits: of use for those of at most 16.
    fn narrow(self) -> u16;
    /// Above zero.
    fn is_positive(self) -> bool;
}

macro_rules! numbers {
    ($($t:ty),*) => { $(
        #[allow(clippy::unnecessary_cast)]
        impl Number for $t {
            #[inline]
            fn wide(self) -> f64 { self as f64 }
            #[inline]
            fn narrow(self) -> u16 { self as u16 }
            #[inline]
            fn is_positive(self) -> bool { self > (0 as $t) }
        }
    )* };
}
numbers!(u8, u16, i32, i64, u64, f32, f64);

/// The sum of `values`: in storage order and in float64, so that every sum of a row has the same bits.
pub(super) fn sum<V: Number>(values: impl Iterator<Item = V>) -> f64 {
    values.map(Number::wide).sum()
}
