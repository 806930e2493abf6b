//! CSC: the first read converts the whole matrix to rows and keeps them, because a row is spread over the whole file.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::csr::{read_columns, read_indptr};
use super::row_starts::RowStarts;
use super::spans::{extents_of, read_spans};
use crate::dtype::Kind;
use crate::error::{Error, Place, Result};
use crate::file::DataFile;
use crate::layout::SparseLayout;
use crate::rows::{Columns, Counted, Number as _, RowGroup, Selection, SumTooLarge, Totals, Values};
use crate::rows::{with_columns, with_values};
use crate::threads::jobs::Workers;

/// Elements that one job decodes.
const JOB_ELEMENTS: u64 = 1 << 20;

/// A CSC matrix on disk.
#[derive(Debug)]
pub(crate) struct CscMatrix {
    layout: SparseLayout,
    starts: RowStarts,
    /// Columns of the matrix in delivery order; `None` for those that it does not have.
    wanted: Vec<Option<u32>>,
}

impl CscMatrix {
    /// Reads and checks the indptr.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if the conversion to rows takes more than `budget` bytes; [`Error::Format`] if the file is damaged.
    pub(crate) fn new(
        file: &DataFile,
        layout: SparseLayout,
        selection: Option<&Selection>,
        budget: u64,
    ) -> Result<Self> {
        let n_cols = layout.shape[1];
        let starts = read_indptr(file, &layout.indptr, layout.data.len(), n_cols)?;
        // Only wanted columns are read, in delivery order, so that rows are sorted by their new column numbers.
        let wanted: Vec<Option<u32>> =
            selection.map_or_else(|| (0..n_cols as u32).map(Some).collect(), |selection| selection.order().collect());
        let matrix = Self { layout, starts, wanted };
        matrix.check_budget(file, budget)?;
        Ok(matrix)
    }

    /// Its layout.
    #[must_use]
    pub(crate) fn layout(&self) -> &SparseLayout {
        &self.layout
    }

    /// Columns delivered.
    #[must_use]
    pub(crate) fn width(&self) -> usize {
        self.wanted.len()
    }

    /// Elements that the conversion reads.
    #[must_use]
    pub(crate) fn elements(&self, selection: Option<&Selection>) -> u64 {
        let of_totals = if selection.is_some_and(|s| s.counted().is_some()) { self.layout.data.len() } else { 0 };
        self.wanted_elements() + of_totals
    }

    fn wanted_elements(&self) -> u64 {
        self.wanted.iter().flatten().map(|&column| self.starts.span(u64::from(column))).map(|s| s.end - s.start).sum()
    }

    fn check_budget(&self, file: &DataFile, budget: u64) -> Result<()> {
        let value_size = self.layout.data.dtype.kind.size() as u64;
        let needed = memory_needed(self.wanted_elements(), value_size, self.layout.shape[0]);
        if needed <= budget {
            return Ok(());
        }
        Err(Error::TooLarge {
            place: Place::new(file.path().display().to_string(), self.layout.data.name.trim_end_matches("/data")),
            why: "a matrix stored by columns (CSC) is turned into rows once, which",
            needed,
            budget,
            remedy: "Pass a larger cache=, or write the file with a CSR matrix: \
                     adata.X = adata.X.tocsr(); adata.write_h5ad(...)",
        })
    }

    /// Reads the matrix and converts it to rows, within `budget` bytes; counts the elements read in `done`.
    ///
    /// # Errors
    /// [`Error::TooLarge`] beyond the budget; [`Error::Format`] if the file is damaged.
    pub(crate) fn rows(
        &self,
        file: &DataFile,
        selection: Option<&Selection>,
        budget: u64,
        workers: &Workers,
        done: &AtomicU64,
    ) -> Result<RowGroup> {
        self.check_budget(file, budget)?;
        let (layout, kind) = (&self.layout, self.layout.data.dtype.kind);
        let pieces = read_wanted(file, layout, &self.starts, &self.wanted, workers, done)?;
        let n_rows = layout.shape[0] as usize;
        let mut rows = transpose(n_rows, self.wanted.len() as u64, &pieces, kind).map_err(|error| {
            let place = Place::new(file.path().display().to_string(), layout.data.name.clone());
            place.format(error.found(error.row as u64), SumTooLarge::REMEDY)
        })?;
        drop(pieces);
        if let (Some(selection), RowGroup::Sparse { totals, .. }) = (selection, &mut rows) {
            *totals = match selection.counted() {
                None => Totals::Unknown,
                Some(counted) => Totals::Kept(read_totals(file, layout, &self.starts, counted, workers, done)?),
            };
        }
        Ok(rows)
    }
}

/// Bytes that the conversion takes: row indices and values that were read, each element's new place, and the transposed
/// matrix, all at once.
#[must_use]
pub(crate) fn memory_needed(elements: u64, value_size: u64, n_rows: u64) -> u64 {
    elements.saturating_mul(8 + 2 * (4 + value_size)).saturating_add(n_rows.saturating_mul(8))
}

/// Some consecutive wanted columns, as stored.
struct ColumnRun {
    columns: Range<u32>,
    lengths: Vec<usize>,
    rows: Columns,
    values: Values,
}

fn read_wanted(
    file: &DataFile,
    layout: &SparseLayout,
    starts: &RowStarts,
    wanted: &[Option<u32>],
    workers: &Workers,
    done: &AtomicU64,
) -> Result<Vec<ColumnRun>> {
    let span = |column: Option<u32>| column.map_or(0..0, |column| starts.span(u64::from(column)));
    let mut jobs: Vec<Range<usize>> = Vec::new();
    let (mut from, mut elements) = (0, 0);
    for (i, &column) in wanted.iter().enumerate() {
        let span = span(column);
        elements += span.end - span.start;
        if elements >= JOB_ELEMENTS {
            jobs.push(from..i + 1);
            (from, elements) = (i + 1, 0);
        }
    }
    jobs.push(from..wanted.len());
    let kind = layout.data.dtype.kind;
    // Spans must run forward through the file, so columns out of order are read one group at a time (gaps come first).
    let groups = |job: &Range<usize>| wanted[job.clone()].chunk_by(|a, b| a < b);
    let spans_of = |group: &[Option<u32>]| group.iter().map(|&c| span(c)).collect::<Vec<Range<u64>>>();
    let file = file.fetched(None, || {
        let mut extents = Vec::new();
        for group in jobs.iter().flat_map(groups) {
            let spans = spans_of(group);
            extents_of(&layout.indices, &spans, &mut extents);
            extents_of(&layout.data, &spans, &mut extents);
        }
        extents
    });
    workers.run(&jobs, |scratch, job| {
        let mut piece = ColumnRun {
            columns: job.start as u32..job.end as u32,
            lengths: Vec::new(),
            rows: Columns::with_capacity(layout.shape[0], 0),
            values: Values::with_capacity(0),
        };
        for group in groups(job) {
            let spans = spans_of(group);
            let lengths = spans.iter().map(|s| (s.end - s.start) as usize);
            piece.lengths.extend(lengths.clone());
            let total = lengths.sum();
            let rows = Columns::with_capacity(layout.shape[0], total);
            let rows = read_columns(&file, &layout.indices, &spans, rows, layout.shape[0], scratch)?;
            match (&mut piece.rows, rows) {
                (Columns::U16(all), Columns::U16(new)) => all.extend(new),
                (Columns::U32(all), Columns::U32(new)) => all.extend(new),
                (all, new) => (0..new.len()).for_each(|i| all.push(new.get(i))),
            }
            read_spans(&file, &layout.data, &spans, scratch, &mut |bytes| {
                piece.values.append(kind, bytes);
                Ok(())
            })?;
        }
        done.fetch_add(piece.values.len() as u64, Ordering::Relaxed);
        Ok(piece)
    })
}

/// The sum of each row over the columns that count, added from the first column to the last.
fn read_totals(
    file: &DataFile,
    layout: &SparseLayout,
    starts: &RowStarts,
    counted: &Counted,
    workers: &Workers,
    done: &AtomicU64,
) -> Result<Vec<f64>> {
    let columns: Vec<Option<u32>> =
        (0..layout.shape[1]).filter(|&c| counted.has(c as usize)).map(|c| Some(c as u32)).collect();
    let mut totals = vec![0.0; layout.shape[0] as usize];
    let span = |column: &Option<u32>| column.map_or(0..0, |column| starts.span(u64::from(column)));
    let mut from = 0;
    while from < columns.len() {
        // As many elements at once as keep all threads busy: the pieces are added one after the other.
        let (mut to, mut elements) = (from, 0);
        while to < columns.len() && elements < JOB_ELEMENTS * workers.threads as u64 {
            let span = span(&columns[to]);
            elements += span.end - span.start;
            to += 1;
        }
        for piece in read_wanted(file, layout, starts, &columns[from..to], workers, done)? {
            piece.add_to(&mut totals, layout.data.dtype.kind);
        }
        from = to;
    }
    Ok(totals)
}

impl ColumnRun {
    /// Adds its values to the totals of their rows.
    fn add_to(&self, totals: &mut [f64], kind: Kind) {
        with_values!(&self.values, values => {
            let mut at = 0;
            for &len in &self.lengths {
                let column = at..at + len;
                at += len;
                if kind == Kind::Bool {
                    // true and true are true, not two.
                    let mut rows: Vec<u32> =
                        column.filter(|&i| values[i].wide() != 0.0).map(|i| self.rows.get(i)).collect();
                    rows.sort_unstable();
                    rows.dedup();
                    for row in rows {
                        totals[row as usize] += 1.0;
                    }
                } else {
                    column.for_each(|i| totals[self.rows.get(i) as usize] += values[i].wide());
                }
            }
        });
    }
}

/// Columns to rows by a counting sort, so each row's columns are in order.
fn transpose(
    n_rows: usize,
    n_cols: u64,
    pieces: &[ColumnRun],
    kind: Kind,
) -> std::result::Result<RowGroup, SumTooLarge> {
    let mut offsets = vec![0usize; n_rows + 1];
    for piece in pieces {
        with_columns!(&piece.rows, rows => rows.iter().for_each(|&r| offsets[r as usize + 1] += 1));
    }
    for i in 0..n_rows {
        offsets[i + 1] += offsets[i];
    }
    let mut next = offsets[..n_rows].to_vec();
    let total = offsets[n_rows];
    // places[n]: place in the transposed matrix of the n-th element of all pieces.
    let mut places = Vec::with_capacity(total);
    let mut columns = Columns::with_capacity(n_cols, total);
    with_columns!(&mut columns, c => c.resize(total, 0));
    for piece in pieces {
        let mut at = 0;
        for (column, &len) in piece.columns.clone().zip(&piece.lengths) {
            for i in at..at + len {
                let row = piece.rows.get(i) as usize;
                let place = next[row];
                next[row] += 1;
                match &mut columns {
                    Columns::U16(c) => c[place] = column as u16,
                    Columns::U32(c) => c[place] = column,
                }
                places.push(place);
            }
            at += len;
        }
    }
    let values = Values::scatter(pieces.iter().map(|p| &p.values), &places);
    RowGroup::from_stored(offsets, columns, values, kind, None)
}
