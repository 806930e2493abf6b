//! Rows of a matrix on disk: sorted rows in, a decoded [`Block`] out. Knows files and threads, not Python.
//!
//! `plan` is arithmetic; `file` reads; `workers` runs jobs; `stream` decodes one-dimensional arrays; `csr`, `csc` and `dense`
//! are the three kinds of matrix.

pub mod csc;
pub mod csr;
pub mod dense;
pub mod file;
pub mod plan;
pub mod stream;
pub mod workers;

use std::path::Path;
use std::sync::Arc;

use crate::block::{Block, Selection};
use crate::error::{Error, Place, Result};
use crate::h5::layout::MatrixLayout;
use csc::CscMatrix;
use csr::CsrMatrix;
use dense::DenseMatrix;
use file::DataFile;
use workers::Workers;

/// A matrix in an open file.
#[derive(Debug)]
pub struct Matrix {
    file: DataFile,
    found: Arc<Found>,
}

/// What opening found out; plain data, shared with reopened matrices.
#[derive(Debug)]
struct Found {
    elem: String,
    shape: [u64; 2],
    selection: Option<Selection>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Csr(CsrMatrix),
    Csc(CscMatrix),
    Dense(DenseMatrix),
    /// No rows or no columns: nothing to read.
    Empty(MatrixLayout),
}

impl Matrix {
    /// Opens the matrix `elem` of the file at `path`; `columns` are the wanted ones, in order (all where `None`).
    ///
    /// `budget` bounds, in bytes, what a CSC matrix may take in memory.
    ///
    /// # Errors
    /// See [`crate::h5::open`], [`CsrMatrix::new`], [`CscMatrix::new`]; [`Error::Format`] for columns that are not there.
    pub fn open(path: &Path, elem: &str, columns: Option<&[i64]>, budget: u64, workers: &Workers) -> Result<Self> {
        let file = DataFile::open(path)?;
        let layout = crate::h5::open(path, elem)?;
        // Between the two openings the path may have come to name another file.
        file.check_unchanged()?;
        let shape = layout.shape();
        let place = Place::new(path.display().to_string(), elem);
        let selection = columns.map(|c| Selection::new(c, shape[1])).transpose().map_err(|column| {
            place.format(
                format!("column {column} was asked for twice or is not one of {} columns", shape[1]),
                "Ask for each column once",
            )
        })?;
        let kind = match layout {
            layout if shape.contains(&0) => Kind::Empty(layout),
            MatrixLayout::Csr(layout) => Kind::Csr(CsrMatrix::new(&file, layout)?),
            MatrixLayout::Csc(layout) => {
                Kind::Csc(CscMatrix::new(&file, layout, selection.as_ref(), budget, workers)?)
            }
            MatrixLayout::Dense(layout) => Kind::Dense(DenseMatrix::new(layout)),
        };
        Ok(Self { file, found: Arc::new(Found { elem: elem.to_owned(), shape, selection, kind }) })
    }

    /// The same matrix through a file descriptor of its own, as a forked process should have. libhdf5 is not needed.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Stale`] where the path names another file now.
    pub fn reopen(&self) -> Result<Self> {
        self.file.check_unchanged()?;
        Ok(Self { file: DataFile::open(self.file.path())?, found: Arc::clone(&self.found) })
    }

    /// Rows and columns in the file.
    #[must_use]
    pub fn shape(&self) -> [u64; 2] {
        self.found.shape
    }

    /// The file it lies in.
    #[must_use]
    pub fn file(&self) -> &DataFile {
        &self.file
    }

    /// Where it lies, as the user said.
    #[must_use]
    pub fn elem(&self) -> &str {
        &self.found.elem
    }

    /// `csr`, `csc` or `dense`.
    #[must_use]
    pub fn format(&self) -> &'static str {
        match &self.found.kind {
            Kind::Csr(_) => "csr",
            Kind::Csc(_) => "csc",
            Kind::Dense(_) => "dense",
            Kind::Empty(layout) => layout.format(),
        }
    }

    /// The layout of its values.
    #[must_use]
    pub fn values(&self) -> &crate::h5::layout::ArrayLayout {
        match &self.found.kind {
            Kind::Csr(m) => &m.layout().data,
            Kind::Csc(m) => &m.layout().data,
            Kind::Dense(m) => m.layout(),
            Kind::Empty(layout) => layout.values(),
        }
    }

    /// Decodes `rows`, which must be sorted and distinct.
    ///
    /// # Errors
    /// [`Error::RowOutOfRange`], [`Error::Stale`] where the file changed, and what the readers give.
    pub fn read(&self, rows: &[u64], workers: &Workers) -> Result<Block> {
        if let Some(&row) = rows.last().filter(|&&row| row >= self.found.shape[0]) {
            let place = Place::new(self.file.path().display().to_string(), self.found.elem.clone());
            return Err(Error::RowOutOfRange { place, row: row as i64, n_rows: self.found.shape[0] });
        }
        self.file.check_unchanged()?;
        let selection = self.found.selection.as_ref();
        match &self.found.kind {
            Kind::Csr(m) => m.read(&self.file, rows, selection, workers),
            Kind::Csc(m) => Ok(m.read(rows)),
            Kind::Dense(m) => m.read(&self.file, rows, selection, workers),
            Kind::Empty(_) => {
                let width = selection.map_or(self.found.shape[1] as usize, |s| s.order().len());
                let band = crate::block::Band::Dense {
                    n_cols: width,
                    n_rows: rows.len(),
                    values: crate::block::Values::with_capacity(0),
                };
                let mut block = Block::new(width);
                block.push_band(Arc::new(band));
                Ok(block)
            }
        }
    }
}
