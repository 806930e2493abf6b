//! The numeric types that this crate decodes. Anything that is not exactly one of these is left to h5py.

/// What one stored number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    Bool,
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
    F16,
    F32,
    F64,
}

impl Kind {
    /// Bytes of one number.
    #[must_use]
    pub(crate) fn size(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// Whether this is an integer, and so can be an index.
    #[must_use]
    pub(crate) fn is_integer(self) -> bool {
        !matches!(self, Self::Bool | Self::F16 | Self::F32 | Self::F64)
    }

    /// The least and the greatest integer of an integer type.
    #[must_use]
    pub(crate) fn integer_range(self) -> Option<(i128, i128)> {
        Some(match self {
            Self::U8 => (0, u8::MAX.into()),
            Self::U16 => (0, u16::MAX.into()),
            Self::U32 => (0, u32::MAX.into()),
            Self::U64 => (0, u64::MAX.into()),
            Self::I8 => (i8::MIN.into(), i8::MAX.into()),
            Self::I16 => (i16::MIN.into(), i16::MAX.into()),
            Self::I32 => (i32::MIN.into(), i32::MAX.into()),
            Self::I64 => (i64::MIN.into(), i64::MAX.into()),
            Self::Bool | Self::F16 | Self::F32 | Self::F64 => return None,
        })
    }

    /// The name numpy gives it.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::U8 => "uint8",
            Self::U16 => "uint16",
            Self::U32 => "uint32",
            Self::U64 => "uint64",
            Self::I8 => "int8",
            Self::I16 => "int16",
            Self::I32 => "int32",
            Self::I64 => "int64",
            Self::F16 => "float16",
            Self::F32 => "float32",
            Self::F64 => "float64",
        }
    }

    /// The kind of that numpy name.
    #[must_use]
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        use Kind::{Bool, F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64};
        [Bool, U8, U16, U32, U64, I8, I16, I32, I64, F16, F32, F64].into_iter().find(|k| k.name() == name)
    }
}

/// A stored number's kind and byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NumType {
    /// What it is.
    pub kind: Kind,
    /// Whether its most significant byte comes first.
    pub big_endian: bool,
}

impl NumType {}

impl std::fmt::Display for NumType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.kind.name(), if self.big_endian { " (big-endian)" } else { "" })
    }
}
