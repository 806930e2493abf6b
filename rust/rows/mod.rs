//! Decoded rows: a window of them, held narrowly in row groups, and the batches that are written from it.
//!
//! `dense`, `csr` and `tokens` write batches, the first two with the steps of `ops` on the way; `cast` says what a conversion loses; `free_list`
//! recycles the memory of row groups. No files are read here, and no order of rows is chosen.

mod cast;
mod columns;
mod compact;
mod csr;
mod dense;
mod free_list;
mod group;
mod number;
mod ops;
#[allow(unsafe_code, reason = "an instruction that asks for memory and changes nothing")]
mod prefetch;
mod select;
mod tokens;
mod totals;
mod values;
mod width;

use std::sync::Arc;

use crate::error::{Error, Result};

pub(crate) use cast::Target;
pub use columns::Columns;
pub(crate) use columns::with_columns;
pub use csr::CsrOut;
pub(crate) use free_list::FreeList;
pub use group::RowGroup;
pub(crate) use group::SumTooLarge;
pub(crate) use number::Number;
pub(crate) use ops::{ColumnScale, Computed, RowOps};
pub(crate) use select::Selection;
pub(crate) use tokens::{Arrange, Choose, Kept, TokenRows, TokenSpec, TokenValues, TokensOut};
pub(crate) use totals::Counted;
pub use totals::Totals;
pub use values::Values;
pub(crate) use values::with_values;

/// The place of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RowPlace {
    group: u32,
    row: u32,
}

/// Decoded rows of a matrix, from which batches are copied in any order, with repeats.
#[derive(Clone, Debug)]
pub struct DecodedRows {
    n_cols: usize,
    groups: Vec<Arc<RowGroup>>,
    rows: Vec<RowPlace>,
    /// For several matrices: the first row group and the place of each.
    places: Vec<(u32, String)>,
    /// Receives the memory of its row groups.
    free_list: Option<Arc<FreeList>>,
}

/// Some rows, to be put after those of others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'a> {
    /// The rows.
    pub(crate) rows: &'a DecodedRows,
    /// Positions among them, in any order, repeats allowed; `None` for all.
    pub(crate) positions: Option<&'a [i64]>,
    /// Place of their matrix, for errors; empty for none.
    pub(crate) place: &'a str,
}

impl Drop for DecodedRows {
    fn drop(&mut self) {
        let Some(free_list) = &self.free_list else { return };
        // Only row groups that neither a cache nor other decoded rows use.
        self.groups.drain(..).filter_map(Arc::into_inner).for_each(|group| free_list.keep(group));
    }
}

/// What became of a value that a batch's dtype cannot hold, from harmless to severe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A stored whole number was rounded.
    Rounded,
    /// A stored number became infinite.
    TooLarge,
    /// A number became infinite (or NaN) after the steps on its row.
    TooLargeAfterOps,
}

/// A value that a batch's dtype cannot hold.
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

impl DecodedRows {
    /// No rows yet, of `n_cols` columns.
    #[must_use]
    pub fn new(n_cols: usize) -> Self {
        Self { n_cols, groups: Vec::new(), rows: Vec::new(), places: Vec::new(), free_list: None }
    }

    /// As [`Self::new`]; the memory of row groups that nothing else uses goes to `free_list`.
    #[must_use]
    pub(crate) fn with_free_list(mut self, free_list: Arc<FreeList>) -> Self {
        self.free_list = Some(free_list);
        self
    }

    /// The rows of `parts`, which have one number of columns, one part after the other.
    ///
    /// # Panics
    /// Where a position is out of range.
    #[must_use]
    pub(crate) fn concat<'a>(n_cols: usize, parts: impl IntoIterator<Item = Part<'a>>) -> Self {
        let mut all = Self::new(n_cols);
        for Part { rows, positions, place } in parts {
            let before = all.groups.len() as u32;
            let moved = |row: &RowPlace| RowPlace { group: before + row.group, ..*row };
            match positions {
                None => all.rows.extend(rows.rows.iter().map(moved)),
                Some(positions) => all.rows.extend(positions.iter().map(|&p| moved(&rows.rows[p as usize]))),
            }
            all.groups.extend(rows.groups.iter().cloned());
            if rows.places.is_empty() && !place.is_empty() {
                all.places.push((before, place.to_owned()));
            } else {
                // Rows of several matrices know better.
                all.places.extend(rows.places.iter().map(|(first, of)| (before + first, of.clone())));
            }
        }
        all
    }

    /// The error, with the place of the row's matrix if there are several.
    fn named(&self, position: i64, error: Error) -> Error {
        let group = self.rows[position as usize].group;
        match self.places.iter().rfind(|(first, _)| *first <= group) {
            Some((_, place)) => Error::OfPart { place: place.clone(), error: Box::new(error) },
            None => error,
        }
    }

    /// Appends all rows of `group`.
    pub fn push_group(&mut self, group: Arc<RowGroup>) {
        let n_rows = group.n_rows();
        self.push_rows(group, 0..n_rows);
    }

    /// Appends some rows of `group`, in the order given.
    pub(crate) fn push_rows(&mut self, group: Arc<RowGroup>, rows: impl IntoIterator<Item = usize>) {
        let at = self.groups.len() as u32;
        self.rows.extend(rows.into_iter().map(|row| RowPlace { group: at, row: row as u32 }));
        self.groups.push(group);
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

    /// Bytes of memory held (shared row groups counted whole).
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        self.groups.iter().map(|b| b.bytes()).sum::<usize>() + self.rows.capacity() * size_of::<RowPlace>()
    }

    /// The sums of the rows at `positions` over all columns of their matrix.
    ///
    /// # Errors
    /// [`Error::NoTotals`] if they were not kept.
    ///
    /// # Panics
    /// Where a position is out of range.
    pub(crate) fn totals(&self, positions: &[i64]) -> Result<Vec<f64>> {
        let of_row = |&position: &i64| {
            let (group, row) = self.locate(position as usize);
            Ok(match group {
                _ if let Some(total) = Self::kept_total(group, row).map_err(|e| self.named(position, e))? => total,
                RowGroup::Sparse { offsets, values, .. } => {
                    with_values!(values, v => number::sum(v[offsets[row]..offsets[row + 1]].iter().copied()))
                }
                RowGroup::Dense { n_cols, values, .. } => {
                    with_values!(values, v => number::sum(v[row * n_cols..(row + 1) * n_cols].iter().copied()))
                }
            })
        };
        positions.iter().map(of_row).collect()
    }

    /// The total of a row that was kept; `None` if it is the sum of its values.
    fn kept_total(group: &RowGroup, row: usize) -> Result<Option<f64>> {
        match group.totals() {
            Totals::OfValues => Ok(None),
            Totals::Kept(totals) => Ok(Some(totals[row])),
            Totals::Unknown => Err(Error::NoTotals),
        }
    }

    fn locate(&self, position: usize) -> (&RowGroup, usize) {
        let RowPlace { group, row } = self.rows[position];
        (&self.groups[group as usize], row as usize)
    }

    /// The first of `positions` that is not a row held here.
    #[must_use]
    pub(crate) fn first_out_of_range(&self, positions: &[i64]) -> Option<i64> {
        positions.iter().copied().find(|&p| usize::try_from(p).map_or(true, |p| p >= self.rows.len()))
    }
}
