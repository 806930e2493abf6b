//! What writes a file again needs of the core: arrays decoded as they are stored, chunks compressed, digests of
//! rows, items put into another order.
//!
//! Which arrays, in which order and into which file is Python's part (`annfeed.rewriting`); this room writes no file.

pub(crate) mod array;
pub(crate) mod chunks;
pub(crate) mod digest;
pub(crate) mod sorting;
