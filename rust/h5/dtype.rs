//! Which number an HDF5 datatype is (HDF5 spec IV.A.2.d, datatype message).

use hdf5::Datatype;
use hdf5::datatype::ByteOrder;
use hdf5::types::{FloatSize, IntSize, TypeDescriptor};

use crate::dtype::{Kind, NumType};

/// The type of a dataset.
///
/// # Errors
/// The reason why this crate does not read it.
pub(super) fn number_type(datatype: &Datatype) -> Result<NumType, String> {
    let describe = |e: &dyn std::fmt::Display| format!("the type is not a plain number ({e})");
    let descriptor = datatype.to_descriptor().map_err(|e| describe(&e))?;
    let kind = kind_of(&descriptor).ok_or_else(|| format!("the type is not a plain number ({descriptor})"))?;
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
    Ok(NumType { kind, big_endian })
}

fn kind_of(descriptor: &TypeDescriptor) -> Option<Kind> {
    Some(match descriptor {
        // h5py stores bool as an enum of int8 with members FALSE and TRUE.
        TypeDescriptor::Boolean => Kind::Bool,
        TypeDescriptor::Unsigned(IntSize::U1) => Kind::U8,
        TypeDescriptor::Unsigned(IntSize::U2) => Kind::U16,
        TypeDescriptor::Unsigned(IntSize::U4) => Kind::U32,
        TypeDescriptor::Unsigned(IntSize::U8) => Kind::U64,
        TypeDescriptor::Integer(IntSize::U1) => Kind::I8,
        TypeDescriptor::Integer(IntSize::U2) => Kind::I16,
        TypeDescriptor::Integer(IntSize::U4) => Kind::I32,
        TypeDescriptor::Integer(IntSize::U8) => Kind::I64,
        TypeDescriptor::Float(FloatSize::U2) => Kind::F16,
        TypeDescriptor::Float(FloatSize::U4) => Kind::F32,
        TypeDescriptor::Float(FloatSize::U8) => Kind::F64,
        _ => return None,
    })
}
