//! The numeric types that this crate decodes, and how to tell them from an HDF5 datatype.
//!
//! HDF5 spec IV.A.2.d (datatype message). Anything that is not exactly one of these is left to h5py.

use hdf5::Datatype;
use hdf5::datatype::ByteOrder;
use hdf5::types::{FloatSize, IntSize, TypeDescriptor};

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
    pub fn size(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// Whether this is an integer, and so can be an index.
    #[must_use]
    pub fn is_integer(self) -> bool {
        !matches!(self, Self::Bool | Self::F16 | Self::F32 | Self::F64)
    }

    /// The least and the greatest integer of an integer type.
    #[must_use]
    pub fn integer_range(self) -> Option<(i128, i128)> {
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
    pub fn name(self) -> &'static str {
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
    pub fn from_name(name: &str) -> Option<Self> {
        use Kind::{Bool, F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64};
        [Bool, U8, U16, U32, U64, I8, I16, I32, I64, F16, F32, F64].into_iter().find(|k| k.name() == name)
    }

    fn from_descriptor(descriptor: &TypeDescriptor) -> Option<Self> {
        Some(match descriptor {
            // h5py stores bool as an enum of int8 with members FALSE and TRUE.
            TypeDescriptor::Boolean => Self::Bool,
            TypeDescriptor::Unsigned(IntSize::U1) => Self::U8,
            TypeDescriptor::Unsigned(IntSize::U2) => Self::U16,
            TypeDescriptor::Unsigned(IntSize::U4) => Self::U32,
            TypeDescriptor::Unsigned(IntSize::U8) => Self::U64,
            TypeDescriptor::Integer(IntSize::U1) => Self::I8,
            TypeDescriptor::Integer(IntSize::U2) => Self::I16,
            TypeDescriptor::Integer(IntSize::U4) => Self::I32,
            TypeDescriptor::Integer(IntSize::U8) => Self::I64,
            TypeDescriptor::Float(FloatSize::U2) => Self::F16,
            TypeDescriptor::Float(FloatSize::U4) => Self::F32,
            TypeDescriptor::Float(FloatSize::U8) => Self::F64,
            _ => return None,
        })
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

impl NumType {
    /// A little-endian number of this kind.
    #[must_use]
    pub fn little(kind: Kind) -> Self {
        Self { kind, big_endian: false }
    }

    /// The type of a dataset.
    ///
    /// # Errors
    /// The reason why it is outside the closed world.
    pub fn from_hdf5(datatype: &Datatype) -> Result<Self, String> {
        let describe = |e: &dyn std::fmt::Display| format!("the type is not a plain number ({e})");
        let descriptor = datatype.to_descriptor().map_err(|e| describe(&e))?;
        let kind = Kind::from_descriptor(&descriptor)
            .ok_or_else(|| format!("the type is not a plain number ({descriptor})"))?;
        let big_endian = match datatype.byte_order() {
            _ if kind.size() == 1 => false,
            ByteOrder::LittleEndian => false,
            ByteOrder::BigEndian => true,
            other => return Err(format!("byte order {other:?}")),
        };
        // A descriptor drops precision, bit offset and exponent layout; only equality with the full type proves them.
        // (For big-endian types the wrapper offers nothing to compare with: the class, size and sign must do.)
        if !big_endian && kind != Kind::Bool {
            let plain = Datatype::from_descriptor(&descriptor).map_err(|e| describe(&e))?;
            if &plain != datatype {
                return Err(format!("the type is {} bytes wide but not a standard {}", kind.size(), kind.name()));
            }
        }
        Ok(Self { kind, big_endian })
    }
}

impl std::fmt::Display for NumType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.kind.name(), if self.big_endian { " (big-endian)" } else { "" })
    }
}
