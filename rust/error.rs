//! The one error type of the core: what went wrong, where, and what to do.
//!
//! Each variant becomes one Python exception (see `python/errors.rs`). Messages are written here, once, so that Rust and
//! Python users read the same text.

use std::io;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Where in a file something was found: the file and the HDF5 object inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Path of the file as the user gave it.
    pub file: String,
    /// Object inside the file, for example `X/indices`.
    pub object: String,
}

impl Place {
    /// A place in `file`, at `object`.
    pub(crate) fn new(file: impl Into<String>, object: impl Into<String>) -> Self {
        Self { file: file.into(), object: object.into() }
    }

    /// The same file, another object.
    #[must_use]
    pub(crate) fn at(&self, object: impl Into<String>) -> Self {
        Self { file: self.file.clone(), object: object.into() }
    }

    /// A [`Error::Format`] at this place.
    pub(crate) fn format(&self, found: impl Into<String>, remedy: impl Into<String>) -> Error {
        Error::Format { place: self.clone(), found: found.into(), remedy: remedy.into() }
    }

    /// A [`Error::Unsupported`] at this place.
    pub(crate) fn unsupported(&self, reason: impl Into<String>) -> Error {
        Error::Unsupported { place: self.clone(), reason: reason.into() }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: '{}'", self.file, self.object)
    }
}

/// Everything that can go wrong between a path and a batch.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused: no such file, no permission, a failed read.
    #[error("{file}: {doing}: {source}")]
    Io {
        /// The file.
        file: String,
        /// What was being done.
        doing: String,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The file is damaged, or contradicts itself.
    #[error("{place}: {found}. {remedy}")]
    Format {
        /// Where.
        place: Place,
        /// What was found and what was expected.
        found: String,
        /// What to do.
        remedy: String,
    },
    /// Valid HDF5 that this crate does not read; h5py can.
    #[error("{place}: {reason}")]
    Unsupported {
        /// Where.
        place: Place,
        /// Which filter, layout or type.
        reason: String,
    },
    /// There is no such element in the file.
    #[error("{place} does not exist. {remedy}")]
    Missing {
        /// Where it was looked for.
        place: Place,
        /// The elements that exist.
        remedy: String,
    },
    /// The file changed after it was opened.
    #[error("{file}: {change} since it was opened. Open the dataset again to read the new file")]
    Stale {
        /// The file.
        file: String,
        /// What changed.
        change: String,
    },
    /// The matrix does not have a requested row.
    #[error("{place}: row {row} is out of range for {n_rows} rows")]
    RowOutOfRange {
        /// Where.
        place: Place,
        /// The row.
        row: i64,
        /// Rows of the matrix.
        n_rows: u64,
    },
    /// The matrix has to be held in memory and does not fit the budget.
    #[error("{place}: {why} needs {needed} bytes in memory, more than the budget of {budget} bytes. {remedy}")]
    TooLarge {
        /// Where.
        place: Place,
        /// Why it has to be in memory.
        why: &'static str,
        /// Bytes needed.
        needed: u64,
        /// Bytes allowed.
        budget: u64,
        /// What to do.
        remedy: &'static str,
    },
    /// The file needs more memory than is available.
    #[error(
        "{place}: {bytes} bytes of memory are needed at once, more than can be had. Read fewer rows (window=) or \
         columns (var_subset=) at a time; if that is not much, the file is damaged"
    )]
    OutOfMemory {
        /// Where.
        place: Place,
        /// Bytes needed.
        bytes: u64,
    },
    /// The integer dtype of a batch cannot hold a stored value.
    #[error("column {column} holds the value {value}, which {dtype} cannot hold. Ask for a floating dtype")]
    Inexact {
        /// Column of the matrix that was delivered.
        column: u64,
        /// The value as text.
        value: String,
        /// Name of the dtype.
        dtype: &'static str,
    },
    /// Rows with only some of the columns were read without the totals over all columns.
    #[error(
        "the totals over all genes, which NormalizeTotal needs, were not kept when these rows were read. Set the transform \
         before the epoch begins"
    )]
    NoTotals,
    /// A value that no gene's expression has, or a sum that no cell has, where tokens are made; Python has the words.
    #[error(
        "row {at} of the batch: found {value} (column {column:?}); expected numbers of 0 or more that are finite as float32"
    )]
    NotExpression {
        /// Place of the row in the batch.
        at: usize,
        /// Column of the matrix that was delivered; `None` for the sum of the row.
        column: Option<u32>,
        /// The value as text.
        value: String,
    },
    /// The error inside, for a row of one of several matrices.
    #[error("{place}: {error}")]
    OfPart {
        /// Place of that matrix.
        place: String,
        /// What is wrong.
        error: Box<Error>,
    },
    /// Interrupted (Ctrl-C).
    #[error("interrupted")]
    Interrupted,
}
