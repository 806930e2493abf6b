//! Column indices, two bytes each where the matrix has at most 65,536 columns.

use std::ops::Range;

use super::compact::joined;
use crate::dtype::Kind;

/// Column of each stored value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Columns {
    /// At most 65,536 columns.
    U16(Vec<u16>),
    /// More.
    U32(Vec<u32>),
}

/// Runs `$body` with `$c` bound to the inner vector, whatever its type.
macro_rules! with_columns {
    ($columns:expr, $c:ident => $body:expr) => {
        match $columns {
            $crate::rows::Columns::U16($c) => $body,
            $crate::rows::Columns::U32($c) => $body,
        }
    };
}
pub(crate) use with_columns;

impl Columns {
    /// No indices yet, for a matrix of `n_cols` columns.
    #[must_use]
    pub(crate) fn with_capacity(n_cols: u64, capacity: usize) -> Self {
        if n_cols <= 1 << 16 {
            Self::U16(Vec::with_capacity(capacity))
        } else {
            Self::U32(Vec::with_capacity(capacity))
        }
    }

    /// How many indices.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        with_columns!(self, c => c.len())
    }

    /// Bytes of memory held.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::U16(c) => c.capacity() * 2,
            Self::U32(c) => c.capacity() * 4,
        }
    }

    /// Indices that there is room for.
    #[must_use]
    pub(crate) fn capacity(&self) -> usize {
        with_columns!(self, c => c.capacity())
    }

    /// Forgets all indices.
    pub(crate) fn clear(&mut self) {
        with_columns!(self, c => c.clear());
    }

    /// Gives back memory that is not used.
    pub(crate) fn shrink(&mut self) {
        with_columns!(self, c => c.shrink_to_fit());
    }

    /// The indices in `ranges`, one range after the other.
    #[must_use]
    pub(super) fn at(&self, ranges: &[Range<usize>]) -> Self {
        match self {
            Self::U16(c) => Self::U16(joined(c, ranges)),
            Self::U32(c) => Self::U32(joined(c, ranges)),
        }
    }

    /// The index at `i`.
    #[must_use]
    pub(crate) fn get(&self, i: usize) -> u32 {
        match self {
            Self::U16(c) => u32::from(c[i]),
            Self::U32(c) => c[i],
        }
    }

    /// Appends one index that is known to be in range.
    pub(crate) fn push(&mut self, column: u32) {
        match self {
            Self::U16(c) => c.push(column as u16),
            Self::U32(c) => c.push(column),
        }
    }

    /// Appends little-endian indices of an integer `kind`, all of which must lie below `n_cols`.
    ///
    /// # Errors
    /// The offset within `bytes` (in elements) and the value of the first index that is not below it.
    pub(crate) fn append(&mut self, kind: Kind, bytes: &[u8], n_cols: u64) -> Result<(), (usize, i128)> {
        match kind {
            // The usual case, in 32 bits throughout so that it runs on vectors; a negative index is above any n_cols here.
            Kind::I32 | Kind::U32 if n_cols <= 1 << 31 => self.append_u32(bytes, n_cols as u32),
            Kind::Bool | Kind::U8 => self.append_as(bytes, n_cols, |b: [u8; 1]| u64::from(b[0])),
            Kind::U16 => self.append_as(bytes, n_cols, |b| u64::from(u16::from_le_bytes(b))),
            Kind::U32 => self.append_as(bytes, n_cols, |b| u64::from(u32::from_le_bytes(b))),
            Kind::U64 | Kind::F64 => self.append_as(bytes, n_cols, u64::from_le_bytes),
            // Sign extension makes a negative index huge, so that one comparison refuses both ends.
            Kind::I8 => self.append_as(bytes, n_cols, |b| i64::from(i8::from_le_bytes(b)) as u64),
            Kind::I16 | Kind::F16 => self.append_as(bytes, n_cols, |b| i64::from(i16::from_le_bytes(b)) as u64),
            Kind::I32 | Kind::F32 => self.append_as(bytes, n_cols, |b| i64::from(i32::from_le_bytes(b)) as u64),
            Kind::I64 => self.append_as(bytes, n_cols, |b| i64::from_le_bytes(b) as u64),
        }
    }

    fn append_u32(&mut self, bytes: &[u8], n_cols: u32) -> Result<(), (usize, i128)> {
        let (values, _) = bytes.as_chunks::<4>();
        let largest = values.iter().fold(0, |largest, raw| u32::from_le_bytes(*raw).max(largest));
        if !values.is_empty() && largest >= n_cols {
            return self.append_as(bytes, u64::from(n_cols), |b| i64::from(i32::from_le_bytes(b)) as u64);
        }
        match self {
            Self::U16(c) => c.extend(values.iter().map(|raw| u32::from_le_bytes(*raw) as u16)),
            Self::U32(c) => c.extend(values.iter().map(|raw| u32::from_le_bytes(*raw))),
        }
        Ok(())
    }

    fn append_as<const N: usize>(
        &mut self,
        bytes: &[u8],
        n_cols: u64,
        read: impl Fn([u8; N]) -> u64 + Copy,
    ) -> Result<(), (usize, i128)> {
        let (values, _) = bytes.as_chunks::<N>();
        let mut largest = 0;
        let start = self.len();
        let mut see = |raw: &[u8; N]| {
            let value = read(*raw);
            largest = largest.max(value);
            value
        };
        match self {
            Self::U16(c) => c.extend(values.iter().map(|raw| see(raw) as u16)),
            Self::U32(c) => c.extend(values.iter().map(|raw| see(raw) as u32)),
        }
        if values.is_empty() || largest < n_cols {
            return Ok(());
        }
        with_columns!(self, c => c.truncate(start));
        let at = values.iter().position(|raw| read(*raw) >= n_cols).unwrap_or(0);
        Err((at, i128::from(read(values[at]) as i64)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn width_follows_the_number_of_columns() {
        assert!(matches!(Columns::with_capacity(65_536, 0), Columns::U16(_)));
        assert!(matches!(Columns::with_capacity(65_537, 0), Columns::U32(_)));
    }

    #[test]
    fn every_kind_reads_the_same_numbers() {
        for kind in [Kind::U8, Kind::I8, Kind::U16, Kind::I16, Kind::U32, Kind::I32, Kind::U64, Kind::I64] {
            let bytes: Vec<u8> = [3u64, 0, 99].iter().flat_map(|v| v.to_le_bytes()[..kind.size()].to_vec()).collect();
            let mut columns = Columns::with_capacity(100, 0);
            columns.append(kind, &bytes, 100).unwrap();
            assert_eq!(columns, Columns::U16(vec![3, 0, 99]), "{kind:?}");
            assert_eq!(columns.append(kind, &bytes, 99), Err((2, 99)), "{kind:?}");
            assert_eq!(columns.len(), 3, "a refused piece leaves nothing behind");
        }
    }

    #[test]
    fn negative_indices_are_refused() {
        let mut columns = Columns::with_capacity(1 << 20, 0);
        assert_eq!(columns.append(Kind::I32, &(-1i32).to_le_bytes(), 1 << 20), Err((0, -1)));
        assert_eq!(columns.append(Kind::I64, &(-7i64).to_le_bytes(), 1 << 20), Err((0, -7)));
    }
}
