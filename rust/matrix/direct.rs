//! Direct read: rows that a batch needs exactly as they are stored are read straight into it.
//!
//! These are dense rows without filters, in the machine's byte order, with all columns, in the dtype of the file.

use std::sync::Arc;

use crate::dtype::NumType;
use crate::error::{Place, Result};
use crate::file::{DataFile, Fetched};
use crate::threads::team::{rows_of_piece, share_rows};

/// Most bytes that the system is asked to read ahead: more might replace pages that are needed sooner.
const MAX_ADVISED: u64 = 256 << 20;

/// Rows of a dense matrix that are read straight into a batch.
#[derive(Debug)]
pub(crate) struct DirectRows {
    pub(super) file: Arc<DataFile>,
    pub(super) place: Place,
    pub(super) dtype: NumType,
    pub(super) n_cols: usize,
    /// Address of each row.
    pub(super) addresses: Vec<u64>,
}

impl DirectRows {
    /// Number of rows.
    #[must_use]
    pub(crate) fn n_rows(&self) -> usize {
        self.addresses.len()
    }

    /// Values in a row.
    #[must_use]
    pub(crate) fn n_cols(&self) -> usize {
        self.n_cols
    }

    /// The type of its values.
    #[must_use]
    pub(crate) fn dtype(&self) -> NumType {
        self.dtype
    }

    fn row_bytes(&self) -> usize {
        self.n_cols * self.dtype.kind.size()
    }

    /// Asks the system to read these rows ahead of time.
    pub(crate) fn advise(&self) {
        let bytes = self.row_bytes() as u64;
        if bytes.saturating_mul(self.addresses.len() as u64) <= MAX_ADVISED {
            self.runs(0..self.addresses.len())
                .for_each(|(address, rows)| self.file.advise(address, rows as u64 * bytes));
        }
    }

    /// Reads the rows at `positions`, one after the other, into `out`.
    ///
    /// # Errors
    /// [`crate::error::Error::Stale`] where the file changed, [`crate::error::Error::Io`] where it cannot be read.
    ///
    /// # Panics
    /// If a position is out of range, or `out` has another size than the rows.
    pub(crate) fn read(&self, positions: &[i64], out: &mut [u8], threads: usize) -> Result<()> {
        assert_eq!(out.len(), positions.len() * self.row_bytes(), "out has the size of the rows");
        if out.is_empty() {
            return Ok(());
        }
        self.file.check_unchanged()?;
        let file = self.file.fetched(None, || {
            let runs = positions.chunks(rows_of_piece(self.row_bytes())).flat_map(|piece| self.runs_at(piece));
            runs.map(|(address, rows)| (address, (rows * self.row_bytes()) as u64)).collect()
        });
        let read = |rows: &[i64], out: &mut [u8]| self.read_piece(&file, rows, out);
        share_rows(threads, positions, out, self.row_bytes(), read).into_iter().collect()
    }

    fn read_piece(&self, file: &Fetched<'_>, positions: &[i64], mut out: &mut [u8]) -> Result<()> {
        for (address, rows) in self.runs_at(positions) {
            let (now, rest) = out.split_at_mut(rows * self.row_bytes());
            file.read_into(now, address, &self.place)?;
            out = rest;
        }
        Ok(())
    }

    fn runs_at(&self, positions: &[i64]) -> impl Iterator<Item = (u64, usize)> {
        self.runs(positions.iter().map(|&p| p as usize))
    }

    /// Runs of rows that follow each other in the file: the address of the first, and the number of rows.
    fn runs(&self, positions: impl IntoIterator<Item = usize>) -> impl Iterator<Item = (u64, usize)> {
        let bytes = self.row_bytes() as u64;
        let mut addresses = positions.into_iter().map(|p| self.addresses[p]).peekable();
        std::iter::from_fn(move || {
            let first = addresses.next()?;
            let mut rows = 1;
            while addresses.next_if_eq(&(first + rows as u64 * bytes)).is_some() {
                rows += 1;
            }
            Some((first, rows))
        })
    }
}
