//! A matrix on disk: sorted rows in, [`DecodedRows`] out; or [`DirectRows`], which need no decoding.
//!
//! `plan` and `row_starts` are arithmetic; `spans` decodes one-dimensional arrays; `csr`, `csc` and `dense` are the formats.
//! Opening files, the cache and threads are in rooms below.

pub(crate) mod csc;
pub(crate) mod csr;
pub(crate) mod dense;
pub(crate) mod direct;
pub mod plan;
pub(crate) mod row_starts;
pub(crate) mod spans;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError, Weak};
use std::time::Duration;

use crate::cache::read::{self, DecodeUnits};
use crate::cache::{Budget, CacheKey, RowCache};
use crate::error::{Error, Place, Result};
use crate::file::DataFile;
use crate::layout::MatrixLayout;
use crate::memory::reserve;
use crate::rows::{Counted, DecodedRows, FreeList, RowGroup, Selection};
use crate::threads::jobs::Workers;
use csc::CscMatrix;
use csr::CsrMatrix;
use dense::DenseMatrix;
use direct::DirectRows;

/// A matrix in an open file.
#[derive(Debug)]
pub struct Matrix {
    file: Arc<DataFile>,
    opened: Arc<Opened>,
    /// Only for filtered matrices: unfiltered rows are in the page cache already.
    cache: Option<Arc<RowCache>>,
    free_list: Mutex<Weak<FreeList>>,
    budget: Arc<Budget>,
    columns: Converted,
}

/// The rows of a CSC matrix, after the conversion.
#[derive(Debug, Default)]
struct Converted {
    rows: Mutex<Option<Arc<RowGroup>>>,
    /// Elements read so far.
    done: AtomicU64,
}

impl Converted {
    /// The rows, if they were made and no thread holds the lock (as one may have at a fork).
    fn get(&self) -> Option<Arc<RowGroup>> {
        match self.rows.try_lock() {
            Ok(rows) => rows.clone(),
            Err(_) => None,
        }
    }
}

/// Which columns of a matrix are wanted.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    /// All columns.
    All,
    /// These, in this order, with [`Selection::MISSING`] for columns that the matrix lacks.
    Columns(&'a [i64]),
    /// These, and the sums of rows.
    ColumnsAndTotals {
        /// As above.
        columns: &'a [i64],
        /// The columns of the sums; `None` for all.
        over: Option<&'a [i64]>,
    },
}

impl Wanted<'_> {
    /// The selection among `n_cols` columns.
    ///
    /// # Errors
    /// The first column that does not exist or is repeated.
    pub(crate) fn selection(self, n_cols: u64) -> std::result::Result<Option<Selection>, i64> {
        Ok(match self {
            Self::All => None,
            Self::Columns(columns) => Some(Selection::new(columns, n_cols)?),
            Self::ColumnsAndTotals { columns, over } => {
                let counted = over.map_or(Ok(Counted::ALL), |over| Counted::new(over, n_cols))?;
                Some(Selection::new(columns, n_cols)?.with_totals(counted))
            }
        })
    }
}

/// The facts of an opened matrix; plain data, shared with reopened matrices.
#[derive(Debug)]
struct Opened {
    elem: String,
    shape: [u64; 2],
    selection: Option<Selection>,
    format: Format,
}

#[derive(Debug)]
enum Format {
    Csr(CsrMatrix),
    Csc(CscMatrix),
    Dense(DenseMatrix),
    /// No rows or no columns: nothing to read.
    Empty(MatrixLayout),
}

impl Matrix {
    /// Opens the matrix `elem` of the file at `path`, to read the `wanted` columns.
    ///
    /// `budget` limits the memory of a CSC matrix, and of cached rows.
    ///
    /// # Errors
    /// See [`crate::h5::open`], [`CsrMatrix::new`], [`CscMatrix::new`]; [`Error::Format`] for columns that are not there.
    pub fn open(path: &Path, elem: &str, wanted: Wanted<'_>, budget: &Arc<Budget>) -> Result<Self> {
        let file = Arc::new(DataFile::open(path)?);
        let layout = crate::h5::open(path, elem)?;
        // The path may have become another file between the two openings.
        file.check_unchanged()?;
        let shape = layout.shape();
        let place = Place::new(path.display().to_string(), elem);
        if !matches!(wanted, Wanted::All) {
            reserve::check(shape[1].saturating_mul(5), || place.clone())?;
        }
        let selection = wanted.selection(shape[1]).map_err(|column| {
            place.format(
                format!("column {column} was asked for twice or is not one of {} columns", shape[1]),
                "Ask for each column once",
            )
        })?;
        let format = match layout {
            layout if shape.contains(&0) => Format::Empty(layout),
            MatrixLayout::Csr(layout) => Format::Csr(CsrMatrix::new(&file, layout)?),
            MatrixLayout::Csc(layout) => Format::Csc(CscMatrix::new(&file, layout, selection.as_ref(), budget.most())?),
            MatrixLayout::Dense(layout) => Format::Dense(DenseMatrix::new(layout)),
        };
        let opened = Arc::new(Opened { elem: elem.to_owned(), shape, selection, format });
        let cache = opened.cache(&file, budget);
        let budget = Arc::clone(budget);
        Ok(Self { file, opened, cache, free_list: Mutex::default(), budget, columns: Converted::default() })
    }

    /// The same matrix with a new file descriptor, for a forked process. libhdf5 is not needed.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Stale`] if the path is another file now.
    pub fn reopen(&self, budget: &Arc<Budget>) -> Result<Self> {
        self.file.check_unchanged()?;
        let file = Arc::new(DataFile::open(self.file.path())?);
        // Not the cache of the parent process: its lock may be held by a thread that does not exist here.
        let cache = self.opened.cache(&file, budget);
        let columns = Converted { rows: Mutex::new(self.columns.get()), done: AtomicU64::new(0) };
        let (opened, budget) = (Arc::clone(&self.opened), Arc::clone(budget));
        Ok(Self { file, opened, cache, free_list: Mutex::default(), budget, columns })
    }

    /// Elements that the conversion to rows reads, and how many it has read; `None` if no conversion is needed.
    #[must_use]
    pub(crate) fn conversion(&self) -> Option<(u64, u64)> {
        match &self.opened.format {
            Format::Csc(m) if self.columns.get().is_none() => {
                Some((m.elements(self.opened.selection.as_ref()), self.columns.done.load(Ordering::Relaxed)))
            }
            _ => None,
        }
    }

    /// Converts a CSC matrix to rows, unless that was done; does nothing for other matrices.
    ///
    /// # Errors
    /// [`Error::TooLarge`] beyond the budget, [`Error::Stale`] if the file changed, and errors of reading.
    pub(crate) fn convert(&self, workers: &Workers) -> Result<()> {
        let Format::Csc(m) = &self.opened.format else { return Ok(()) };
        self.file.check_unchanged()?;
        self.rows_of(m, workers).map(drop)
    }

    fn rows_of(&self, m: &CscMatrix, workers: &Workers) -> Result<Arc<RowGroup>> {
        let mut rows = loop {
            match self.columns.rows.try_lock() {
                Ok(rows) => break rows,
                Err(TryLockError::Poisoned(poisoned)) => break poisoned.into_inner(),
                // Another thread converts.
                Err(TryLockError::WouldBlock) if (workers.interrupted)() => return Err(Error::Interrupted),
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        if let Some(rows) = &*rows {
            return Ok(Arc::clone(rows));
        }
        self.columns.done.store(0, Ordering::Relaxed);
        let selection = self.opened.selection.as_ref();
        let made = m.rows(&self.file, selection, self.budget.most(), workers, &self.columns.done)?;
        Ok(Arc::clone(rows.insert(Arc::new(made))))
    }

    /// The cache of decoded rows, if there is one.
    #[must_use]
    pub(crate) fn cache(&self) -> Option<&RowCache> {
        self.cache.as_deref()
    }

    /// First row of each decode unit; `None` if any row can be read by itself.
    #[must_use]
    pub(crate) fn unit_starts(&self) -> Option<Vec<u64>> {
        let mut starts = Vec::new();
        let mut row = 0;
        while row < self.opened.shape[0] {
            starts.push(row);
            row = match &self.opened.format {
                Format::Csr(m) if m.layout().is_filtered() => m.unit_rows(m.unit_of(row)).end,
                Format::Dense(m) if m.layout().is_filtered() => m.unit_rows(m.unit_of(row)).end,
                _ => return None,
            };
        }
        Some(starts)
    }

    /// Rows and columns in the file.
    #[must_use]
    pub fn shape(&self) -> [u64; 2] {
        self.opened.shape
    }

    /// Its file.
    #[must_use]
    pub(crate) fn file(&self) -> &DataFile {
        &self.file
    }

    /// Its place, as the user gave it.
    #[must_use]
    pub fn elem(&self) -> &str {
        &self.opened.elem
    }

    /// `csr`, `csc` or `dense`.
    #[must_use]
    pub fn format(&self) -> &'static str {
        match &self.opened.format {
            Format::Csr(_) => "csr",
            Format::Csc(_) => "csc",
            Format::Dense(_) => "dense",
            Format::Empty(layout) => layout.format(),
        }
    }

    /// The layout of its values.
    #[must_use]
    pub(crate) fn values(&self) -> &crate::layout::ArrayLayout {
        match &self.opened.format {
            Format::Csr(m) => &m.layout().data,
            Format::Csc(m) => &m.layout().data,
            Format::Dense(m) => m.layout(),
            Format::Empty(layout) => layout.values(),
        }
    }

    /// The dtype of batches that only copy stored rows; `None` if rows must be decoded.
    #[must_use]
    pub(crate) fn direct_dtype(&self) -> Option<&'static str> {
        self.direct_layout().map(|(layout, _)| layout.dtype.kind.name())
    }

    /// The layout of rows that batches only copy, and the address of the first.
    fn direct_layout(&self) -> Option<(&crate::layout::ArrayLayout, u64)> {
        match &self.opened.format {
            Format::Dense(m) if self.opened.selection.is_none() => {
                m.direct_address().map(|address| (m.layout(), address))
            }
            _ => None,
        }
    }

    /// `rows` (sorted) for a direct read, if batches only copy them.
    ///
    /// # Errors
    /// [`Error::RowOutOfRange`], and [`Error::Stale`] if the file changed.
    pub(crate) fn direct(&self, rows: &[u64]) -> Result<Option<DirectRows>> {
        let Some((layout, address)) = self.direct_layout() else { return Ok(None) };
        self.check_rows(rows)?;
        self.file.check_unchanged()?;
        let row_bytes = self.opened.shape[1] * layout.dtype.kind.size() as u64;
        Ok(Some(DirectRows {
            file: Arc::clone(&self.file),
            place: Place::new(self.file.path().display().to_string(), layout.name.clone()),
            dtype: layout.dtype,
            n_cols: self.opened.shape[1] as usize,
            addresses: rows.iter().map(|row| address + row * row_bytes).collect(),
        }))
    }

    fn check_rows(&self, rows: &[u64]) -> Result<()> {
        let Some(&row) = rows.last().filter(|&&row| row >= self.opened.shape[0]) else { return Ok(()) };
        let place = Place::new(self.file.path().display().to_string(), self.opened.elem.clone());
        Err(Error::RowOutOfRange { place, row: row as i64, n_rows: self.opened.shape[0] })
    }

    /// Decodes `rows`, which must be sorted and distinct.
    ///
    /// # Errors
    /// [`Error::RowOutOfRange`], [`Error::Stale`] if the file changed, and errors of reading.
    pub fn read(&self, rows: &[u64], workers: &Workers) -> Result<DecodedRows> {
        self.check_rows(rows)?;
        self.file.check_unchanged()?;
        let opened = &*self.opened;
        let selection = opened.selection.as_ref();
        let width = selection.map_or(opened.shape[1] as usize, Selection::width);
        let mut decoded = DecodedRows::new(width);
        // Cached rows are in new memory, without spare room.
        let free_list = self.cache.is_none().then(|| self.free_list());
        if let Some(free_list) = &free_list {
            decoded = decoded.with_free_list(Arc::clone(free_list));
        }
        match &opened.format {
            Format::Csc(m) => {
                let mut decoded = DecodedRows::new(m.width());
                decoded.push_rows(self.rows_of(m, workers)?, rows.iter().map(|&row| row as usize));
                return Ok(decoded);
            }
            Format::Empty(_) => {
                // A matrix without columns: all wanted columns are gaps.
                let (n_cols, kind) = (opened.shape[1] as usize, crate::dtype::Kind::U8);
                decoded.push_group(Arc::new(RowGroup::from_rows(kind, &[], rows.len(), n_cols, selection)));
            }
            Format::Csr(m) => self.read_units(
                &DecodeUnits {
                    unit_of: &|row| m.unit_of(row),
                    unit_rows: &|unit| m.unit_rows(unit),
                    decode: &|rows| m.row_groups(&self.file, rows, selection, free_list.as_deref(), workers),
                    guess_per_row: 16 + m.layout().data.len() / opened.shape[0] * 4,
                },
                rows,
                &mut decoded,
            )?,
            Format::Dense(m) => self.read_units(
                &DecodeUnits {
                    unit_of: &|row| m.unit_of(row),
                    unit_rows: &|unit| m.unit_rows(unit),
                    decode: &|rows| m.row_groups(&self.file, rows, selection, workers),
                    guess_per_row: (width * m.layout().dtype.kind.size()) as u64,
                },
                rows,
                &mut decoded,
            )?,
        }
        Ok(decoded)
    }

    /// The free list that the decoded rows of this matrix share.
    fn free_list(&self) -> Arc<FreeList> {
        let mut shared = self.free_list.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let new = Arc::default();
            *shared = Arc::downgrade(&new);
            new
        })
    }

    fn read_units(&self, units: &DecodeUnits, rows: &[u64], decoded: &mut DecodedRows) -> Result<()> {
        if let Some(cache) = &self.cache {
            return read::read(cache, units, rows, decoded);
        }
        for (_, group) in (units.decode)(rows)? {
            decoded.push_group(Arc::new(group));
        }
        Ok(())
    }
}

impl Opened {
    fn cache(&self, file: &DataFile, budget: &Arc<Budget>) -> Option<Arc<RowCache>> {
        let filtered = match &self.format {
            Format::Csr(m) => m.layout().is_filtered(),
            Format::Dense(m) => m.layout().is_filtered(),
            Format::Csc(_) | Format::Empty(_) => false,
        };
        let key = || CacheKey {
            path: file.path().to_owned(),
            identity: file.identity(),
            elem: self.elem.clone(),
            columns: self.selection.as_ref().map(|s| s.order().collect()),
            counted: self.selection.as_ref().and_then(|s| s.counted().cloned()),
        };
        (filtered && budget.most() > 0).then(|| RowCache::shared(key(), Arc::clone(budget)))
    }
}
