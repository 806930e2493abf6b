//! Where the arrays of a matrix are in its file: plain data, made once when the file is opened.

use crate::dtype::NumType;
use crate::filters::Pipeline;

/// One stored chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Absolute byte address in the file.
    pub address: u64,
    /// Bytes on disk.
    pub size: u64,
    /// Bit i set: filter i of the pipeline was skipped.
    pub mask: u32,
}

/// A dataset cut into chunks of one shape.
#[derive(Clone, Debug)]
pub struct ChunkGrid {
    /// Elements of one chunk along each axis.
    pub chunk: Vec<u64>,
    /// Chunks along each axis.
    pub counts: Vec<u64>,
    /// Row-major over `counts`; `None` was never allocated and reads as the fill value.
    pub table: Vec<Option<Chunk>>,
    /// Filters as they were applied when writing.
    pub pipeline: Pipeline,
    /// Chunks that reach over the dataset's edge are stored without filters.
    pub plain_edges: bool,
}

/// How a dataset's elements are stored.
#[derive(Clone, Debug)]
pub enum Storage {
    /// One run of bytes from this absolute address.
    Contiguous(u64),
    /// Nothing was ever written: every element is the fill value.
    Unallocated,
    /// Chunks.
    Chunked(ChunkGrid),
}

/// A one- or two-dimensional dataset of plain numbers.
#[derive(Clone, Debug)]
pub struct ArrayLayout {
    /// Path inside the file, for error messages.
    pub name: String,
    /// Elements along each axis.
    pub shape: Vec<u64>,
    /// Type of an element.
    pub dtype: NumType,
    /// One element in the stored byte order, for what was never written.
    pub fill: Vec<u8>,
    /// Where the elements are.
    pub storage: Storage,
}

impl ArrayLayout {
    /// Number of elements.
    #[must_use]
    pub(crate) fn len(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements of one chunk along the first axis; the whole axis where there are no chunks.
    #[must_use]
    pub(crate) fn chunk_rows(&self) -> u64 {
        match &self.storage {
            Storage::Chunked(grid) => grid.chunk[0],
            _ => self.shape[0].max(1),
        }
    }

    /// Whether reading part of a chunk means decoding all of it.
    #[must_use]
    pub(crate) fn is_filtered(&self) -> bool {
        matches!(&self.storage, Storage::Chunked(grid) if !grid.pipeline.is_empty())
    }
}

/// The three arrays of a compressed sparse matrix.
#[derive(Clone, Debug)]
pub struct SparseLayout {
    /// Rows and columns.
    pub shape: [u64; 2],
    /// Values.
    pub data: ArrayLayout,
    /// Column of each value (CSR) or row (CSC).
    pub indices: ArrayLayout,
    /// Where each row (CSR) or column (CSC) begins.
    pub indptr: ArrayLayout,
}

impl SparseLayout {
    /// Whether reading part of a chunk means decoding all of it.
    #[must_use]
    pub(crate) fn is_filtered(&self) -> bool {
        self.indices.is_filtered() || self.data.is_filtered()
    }
}

/// A matrix that this crate can read.
#[derive(Clone, Debug)]
pub enum MatrixLayout {
    /// Compressed rows.
    Csr(SparseLayout),
    /// Compressed columns.
    Csc(SparseLayout),
    /// A 2-D array.
    Dense(ArrayLayout),
}

impl MatrixLayout {
    /// Rows and columns.
    #[must_use]
    pub(crate) fn shape(&self) -> [u64; 2] {
        match self {
            Self::Csr(s) | Self::Csc(s) => s.shape,
            Self::Dense(a) => [a.shape[0], a.shape[1]],
        }
    }

    /// The array of the values.
    #[must_use]
    pub(crate) fn values(&self) -> &ArrayLayout {
        match self {
            Self::Csr(s) | Self::Csc(s) => &s.data,
            Self::Dense(a) => a,
        }
    }

    /// `csr`, `csc` or `dense`.
    #[must_use]
    pub(crate) fn format(&self) -> &'static str {
        match self {
            Self::Csr(_) => "csr",
            Self::Csc(_) => "csc",
            Self::Dense(_) => "dense",
        }
    }
}
