//! Why a chunk could not be decoded.

/// Why a chunk could not be decoded; the caller adds file, dataset and chunk address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The zlib stream is damaged.
    #[error("deflate: {0}")]
    Deflate(String),
    /// The LZF stream is damaged.
    #[error("LZF: {0}")]
    Lzf(String),
    /// The LZ4 frame or one of its blocks is damaged.
    #[error("LZ4: {0}")]
    Lz4(String),
    /// The blocks of a bitshuffled chunk are not what they should be.
    #[error("bitshuffle: {0}")]
    Bitshuffle(String),
    /// The Blosc chunk is damaged, or of a kind that is not decoded here.
    #[error("Blosc: {0}")]
    Blosc(String),
    /// The Zstandard frame is damaged.
    #[error("zstd: {0}")]
    Zstd(String),
    /// A filter gave another number of bytes than expected.
    #[error("found {found} bytes; expected {expected}")]
    Length {
        /// Expected bytes.
        expected: usize,
        /// Bytes found.
        found: Found,
    },
    /// The Fletcher-32 sum of the data is not the stored one.
    #[error("fletcher32: found checksum {computed:#010x}; expected {stored:#010x}")]
    Checksum {
        /// The sum in the file.
        stored: u32,
        /// The sum of the bytes in the file.
        computed: u32,
    },
    /// The data ends within a fixed-size field.
    #[error("{filter}: found {found} bytes; expected {expected} or more")]
    TooShort {
        /// The filter that needs the field.
        filter: &'static str,
        /// Bytes of the field.
        expected: usize,
        /// Bytes left.
        found: usize,
    },
    /// No memory for an intermediate buffer.
    #[error("no memory for a buffer of {bytes} bytes")]
    OutOfMemory {
        /// Size of the buffer.
        bytes: usize,
    },
}

/// A length found; some decoders stop at the end of the buffer and know only that there is more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// This many bytes.
    Exactly(usize),
    /// More than this many bytes.
    MoreThan(usize),
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exactly(bytes) => write!(f, "{bytes}"),
            Self::MoreThan(bytes) => write!(f, "more than {bytes}"),
        }
    }
}

pub(super) fn check_length(expected: usize, found: usize) -> Result<(), DecodeError> {
    let found = Found::Exactly(found);
    if found == Found::Exactly(expected) { Ok(()) } else { Err(DecodeError::Length { expected, found }) }
}
