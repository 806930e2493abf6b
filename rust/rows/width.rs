//! Promotion orders: the narrower types that are tried for each stored type, and exact conversions to them.

use half::f16;

/// A type that [`Values`] can have, in promotion order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Width {
    U8,
    U16,
    I32,
    I64,
    U64,
    F32,
    F64,
}

/// A stored type: how to read one, and into which narrower types it may go. Each `to_*` gives a number and whether it is exact.
pub(super) trait Source: Copy {
    const SIZE: usize;
    const WIDTHS: &'static [Width];
    fn read(bytes: &[u8]) -> Self;
    fn to_u8(self) -> (u8, bool) {
        (0, false)
    }
    fn to_u16(self) -> (u16, bool) {
        (0, false)
    }
    fn to_i32(self) -> (i32, bool) {
        (0, false)
    }
    fn to_i64(self) -> (i64, bool) {
        (0, false)
    }
    fn to_u64(self) -> (u64, bool) {
        (0, false)
    }
    fn to_f32(self) -> (f32, bool) {
        (0.0, false)
    }
    fn to_f64(self) -> (f64, bool) {
        (0.0, false)
    }
}

macro_rules! read_le {
    ($t:ty) => {
        const SIZE: usize = size_of::<$t>();
        #[inline]
        fn read(bytes: &[u8]) -> Self {
            let mut raw = [0; size_of::<$t>()];
            raw.copy_from_slice(bytes);
            Self::from_le_bytes(raw)
        }
    };
}

macro_rules! integer_source {
    ($t:ty, [$($width:ident),*]) => {
        #[allow(clippy::unnecessary_cast)]
        impl Source for $t {
            read_le!($t);
            const WIDTHS: &'static [Width] = &[$(Width::$width),*];
            #[inline]
            fn to_u8(self) -> (u8, bool) {
                (self as u8, (self as u8) as i128 == self as i128)
            }
            #[inline]
            fn to_u16(self) -> (u16, bool) {
                (self as u16, (self as u16) as i128 == self as i128)
            }
            #[inline]
            fn to_i32(self) -> (i32, bool) {
                (self as i32, (self as i32) as i128 == self as i128)
            }
            #[inline]
            fn to_i64(self) -> (i64, bool) {
                (self as i64, (self as i64) as i128 == self as i128)
            }
            #[inline]
            fn to_u64(self) -> (u64, bool) {
                (self as u64, (self as u64) as i128 == self as i128)
            }
        }
    };
}
integer_source!(u8, [U8]);
integer_source!(u16, [U8, U16]);
integer_source!(u32, [U8, U16, I32, I64]);
integer_source!(u64, [U8, U16, I32, I64, U64]);
integer_source!(i8, [U8, I32]);
integer_source!(i16, [U8, U16, I32]);
integer_source!(i32, [U8, U16, I32]);
integer_source!(i64, [U8, U16, I32, I64]);

/// 2²³: adding it to a float32 in 0..2²³ leaves the integer part in the low mantissa bits (IEEE 754, round to nearest).
const MAGIC: f32 = 8_388_608.0;

/// The integer in a float32 from 0 to `max`, and whether it is exactly that. −0.0 and NaN are not, bit for bit.
#[inline]
fn small_integer(x: f32, max: u32) -> (u32, bool) {
    let shifted = x + MAGIC;
    // Huge where x is negative, as the sum then has a smaller exponent.
    let integer = shifted.to_bits().wrapping_sub(MAGIC.to_bits());
    (integer, (shifted - MAGIC).to_bits() == x.to_bits() && integer <= max)
}

impl Source for f32 {
    read_le!(f32);
    const WIDTHS: &'static [Width] = &[Width::U8, Width::U16, Width::F32];
    #[inline]
    fn to_u8(self) -> (u8, bool) {
        let (n, exact) = small_integer(self, 255);
        (n as u8, exact)
    }
    #[inline]
    fn to_u16(self) -> (u16, bool) {
        let (n, exact) = small_integer(self, 65_535);
        (n as u16, exact)
    }
    #[inline]
    fn to_f32(self) -> (f32, bool) {
        (self, true)
    }
}

impl Source for f16 {
    read_le!(f16);
    const WIDTHS: &'static [Width] = &[Width::U8, Width::U16, Width::F32];
    fn to_u8(self) -> (u8, bool) {
        Source::to_u8(self.to_f32_exact())
    }
    fn to_u16(self) -> (u16, bool) {
        Source::to_u16(self.to_f32_exact())
    }
    fn to_f32(self) -> (f32, bool) {
        (self.to_f32_exact(), true)
    }
}

trait Widen {
    fn to_f32_exact(self) -> f32;
}
impl Widen for f16 {
    fn to_f32_exact(self) -> f32 {
        f16::to_f32(self)
    }
}

impl Source for f64 {
    read_le!(f64);
    const WIDTHS: &'static [Width] = &[Width::U8, Width::U16, Width::F32, Width::F64];
    #[inline]
    fn to_u8(self) -> (u8, bool) {
        let (n, exact) = small_integer(self as f32, 255);
        (n as u8, exact && f64::from(self as f32).to_bits() == self.to_bits())
    }
    #[inline]
    fn to_u16(self) -> (u16, bool) {
        let (n, exact) = small_integer(self as f32, 65_535);
        (n as u16, exact && f64::from(self as f32).to_bits() == self.to_bits())
    }
    #[inline]
    fn to_f32(self) -> (f32, bool) {
        (self as f32, f64::from(self as f32).to_bits() == self.to_bits())
    }
    #[inline]
    fn to_f64(self) -> (f64, bool) {
        (self, true)
    }
}
