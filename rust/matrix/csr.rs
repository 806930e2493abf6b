//! CSR: decodes sorted rows into row groups, in jobs that share no chunks.

use std::ops::Range;

use super::plan::{jobs, runs};
use super::row_starts::RowStarts;
use super::spans::{extents_of, read_spans};
use crate::dtype::Kind;
use crate::error::{Place, Result};
use crate::file::{DataFile, Extent, Fetched};
use crate::layout::{ArrayLayout, SparseLayout};
use crate::memory::reserve;
use crate::rows::{Columns, FreeList, RowGroup, Selection, SumTooLarge, Values};
use crate::threads::jobs::{Scratch, Workers};

/// Most elements of a job, unless its rows share one chunk: short enough for Ctrl-C, long enough to be worth a job.
const MAX_JOB_ELEMENTS: u64 = 1 << 18;

/// Smaller chunks are joined to one unit, so that the cache's record of a unit is small compared to its rows.
const MIN_UNIT_ELEMENTS: u64 = 1 << 14;

/// A CSR matrix on disk.
#[derive(Debug)]
pub(crate) struct CsrMatrix {
    layout: SparseLayout,
    starts: RowStarts,
}

impl CsrMatrix {
    /// Reads and checks the indptr.
    ///
    /// # Errors
    /// [`crate::error::Error::Format`] where it is not monotone, or points past the data.
    pub(crate) fn new(file: &DataFile, layout: SparseLayout) -> Result<Self> {
        let starts = read_indptr(file, &layout.indptr, layout.data.len(), layout.shape[0])?;
        Ok(Self { layout, starts })
    }

    /// Its layout.
    #[must_use]
    pub(crate) fn layout(&self) -> &SparseLayout {
        &self.layout
    }

    /// The decode unit of a row: the rows that begin in one chunk of the indices (or in a few small ones).
    #[must_use]
    pub(crate) fn unit_of(&self, row: u64) -> u64 {
        self.starts.start(row) / self.unit_len()
    }

    /// The rows of a unit.
    #[must_use]
    pub(crate) fn unit_rows(&self, unit: u64) -> Range<u64> {
        self.starts.first_row_from(unit * self.unit_len())..self.starts.first_row_from((unit + 1) * self.unit_len())
    }

    fn unit_len(&self) -> u64 {
        let chunk = self.layout.indices.chunk_rows();
        chunk * MIN_UNIT_ELEMENTS.div_ceil(chunk)
    }

    /// How `rows` are cut into jobs for so many threads.
    fn jobs(&self, rows: &[u64], threads: usize) -> Vec<Range<usize>> {
        // Several jobs a thread even out; a cut costs one more prefix of a chunk. A unit is never cut.
        let even = rows.len().min(self.layout.data.len().div_ceil(self.unit_len()) as usize) / (threads * 8);
        let most = (MAX_JOB_ELEMENTS / self.unit_len()).min(even as u64);
        // An even number, for chunks are decoded in pairs.
        let target = if most > 1 { most & !1 } else { most };
        jobs(rows, |row| self.unit_of(row), target)
    }

    /// What of the file is read to decode `rows`, in the order of the jobs.
    pub(crate) fn extents(&self, rows: &[u64], threads: usize) -> Vec<Extent> {
        let mut extents = Vec::new();
        for job in self.jobs(rows, threads) {
            let spans = self.spans(&rows[job]);
            extents_of(&self.layout.indices, &spans, &mut extents);
            extents_of(&self.layout.data, &spans, &mut extents);
        }
        extents
    }

    fn spans(&self, rows: &[u64]) -> Vec<Range<u64>> {
        runs(rows).into_iter().map(|run| self.starts.start(run.start)..self.starts.start(run.end)).collect()
    }

    /// Decodes `rows` (sorted, distinct, in range): ranges of them, and a row group for each, in memory from `free_list`.
    ///
    /// # Errors
    /// Where the file cannot be read, a chunk is damaged, or a column index is out of range.
    pub(crate) fn row_groups(
        &self,
        file: &Fetched<'_>,
        rows: &[u64],
        selection: Option<&Selection>,
        free_list: Option<&FreeList>,
        workers: &Workers,
    ) -> Result<Vec<(Range<usize>, RowGroup)>> {
        let jobs = self.jobs(rows, workers.threads);
        let groups = workers
            .run(&jobs, |scratch, job| self.row_group(file, &rows[job.clone()], selection, free_list, scratch))?;
        Ok(jobs.into_iter().zip(groups).collect())
    }

    fn row_group(
        &self,
        file: &Fetched<'_>,
        rows: &[u64],
        selection: Option<&Selection>,
        free_list: Option<&FreeList>,
        scratch: &mut Scratch,
    ) -> Result<RowGroup> {
        let spans = self.spans(rows);
        let mut offsets = Vec::with_capacity(rows.len() + 1);
        let mut total = 0usize;
        offsets.push(0);
        for &row in rows {
            let span = self.starts.span(row);
            total += (span.end - span.start) as usize;
            offsets.push(total);
        }
        let n_cols = self.layout.shape[1];
        let kind = self.layout.data.dtype.kind;
        reserve::check((total as u64).saturating_mul(4 + kind.size() as u64), || {
            Place::new(file.path().display().to_string(), self.layout.data.name.clone())
        })?;
        let (columns, mut values) = match free_list {
            Some(free_list) => free_list.take(n_cols, total),
            None => (Columns::with_capacity(n_cols, total), Values::with_capacity(total)),
        };
        let columns = read_columns(file, &self.layout.indices, &spans, columns, n_cols, scratch)?;
        read_spans(file, &self.layout.data, &spans, scratch, &mut |bytes| {
            values.append(kind, bytes);
            Ok(())
        })?;
        RowGroup::from_stored(offsets, columns, values, kind, selection).map_err(|error| {
            let place = Place::new(file.path().display().to_string(), self.layout.data.name.clone());
            place.format(error.found(rows[error.row]), SumTooLarge::REMEDY)
        })
    }
}

/// Decodes and checks column indices (of a CSC matrix: row indices) into `columns`, which are empty.
///
/// # Errors
/// Where the file cannot be read, a chunk is damaged, or an index is out of range.
pub(crate) fn read_columns(
    file: &Fetched<'_>,
    indices: &ArrayLayout,
    spans: &[Range<u64>],
    mut columns: Columns,
    n_cols: u64,
    scratch: &mut Scratch,
) -> Result<Columns> {
    let kind = indices.dtype.kind;
    read_spans(file, indices, spans, scratch, &mut |bytes| {
        let before = columns.len();
        columns.append(kind, bytes, n_cols).map_err(|(at, value)| {
            let place = Place::new(file.path().display().to_string(), indices.name.clone());
            let element = nth_element(spans, (before + at) as u64);
            place.format(
                format!("element {element} is the index {value}; expected 0 to {}", n_cols.saturating_sub(1)),
                "The file is damaged or was written wrongly: write it again",
            )
        })
    })?;
    Ok(columns)
}

/// The position in the file's array of the n-th element of the spans.
fn nth_element(spans: &[Range<u64>], mut n: u64) -> u64 {
    for span in spans {
        let len = span.end - span.start;
        if n < len {
            return span.start + n;
        }
        n -= len;
    }
    n
}

/// Reads a whole indptr and checks it against the number of elements.
///
/// # Errors
/// [`crate::error::Error::Format`] where it is not monotone, does not begin with 0, or points past the elements.
pub(crate) fn read_indptr(file: &DataFile, indptr: &ArrayLayout, elements: u64, n_major: u64) -> Result<RowStarts> {
    let place = Place::new(file.path().display().to_string(), indptr.name.clone());
    if indptr.is_empty() {
        return Ok(RowStarts::default());
    }
    reserve::check(indptr.len().saturating_mul(16), || place.clone())?;
    let mut starts: Vec<u64> = Vec::with_capacity(indptr.len() as usize);
    let kind = indptr.dtype.kind;
    let whole = 0..indptr.len();
    let whole = std::slice::from_ref(&whole);
    let mut extents = Vec::new();
    extents_of(indptr, whole, &mut extents);
    read_spans(&file.fetched(None, || extents), indptr, whole, &mut Scratch::default(), &mut |bytes| {
        append_u64(&mut starts, kind, bytes);
        Ok(())
    })?;
    let remedy = "The file is damaged or was written wrongly: write it again";
    if let Some(last) = starts.last().filter(|&&last| last > elements) {
        return Err(place.format(format!("it points to element {last}, but there are {elements}"), remedy));
    }
    debug_assert_eq!(starts.len() as u64, n_major + 1);
    RowStarts::new(&starts).map_err(|at| {
        let found = match at {
            0 => format!("it begins with {}; expected 0", starts[0]),
            at => format!("element {at} is {}, less than {} before it", starts[at] as i64, starts[at - 1] as i64),
        };
        place.format(found, remedy)
    })
}

fn append_u64(out: &mut Vec<u64>, kind: Kind, bytes: &[u8]) {
    let signed = matches!(kind, Kind::I8 | Kind::I16 | Kind::I32 | Kind::I64);
    out.extend(bytes.chunks_exact(kind.size()).map(|raw| {
        let negative = signed && raw[raw.len() - 1] & 0x80 != 0;
        // Sign extension makes a negative start huge, so that the check fails.
        let mut wide = [if negative { 0xFF } else { 0 }; 8];
        wide[..raw.len()].copy_from_slice(raw);
        u64::from_le_bytes(wide)
    }));
}
