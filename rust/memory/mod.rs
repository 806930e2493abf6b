//! Memory: recycled buffers for batches, and the question whether there is enough.
//!
//! Decoded rows are not here: `rows` holds them, and recycles their memory itself.

pub(crate) mod buffers;
pub(crate) mod reserve;
