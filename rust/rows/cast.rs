//! Converts stored numbers to the dtype of a batch, and finds what is lost.
//!
//! Four cases: always exact; a float target that rounds a whole number, or makes a number infinite (both reported, for a
//! warning); an integer target that cannot hold the value (an error).

use half::{bf16, f16};

use super::{Lost, What};
use crate::error::{Error, Result};

/// What was lost of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing, or a fraction was rounded.
    None,
    /// A whole number became another number.
    Rounded,
    /// A finite number became infinite.
    TooLarge,
    /// The target cannot hold it.
    Impossible,
}

/// A conversion from a held type `V`.
pub trait CastFrom<V>: Sized {
    /// Whether no value of this pair of types is ever lost, so that nothing needs to be checked.
    const EXACT: bool;
    /// The converted value.
    fn cast_from(value: V) -> Self;
    /// What the conversion loses.
    fn loss(value: V) -> Loss;
}

/// A dtype that batches can have.
pub trait Target:
    CastFrom<u8>
    + CastFrom<u16>
    + CastFrom<i32>
    + CastFrom<i64>
    + CastFrom<u64>
    + CastFrom<f32>
    + CastFrom<f64>
    + Copy
    + Default
    + Send
    + Sync
    + 'static
{
    /// Its name in torch.
    const NAME: &'static str;
}

macro_rules! targets {
    ($($t:ty => $name:literal),*) => { $(impl Target for $t { const NAME: &'static str = $name; })* };
}
targets!(f32 => "float32", f64 => "float64", f16 => "float16", bf16 => "bfloat16",
         u8 => "uint8", i8 => "int8", i16 => "int16", i32 => "int32", i64 => "int64");

/// `impl CastFrom` for pairs that share one rule for the loss.
macro_rules! casts {
    ($exact:literal, $loss:expr; $($from:ty => $($to:ty),*;)*) => { $($(
        #[allow(clippy::redundant_closure_call, clippy::unnecessary_cast)]
        impl CastFrom<$from> for $to {
            const EXACT: bool = $exact;
            #[inline]
            fn cast_from(value: $from) -> Self { value as $to }
            #[inline]
            fn loss(value: $from) -> Loss { ($loss)(value, value as $to) }
        }
    )*)* };
}

// The target holds every value of the source.
casts! { true, |_, _| Loss::None;
    u8 => f32, f64, u8, i16, i32, i64;
    u16 => f32, f64, i32, i64;
    i32 => f64, i32, i64;
    i64 => i64;
    f32 => f32, f64;
    f64 => f64;
}

// Integer to a narrower integer.
casts! { false, |from, to| if to as i128 == from as i128 { Loss::None } else { Loss::Impossible };
    u8 => i8;
    u16 => u8, i8, i16;
    i32 => u8, i8, i16;
    i64 => u8, i8, i16, i32;
    u64 => u8, i8, i16, i32, i64;
}

// Integer to a float that may round it.
casts! { false, |from, to| if to as i128 == from as i128 { Loss::None } else { Loss::Rounded };
    i32 => f32;
    i64 => f32, f64;
    u64 => f32, f64;
}

// Float to a narrower float: a rounded fraction is expected, a rounded count is a loss.
casts! { false, |from: f64, to| rounded(from, f64::from(to)); f64 => f32; }

// Float to integer: only whole numbers in range.
casts! { false, |from: f32, to| whole(f64::from(from), to as i128); f32 => u8, i8, i16, i32, i64; }
casts! { false, |from: f64, to| whole(from, to as i128); f64 => u8, i8, i16, i32, i64; }

/// Anything to a half-width float.
macro_rules! half_width {
    ($to:ty: $($from:ty),*) => { $(
        #[allow(clippy::unnecessary_cast)]
        impl CastFrom<$from> for $to {
            const EXACT: bool = false;
            #[inline]
            fn cast_from(value: $from) -> Self { <$to>::from_f64(value as f64) }
            #[inline]
            fn loss(value: $from) -> Loss { rounded(value as f64, <$to>::from_f64(value as f64).to_f64()) }
        }
    )* };
}
half_width!(f16: u8, u16, i32, i64, u64, f32, f64);
half_width!(bf16: u8, u16, i32, i64, u64, f32, f64);

/// Saturation and NaN show as a difference; i128 tells 2⁶³ from `i64::MAX`, which f64 cannot.
fn whole(from: f64, to: i128) -> Loss {
    if from.fract() == 0.0 && to == from as i128 { Loss::None } else { Loss::Impossible }
}

#[allow(clippy::float_cmp)] // equal or not, bit for bit, is the question
fn rounded(from: f64, to: f64) -> Loss {
    if to.is_infinite() && from.is_finite() {
        Loss::TooLarge
    } else if to == from || from.fract() != 0.0 {
        Loss::None
    } else {
        Loss::Rounded
    }
}

/// Finds what the conversion of these values (column, value) loses; does nothing for an exact pair of types.
pub(super) fn check<V, T>(values: impl Iterator<Item = (u64, V)>, lost: &mut Option<Lost>) -> Result<()>
where
    T: Target + CastFrom<V>,
    V: Copy + std::fmt::Display,
{
    if <T as CastFrom<V>>::EXACT {
        return Ok(());
    }
    for (column, value) in values {
        let what = match T::loss(value) {
            Loss::None => continue,
            Loss::Rounded => What::Rounded,
            Loss::TooLarge => What::TooLarge,
            Loss::Impossible => {
                return Err(Error::Inexact { column, value: value.to_string(), dtype: T::NAME });
            }
        };
        if lost.as_ref().is_none_or(|lost| lost.what < what) {
            *lost = Some(Lost { column, value: value.to_string(), what });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_that_float32_cannot_hold_are_reported() {
        assert_eq!(<f32 as CastFrom<_>>::loss((1i32 << 24) + 1), Loss::Rounded);
        assert_eq!(<f32 as CastFrom<_>>::loss(1i32 << 24), Loss::None);
        assert_eq!(<f32 as CastFrom<_>>::loss(16_777_217.0f64), Loss::Rounded);
        assert_eq!(<f32 as CastFrom<_>>::loss(0.1f64), Loss::None);
        assert_eq!(<f32 as CastFrom<_>>::loss(i64::MAX), Loss::Rounded);
        assert_eq!(<f64 as CastFrom<_>>::loss(u64::MAX), Loss::Rounded);
    }

    #[test]
    fn integers_are_exact_or_refused() {
        assert_eq!(<u8 as CastFrom<_>>::loss(255u16), Loss::None);
        assert_eq!(<u8 as CastFrom<_>>::loss(256u16), Loss::Impossible);
        assert_eq!(<i64 as CastFrom<_>>::loss(0.5f32), Loss::Impossible);
        assert_eq!(<i64 as CastFrom<_>>::loss(f64::NAN), Loss::Impossible);
        assert_eq!(<i64 as CastFrom<_>>::loss(f64::INFINITY), Loss::Impossible);
        assert_eq!(<i64 as CastFrom<_>>::loss(9.223_372_036_854_776e18f64), Loss::Impossible);
        assert_eq!(<i32 as CastFrom<_>>::loss(-3.0f32), Loss::None);
    }

    #[test]
    fn half_floats_report_lost_counts_but_not_rounded_fractions() {
        assert_eq!(<f16 as CastFrom<_>>::loss(2049u16), Loss::Rounded);
        assert_eq!(<f16 as CastFrom<_>>::loss(2048u16), Loss::None);
        assert_eq!(<bf16 as CastFrom<_>>::loss(257u16), Loss::Rounded);
        assert_eq!(<f16 as CastFrom<_>>::loss(0.1f32), Loss::None);
    }

    #[test]
    fn numbers_beyond_a_float_are_reported_whole_or_not() {
        assert_eq!(<f16 as CastFrom<_>>::loss(70_000.0f32), Loss::TooLarge);
        assert_eq!(<f16 as CastFrom<_>>::loss(70_000.5f32), Loss::TooLarge);
        assert_eq!(<f16 as CastFrom<_>>::loss(-70_000i32), Loss::TooLarge);
        assert_eq!(<f16 as CastFrom<_>>::loss(65_519.5f32), Loss::None);
        assert_eq!(<bf16 as CastFrom<_>>::loss(f32::MAX), Loss::TooLarge);
        assert_eq!(<f32 as CastFrom<_>>::loss(1e39f64), Loss::TooLarge);
        assert_eq!(<f32 as CastFrom<_>>::loss(-1e300f64), Loss::TooLarge);
        for odd in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
            assert_eq!(<f32 as CastFrom<_>>::loss(odd), Loss::None);
            assert_eq!(<f16 as CastFrom<_>>::loss(odd), Loss::None);
        }
    }

    #[test]
    fn what_is_too_large_is_told_before_what_is_rounded() {
        let mut lost = None;
        check::<f32, f16>((0..).zip([0.5, 2049.0, 1e5, 2e5, 2051.0]), &mut lost).unwrap();
        assert_eq!(lost, Some(Lost { column: 2, value: "100000".into(), what: What::TooLarge }));
    }
}
