//! Stored numbers, kept as narrow as they fit without losing a bit.
//!
//! Counts written as float32 fit in one byte, a quarter of the memory. A value that does not fit widens the whole vector
//! to the next type of its promotion order.

use std::ops::Range;

use half::f16;

use super::compact::joined;
use super::width::{Source, Width};
use crate::dtype::Kind;

/// Numbers of one type, in the narrowest type that holds them all exactly.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Values {
    U8(Vec<u8>),
    U16(Vec<u16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    U64(Vec<u64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
}

/// Runs `$body` with `$v` bound to the inner vector, whatever its type.
macro_rules! with_values {
    ($values:expr, $v:ident => $body:expr) => {
        match $values {
            $crate::rows::Values::U8($v) => $body,
            $crate::rows::Values::U16($v) => $body,
            $crate::rows::Values::I32($v) => $body,
            $crate::rows::Values::I64($v) => $body,
            $crate::rows::Values::U64($v) => $body,
            $crate::rows::Values::F32($v) => $body,
            $crate::rows::Values::F64($v) => $body,
        }
    };
}
pub(crate) use with_values;

impl Values {
    /// No numbers, with room for `capacity` of one byte.
    #[must_use]
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self::U8(Vec::with_capacity(capacity))
    }

    /// How many numbers.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        with_values!(self, v => v.len())
    }

    /// Whether there are none.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether they are whole numbers of 16 bits, none of them 0: quick to find while they are still in the processor's cache.
    #[must_use]
    pub(super) fn are_positive_counts(&self) -> bool {
        match self {
            Self::U8(v) => v.iter().fold(u8::MAX, |least, x| least.min(*x)) > 0,
            Self::U16(v) => v.iter().fold(u16::MAX, |least, x| least.min(*x)) > 0,
            _ => false,
        }
    }

    /// Bytes of memory held.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        with_values!(self, v => v.capacity() * element_size(v))
    }

    /// Numbers that there is room for.
    #[must_use]
    pub(crate) fn capacity(&self) -> usize {
        with_values!(self, v => v.capacity())
    }

    /// Removes all numbers; the next are at least as wide.
    pub(crate) fn clear(&mut self) {
        with_values!(self, v => v.clear());
    }

    /// Gives back memory that is not used.
    pub(crate) fn shrink(&mut self) {
        with_values!(self, v => v.shrink_to_fit());
    }

    /// Keeps only the numbers at `keep` (positions, any order).
    #[must_use]
    pub(crate) fn gather(&self, keep: &[usize]) -> Self {
        fn pick<T: Copy>(v: &[T], keep: &[usize]) -> Vec<T> {
            keep.iter().map(|&i| v[i]).collect()
        }
        match self {
            Self::U8(v) => Self::U8(pick(v, keep)),
            Self::U16(v) => Self::U16(pick(v, keep)),
            Self::I32(v) => Self::I32(pick(v, keep)),
            Self::I64(v) => Self::I64(pick(v, keep)),
            Self::U64(v) => Self::U64(pick(v, keep)),
            Self::F32(v) => Self::F32(pick(v, keep)),
            Self::F64(v) => Self::F64(pick(v, keep)),
        }
    }

    /// The numbers in `ranges`, one range after the other.
    #[must_use]
    pub(super) fn at(&self, ranges: &[Range<usize>]) -> Self {
        match self {
            Self::U8(v) => Self::U8(joined(v, ranges)),
            Self::U16(v) => Self::U16(joined(v, ranges)),
            Self::I32(v) => Self::I32(joined(v, ranges)),
            Self::I64(v) => Self::I64(joined(v, ranges)),
            Self::U64(v) => Self::U64(joined(v, ranges)),
            Self::F32(v) => Self::F32(joined(v, ranges)),
            Self::F64(v) => Self::F64(joined(v, ranges)),
        }
    }

    /// The numbers of all `pieces` (of one kind), the n-th of them at `places[n]`; the places are a permutation.
    #[must_use]
    pub(crate) fn scatter<'a>(pieces: impl Iterator<Item = &'a Self> + Clone, places: &[usize]) -> Self {
        let widest = pieces.clone().map(Self::width).max().unwrap_or(Width::U8);
        let mut out = Self::U8(vec![0; places.len()]).into_width(widest);
        let mut from = 0;
        for piece in pieces {
            let places = &places[from..from + piece.len()];
            from += piece.len();
            macro_rules! place {
                ($($width:ident),*) => {
                    match (&mut out, piece.clone().into_width(widest)) {
                        $((Self::$width(out), Self::$width(v)) => places.iter().zip(v).for_each(|(&at, x)| out[at] = x),)*
                        _ => {}
                    }
                };
            }
            place!(U8, U16, I32, I64, U64, F32, F64);
        }
        out
    }

    /// The sums of runs of numbers that were stored as `kind`: where `first` is set, a new run begins.
    ///
    /// # Errors
    /// The run and its sum, where an integer `kind` does not hold it.
    #[allow(clippy::unnecessary_cast)] // of one of the types each
    pub(super) fn sum_groups(&self, first: &[bool], kind: Kind) -> Result<Self, (usize, i128)> {
        fn fold<S: Copy>(values: impl Iterator<Item = S>, first: &[bool], add: impl Fn(S, S) -> S) -> Vec<S> {
            let mut out: Vec<S> = Vec::new();
            for (x, &opens) in values.zip(first) {
                match out.last_mut() {
                    Some(last) if !opens => *last = add(*last, x),
                    _ => out.push(x),
                }
            }
            out
        }
        let Some((low, high)) = kind.integer_range() else {
            return Ok(match kind {
                Kind::F64 => with_values!(self, v => Self::F64(fold(v.iter().map(|&x| x as f64), first, |a, b| a + b))),
                Kind::Bool => {
                    with_values!(self, v => Self::U8(fold(v.iter().map(|&x| x as u8), first, |a, b| a | b)))
                }
                _ => with_values!(self, v => Self::F32(fold(v.iter().map(|&x| x as f32), first, |a, b| a + b))),
            });
        };
        let sums = with_values!(self, v => fold(v.iter().map(|&x| x as i128), first, |a, b| a + b));
        if let Some(run) = sums.iter().position(|&sum| sum < low || sum > high) {
            return Err((run, sums[run]));
        }
        Ok(if kind == Kind::U64 {
            Self::U64(sums.into_iter().map(|sum| sum as u64).collect())
        } else {
            Self::I64(sums.into_iter().map(|sum| sum as i64).collect())
        })
    }

    /// Appends little-endian numbers of `kind`. All calls on one vector must name the same kind.
    pub(crate) fn append(&mut self, kind: Kind, bytes: &[u8]) {
        match kind {
            Kind::Bool | Kind::U8 => self.append_as::<u8>(bytes),
            Kind::U16 => self.append_as::<u16>(bytes),
            Kind::U32 => self.append_as::<u32>(bytes),
            Kind::U64 => self.append_as::<u64>(bytes),
            Kind::I8 => self.append_as::<i8>(bytes),
            Kind::I16 => self.append_as::<i16>(bytes),
            Kind::I32 => self.append_as::<i32>(bytes),
            Kind::I64 => self.append_as::<i64>(bytes),
            Kind::F16 => self.append_as::<f16>(bytes),
            Kind::F32 => self.append_as::<f32>(bytes),
            Kind::F64 => self.append_as::<f64>(bytes),
        }
    }

    fn append_as<S: Source>(&mut self, bytes: &[u8]) {
        // Try a few values first: most types that are too narrow, for example for fractions, fail there.
        let probe = if self.is_empty() { bytes.len().min(PROBE * S::SIZE) } else { 0 };
        let (sample, rest) = bytes.split_at(probe);
        while !self.try_append::<S>(sample) {
            self.widen(S::WIDTHS);
        }
        while !self.try_append::<S>(rest) {
            self.widen(S::WIDTHS);
        }
    }

    /// Appends all of `bytes`, or nothing if a value does not fit.
    fn try_append<S: Source>(&mut self, bytes: &[u8]) -> bool {
        match self {
            Self::U8(v) => extend(v, bytes, S::to_u8),
            Self::U16(v) => extend(v, bytes, S::to_u16),
            Self::I32(v) => extend(v, bytes, S::to_i32),
            Self::I64(v) => extend(v, bytes, S::to_i64),
            Self::U64(v) => extend(v, bytes, S::to_u64),
            Self::F32(v) => extend(v, bytes, S::to_f32),
            Self::F64(v) => extend(v, bytes, S::to_f64),
        }
    }

    /// Numbers of `kind` as they are, `len` of them, filled by `read` with their little-endian bytes.
    ///
    /// No narrower type is looked for. `None` for kinds that have no vector of their own.
    ///
    /// # Errors
    /// What `read` gives.
    pub(crate) fn filled_by<E>(
        kind: Kind,
        len: usize,
        read: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Option<Result<Self, E>> {
        fn fill<T: bytemuck::Pod, E>(len: usize, read: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<Vec<T>, E> {
            let mut values = vec![T::zeroed(); len];
            read(bytemuck::cast_slice_mut(&mut values))?;
            Ok(values)
        }
        if cfg!(target_endian = "big") {
            return None;
        }
        Some(match kind {
            Kind::U8 => fill(len, read).map(Self::U8),
            Kind::U16 => fill(len, read).map(Self::U16),
            Kind::I32 => fill(len, read).map(Self::I32),
            Kind::I64 => fill(len, read).map(Self::I64),
            Kind::U64 => fill(len, read).map(Self::U64),
            Kind::F32 => fill(len, read).map(Self::F32),
            Kind::F64 => fill(len, read).map(Self::F64),
            _ => return None,
        })
    }

    /// To the next width. The last one of a promotion order holds every number of its source.
    fn widen(&mut self, widths: &[Width]) {
        let at = widths.iter().position(|r| *r == self.width());
        let next = widths[at.map_or(0, |i| (i + 1).min(widths.len() - 1))];
        let old = std::mem::replace(self, Self::U8(Vec::new()));
        *self = old.into_width(next);
    }

    fn width(&self) -> Width {
        match self {
            Self::U8(_) => Width::U8,
            Self::U16(_) => Width::U16,
            Self::I32(_) => Width::I32,
            Self::I64(_) => Width::I64,
            Self::U64(_) => Width::U64,
            Self::F32(_) => Width::F32,
            Self::F64(_) => Width::F64,
        }
    }

    /// Exact on every step of a promotion order.
    fn into_width(self, width: Width) -> Self {
        macro_rules! convert {
            ($to:ident, $t:ty) => {
                Self::$to(with_values!(self, v => {
                    let mut out: Vec<$t> = Vec::with_capacity(v.capacity());
                    out.extend(v.iter().map(|&x| x as $t));
                    out
                }))
            };
        }
        match width {
            Width::U8 => convert!(U8, u8),
            Width::U16 => convert!(U16, u16),
            Width::I32 => convert!(I32, i32),
            Width::I64 => convert!(I64, i64),
            Width::U64 => convert!(U64, u64),
            Width::F32 => convert!(F32, f32),
            Width::F64 => convert!(F64, f64),
        }
    }
}

/// Values that are tried before a whole piece.
const PROBE: usize = 64;

fn element_size<T>(_: &[T]) -> usize {
    size_of::<T>()
}

fn extend<S: Source, T>(out: &mut Vec<T>, bytes: &[u8], convert: impl Fn(S) -> (T, bool)) -> bool {
    let start = out.len();
    let mut exact = true;
    out.extend(bytes.chunks_exact(S::SIZE).map(|b| {
        let (value, fits) = convert(S::read(b));
        exact &= fits;
        value
    }));
    if !exact {
        out.truncate(start);
    }
    exact
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes<T: Copy, const N: usize>(values: &[T], to: fn(T) -> [u8; N]) -> Vec<u8> {
        values.iter().flat_map(|&v| to(v)).collect()
    }

    #[allow(clippy::unnecessary_cast)]
    fn as_f64(values: &Values) -> Vec<f64> {
        with_values!(values, v => v.iter().map(|&x| x as f64).collect())
    }

    #[test]
    fn float_counts_take_one_byte_until_one_does_not_fit() {
        let mut values = Values::with_capacity(0);
        values.append(Kind::F32, &bytes(&[0.0f32, 1.0, 255.0], f32::to_le_bytes));
        assert_eq!(values, Values::U8(vec![0, 1, 255]));
        values.append(Kind::F32, &bytes(&[256.0f32], f32::to_le_bytes));
        assert_eq!(values, Values::U16(vec![0, 1, 255, 256]));
        values.append(Kind::F32, &bytes(&[0.5f32], f32::to_le_bytes));
        assert_eq!(values, Values::F32(vec![0.0, 1.0, 255.0, 256.0, 0.5]));
    }

    #[test]
    fn the_sign_of_zero_and_nan_survive() {
        for odd in [-0.0f32, f32::NAN, f32::INFINITY, -1.0, 65_536.0, 8_388_609.0, 16_777_216.0] {
            let mut values = Values::with_capacity(0);
            values.append(Kind::F32, &odd.to_le_bytes());
            let Values::F32(kept) = &values else { panic!("{odd} became {values:?}") };
            assert_eq!(kept[0].to_bits(), odd.to_bits());
        }
    }

    macro_rules! lossless {
        ($name:ident, $t:ty, $kind:ident) => {
            proptest! {
                #[test]
                fn $name(pieces in proptest::collection::vec(
                    proptest::collection::vec(prop_oneof![any::<$t>(), (0u8..3).prop_map(|x| x as $t)], 0..20), 0..4)) {
                    let mut values = Values::with_capacity(0);
                    for piece in &pieces {
                        values.append(Kind::$kind, &bytes(piece, <$t>::to_le_bytes));
                    }
                    let wanted: Vec<i128> = pieces.concat().iter().map(|&x| x as i128).collect();
                    let got: Vec<i128> = with_values!(&values, v => v.iter().map(|&x| x as i128).collect());
                    prop_assert_eq!(got, wanted);
                }
            }
        };
    }
    lossless!(u16_is_lossless, u16, U16);
    lossless!(u32_is_lossless, u32, U32);
    lossless!(u64_is_lossless, u64, U64);
    lossless!(i8_is_lossless, i8, I8);
    lossless!(i16_is_lossless, i16, I16);
    lossless!(i32_is_lossless, i32, I32);
    lossless!(i64_is_lossless, i64, I64);

    proptest! {
        #[test]
        fn floats_are_lossless(whole in proptest::collection::vec(0u32..70_000, 0..9), any in proptest::collection::vec(any::<f64>(), 0..4)) {
            let all: Vec<f64> = whole.iter().map(|&x| f64::from(x)).chain(any).collect();
            let mut values = Values::with_capacity(0);
            for &x in &all {
                values.append(Kind::F64, &x.to_le_bytes());
            }
            let got: Vec<u64> = as_f64(&values).iter().map(|x| x.to_bits()).collect();
            prop_assert_eq!(got, all.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
        }
    }
}
