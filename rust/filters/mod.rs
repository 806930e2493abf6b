//! The HDF5 filter pipeline: stored chunk bytes in, the chunk's raw bytes out; and, to write a file again, forwards.
//!
//! Pure functions over bytes, one file a filter; no files, no threads. The closed world is [`Filter`]; any other filter
//! is an [`UnknownFilter`], and its dataset goes to h5py.
//!
//! Chunk bytes are hostile until proven otherwise: a decoder gives an error or exactly the chunk, and holds at most a
//! few times the chunk's length.

mod bitshuffle;
mod blosc;
mod deflate;
mod encoder;
mod error;
mod fletcher32;
#[allow(clippy::inline_always, reason = "compiled for the processor of the function that it is inlined into")]
mod inflate;
mod lz4;
mod lzf;
mod pipeline;
mod shuffle;
#[cfg(test)]
mod tests;
mod zstd;

pub use bitshuffle::{Bitshuffle, BlockCodec};
pub(crate) use encoder::Encoder;
pub(crate) use error::{DecodeError, Found};
pub(crate) use inflate::is_in_pairs as inflates_in_pairs;
pub use pipeline::{Decoder, Front, Pipeline};

/// One stage of a dataset's filter pipeline that this crate can undo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// zlib, HDF5 filter 1 (`compression="gzip"`).
    Deflate,
    /// Byte shuffle, HDF5 filter 2.
    Shuffle {
        /// Bytes of one element.
        element_size: usize,
    },
    /// Checksum, HDF5 filter 3.
    Fletcher32,
    /// LZF, HDF5 filter 32000 (`compression="lzf"`).
    Lzf,
    /// LZ4 with the framing of the HDF5 plugin, HDF5 filter 32004.
    Lz4,
    /// Bits shuffled, and compressed or not, HDF5 filter 32008.
    Bitshuffle(Bitshuffle),
    /// Blosc 1, HDF5 filter 32001.
    Blosc,
    /// Zstandard, HDF5 filter 32015.
    Zstd,
}

/// A filter outside the closed world; its text names the filter for the message about the fall-back to h5py.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("HDF5 filter {id} ({}) is not among those decoded here", self.name())]
pub(crate) struct UnknownFilter {
    /// The registered HDF5 filter id.
    pub(crate) id: i32,
}

impl UnknownFilter {
    /// The name under which the id is registered with the HDF Group.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        name_of(self.id)
    }
}

/// The name of a filter, for people; ids are registered with the HDF Group.
#[must_use]
pub(crate) fn name_of(id: i32) -> &'static str {
    match id {
        1 => "gzip",
        2 => "shuffle",
        3 => "fletcher32",
        4 => "szip",
        5 => "nbit",
        6 => "scaleoffset",
        307 => "bzip2",
        32000 => "lzf",
        32001 => "Blosc",
        32004 => "lz4",
        32008 => "bitshuffle",
        32013 => "ZFP",
        32015 => "zstd",
        32017 => "SZ",
        32024 => "SZ3",
        32026 => "Blosc2",
        32028 => "SPERR",
        _ => "unknown name",
    }
}
