//! A window's rows, decoded, and the batches made of them.
//!
//! `band` holds rows narrowly; [`Block`] names rows across bands; `densify` and `compress` write batches; `cast` says what
//! a conversion loses, `ops` what is done to rows on the way, `totals` what they sum to; `pool` recycles the memory of
//! batches, `spare` that of bands. Nothing here does I/O.

mod cast;
mod columns;
mod csr;
mod dense;
mod free_list;
mod group;
mod ops;
mod select;
mod totals;
mod values;
mod width;

use std::sync::Arc;

use crate::error::{Error, Result};

pub(crate) use cast::Target;
pub use columns::Columns;
pub(crate) use columns::with_columns;
pub use csr::CsrOut;
pub(crate) use free_list::Spare;
pub use group::Band;
pub(crate) use group::SumTooLarge;
pub(crate) use ops::{ColumnScale, Computed, Number, RowOps};
pub(crate) use select::Selection;
pub(crate) use totals::Counted;
pub use totals::Totals;
pub use values::Values;
pub(crate) use values::with_values;

/// Where one row of a block lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RowPlace {
    band: u32,
    row: u32,
}

/// Rows of a matrix, decoded; batches are any of them, in any order, as often as wanted.
#[derive(Clone, Debug)]
pub struct Block {
    n_cols: usize,
    bands: Vec<Arc<Band>>,
    rows: Vec<RowPlace>,
    /// Where the memory of its bands goes.
    spare: Option<Arc<Spare>>,
}

impl Drop for Block {
    fn drop(&mut self) {
        let Some(spare) = &self.spare else { return };
        // Bands of a cache, and of other blocks, stay where they are.
        self.bands.drain(..).filter_map(Arc::into_inner).for_each(|band| spare.keep(band));
    }
}

/// What became of a value that a batch's dtype does not hold; the later the worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A stored whole number was rounded.
    Rounded,
    /// A stored number became infinite.
    TooLarge,
    /// A number became infinite (or none at all) after what was done to its row.
    TooLargeAfterOps,
}

/// A value that a batch's dtype does not hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Lost {
    /// Column of the batch.
    pub column: u64,
    /// The value.
    pub value: String,
    /// What became of it.
    pub what: What,
}

impl Lost {
    /// The first of the worst.
    fn worst(found: impl IntoIterator<Item = Option<Self>>) -> Option<Self> {
        found.into_iter().flatten().reduce(|a, b| if b.what > a.what { b } else { a })
    }
}

impl Block {
    /// No rows yet, of `n_cols` columns.
    #[must_use]
    pub fn new(n_cols: usize) -> Self {
        Self { n_cols, bands: Vec::new(), rows: Vec::new(), spare: None }
    }

    /// The same, leaving the memory of bands that nobody else has to `spare`.
    #[must_use]
    pub(crate) fn with_spare(mut self, spare: Arc<Spare>) -> Self {
        self.spare = Some(spare);
        self
    }

    /// The rows of `blocks`, which have one number of columns, one after the other.
    #[must_use]
    pub(crate) fn joined<'a>(n_cols: usize, blocks: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut all = Self::new(n_cols);
        for block in blocks {
            let before = all.bands.len() as u32;
            all.rows.extend(block.rows.iter().map(|place| RowPlace { band: before + place.band, ..*place }));
            all.bands.extend(block.bands.iter().cloned());
        }
        all
    }

    /// Appends all rows of `band`.
    pub fn push_band(&mut self, band: Arc<Band>) {
        let n_rows = band.n_rows();
        self.push_rows(band, 0..n_rows);
    }

    /// Appends some rows of `band`, in the order given.
    pub(crate) fn push_rows(&mut self, band: Arc<Band>, rows: impl IntoIterator<Item = usize>) {
        let at = self.bands.len() as u32;
        self.rows.extend(rows.into_iter().map(|row| RowPlace { band: at, row: row as u32 }));
        self.bands.push(band);
    }

    /// Rows held.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.rows.len()
    }

    /// Columns of a batch.
    #[must_use]
    pub fn n_cols(&self) -> usize {
        self.n_cols
    }

    /// Bytes of memory held (shared bands counted whole).
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        self.bands.iter().map(|b| b.bytes()).sum::<usize>() + self.rows.capacity() * size_of::<RowPlace>()
    }

    /// What the rows at `positions` sum to over all columns of their matrix.
    ///
    /// # Errors
    /// [`Error::NoTotals`] where that was not kept.
    ///
    /// # Panics
    /// Where a position is out of range.
    pub(crate) fn totals(&self, positions: &[i64]) -> Result<Vec<f64>> {
        let of_row = |&position: &i64| {
            let (band, row) = self.locate(position as usize);
            Ok(match band {
                _ if let Some(total) = Self::kept_total(band, row)? => total,
                Band::Sparse { offsets, values, .. } => {
                    with_values!(values, v => totals::sum(v[offsets[row]..offsets[row + 1]].iter().copied()))
                }
                Band::Dense { n_cols, values, .. } => {
                    with_values!(values, v => totals::sum(v[row * n_cols..(row + 1) * n_cols].iter().copied()))
                }
            })
        };
        positions.iter().map(of_row).collect()
    }

    /// The total of a row that was kept beside it; `None` where it is the sum of the values held.
    fn kept_total(band: &Band, row: usize) -> Result<Option<f64>> {
        match band.totals() {
            Totals::OfValues => Ok(None),
            Totals::Kept(totals) => Ok(Some(totals[row])),
            Totals::Unknown => Err(Error::NoTotals),
        }
    }

    fn locate(&self, position: usize) -> (&Band, usize) {
        let RowPlace { band, row } = self.rows[position];
        (&self.bands[band as usize], row as usize)
    }

    /// The first of `positions` that is not a row of this block.
    #[must_use]
    pub(crate) fn first_out_of_range(&self, positions: &[i64]) -> Option<i64> {
        positions.iter().copied().find(|&p| usize::try_from(p).map_or(true, |p| p >= self.rows.len()))
    }
}
