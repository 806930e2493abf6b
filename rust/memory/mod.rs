//! Memory: recycled buffers for batches, and a check that a large allocation is possible.
//!
//! Decoded rows are in `rows`, which recycles their memory itself.

pub(crate) mod buffers;
pub(crate) mod reserve;
