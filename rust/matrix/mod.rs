//! Rows of a matrix on disk: sorted rows in, a decoded [`Block`] out. Knows files and threads, not Python.
//!
//! `plan` is arithmetic; `file` reads; `workers` runs jobs; `stream` decodes one-dimensional arrays; `csr`, `csc` and `dense`
//! are the three kinds of matrix, `stored` rows that need no decoding; `cache` keeps decoded rows, `cached` reads through it.

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

use crate::cache::read::{self, Units};
use crate::cache::{Budget, CacheKey, RowCache};
use crate::error::{Error, Place, Result};
use crate::file::DataFile;
use crate::layout::MatrixLayout;
use crate::memory::reserve;
use crate::rows::{Band, Block, Counted, Selection, Spare};
use crate::threads::jobs::Workers;
use csc::CscMatrix;
use csr::CsrMatrix;
use dense::DenseMatrix;
use direct::StoredRows;

/// A matrix in an open file.
#[derive(Debug)]
pub struct Matrix {
    file: Arc<DataFile>,
    found: Arc<Found>,
    /// Only where decoding costs: rows that lie unfiltered in the file are in the page cache already.
    cache: Option<Arc<RowCache>>,
    spare: Mutex<Weak<Spare>>,
    budget: Arc<Budget>,
    columns: Converted,
}

/// The rows of a matrix that is stored by columns, once they were made.
#[derive(Debug, Default)]
struct Converted {
    rows: Mutex<Option<Arc<Band>>>,
    /// Elements read so far.
    done: AtomicU64,
}

impl Converted {
    /// The rows, if they were made and nobody is at it (as a thread may be that a fork left behind).
    fn get(&self) -> Option<Arc<Band>> {
        match self.rows.try_lock() {
            Ok(rows) => rows.clone(),
            Err(_) => None,
        }
    }
}

/// Which columns of a matrix are wanted.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    /// All, as they are.
    All,
    /// These, in this order, [`Selection::GAP`] for one that is not there.
    Columns(&'a [i64]),
    /// These, and beside them what rows sum to.
    ColumnsAndTotals {
        /// As above.
        columns: &'a [i64],
        /// The columns that are added up; `None` for all.
        over: Option<&'a [i64]>,
    },
}

impl Wanted<'_> {
    /// The selection among `n_cols` columns.
    ///
    /// # Errors
    /// The first column that is not there or is asked for twice.
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
    /// Opens the matrix `elem` of the file at `path`, to read the `wanted` columns.
    ///
    /// `budget` bounds what a CSC matrix may take in memory, and what is kept of decoded rows.
    ///
    /// # Errors
    /// See [`crate::h5::open`], [`CsrMatrix::new`], [`CscMatrix::new`]; [`Error::Format`] for columns that are not there.
    pub fn open(path: &Path, elem: &str, wanted: Wanted<'_>, budget: &Arc<Budget>) -> Result<Self> {
        let file = Arc::new(DataFile::open(path)?);
        let layout = crate::h5::open(path, elem)?;
        // Between the two openings the path may have come to name another file.
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
        let kind = match layout {
            layout if shape.contains(&0) => Kind::Empty(layout),
            MatrixLayout::Csr(layout) => Kind::Csr(CsrMatrix::new(&file, layout)?),
            MatrixLayout::Csc(layout) => Kind::Csc(CscMatrix::new(&file, layout, selection.as_ref(), budget.most())?),
            MatrixLayout::Dense(layout) => Kind::Dense(DenseMatrix::new(layout)),
        };
        let found = Arc::new(Found { elem: elem.to_owned(), shape, selection, kind });
        let cache = found.cache(&file, budget);
        let budget = Arc::clone(budget);
        Ok(Self { file, found, cache, spare: Mutex::default(), budget, columns: Converted::default() })
    }

    /// The same matrix through a file descriptor of its own, as a forked process should have. libhdf5 is not needed.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Stale`] where the path names another file now.
    pub fn reopen(&self, budget: &Arc<Budget>) -> Result<Self> {
        self.file.check_unchanged()?;
        let file = Arc::new(DataFile::open(self.file.path())?);
        // The cache of the process that was forked stays untouched: a thread that is not here may hold its lock.
        let cache = self.found.cache(&file, budget);
        let columns = Converted { rows: Mutex::new(self.columns.get()), done: AtomicU64::new(0) };
        let (found, budget) = (Arc::clone(&self.found), Arc::clone(budget));
        Ok(Self { file, found, cache, spare: Mutex::default(), budget, columns })
    }

    /// Elements that the first read turns into rows, and how many of them it has read; `None` where it need not.
    #[must_use]
    pub(crate) fn conversion(&self) -> Option<(u64, u64)> {
        match &self.found.kind {
            Kind::Csc(m) if self.columns.get().is_none() => {
                Some((m.elements(self.found.selection.as_ref()), self.columns.done.load(Ordering::Relaxed)))
            }
            _ => None,
        }
    }

    /// Turns a matrix that is stored by columns into rows, unless that was done; other matrices need nothing.
    ///
    /// # Errors
    /// [`Error::TooLarge`] beyond the budget, [`Error::Stale`] where the file changed, and what the readers give.
    pub(crate) fn convert(&self, workers: &Workers) -> Result<()> {
        let Kind::Csc(m) = &self.found.kind else { return Ok(()) };
        self.file.check_unchanged()?;
        self.rows_of(m, workers).map(drop)
    }

    fn rows_of(&self, m: &CscMatrix, workers: &Workers) -> Result<Arc<Band>> {
        let mut rows = loop {
            match self.columns.rows.try_lock() {
                Ok(rows) => break rows,
                Err(TryLockError::Poisoned(poisoned)) => break poisoned.into_inner(),
                // Another thread is at it.
                Err(TryLockError::WouldBlock) if (workers.interrupted)() => return Err(Error::Interrupted),
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        if let Some(rows) = &*rows {
            return Ok(Arc::clone(rows));
        }
        self.columns.done.store(0, Ordering::Relaxed);
        let selection = self.found.selection.as_ref();
        let made = m.rows(&self.file, selection, self.budget.most(), workers, &self.columns.done)?;
        Ok(Arc::clone(rows.insert(Arc::new(made))))
    }

    /// The cache of decoded rows, where there is one.
    #[must_use]
    pub(crate) fn cache(&self) -> Option<&RowCache> {
        self.cache.as_deref()
    }

    /// First row of each unit: the rows that are decoded together. `None` where any row can be read by itself.
    #[must_use]
    pub(crate) fn unit_starts(&self) -> Option<Vec<u64>> {
        let mut starts = Vec::new();
        let mut row = 0;
        while row < self.found.shape[0] {
            starts.push(row);
            row = match &self.found.kind {
                Kind::Csr(m) if m.layout().is_filtered() => m.unit_rows(m.unit_of(row)).end,
                Kind::Dense(m) if m.layout().is_filtered() => m.unit_rows(m.unit_of(row)).end,
                _ => return None,
            };
        }
        Some(starts)
    }

    /// Rows and columns in the file.
    #[must_use]
    pub fn shape(&self) -> [u64; 2] {
        self.found.shape
    }

    /// The file it lies in.
    #[must_use]
    pub(crate) fn file(&self) -> &DataFile {
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
    pub(crate) fn values(&self) -> &crate::layout::ArrayLayout {
        match &self.found.kind {
            Kind::Csr(m) => &m.layout().data,
            Kind::Csc(m) => &m.layout().data,
            Kind::Dense(m) => m.layout(),
            Kind::Empty(layout) => layout.values(),
        }
    }

    /// The rows as they are stored, where they are stored as a batch of `dtype` wants them; they must be sorted.
    ///
    /// # Errors
    /// [`Error::RowOutOfRange`], and [`Error::Stale`] where the file changed.
    pub(crate) fn stored(&self, rows: &[u64], dtype: &str) -> Result<Option<StoredRows>> {
        let Kind::Dense(m) = &self.found.kind else { return Ok(None) };
        let (layout, selection) = (m.layout(), &self.found.selection);
        let Some(address) = m.stored_at().filter(|_| selection.is_none() && layout.dtype.kind.name() == dtype) else {
            return Ok(None);
        };
        self.check_rows(rows)?;
        self.file.check_unchanged()?;
        let row_bytes = self.found.shape[1] * layout.dtype.kind.size() as u64;
        Ok(Some(StoredRows {
            file: Arc::clone(&self.file),
            place: Place::new(self.file.path().display().to_string(), layout.name.clone()),
            dtype: layout.dtype,
            n_cols: self.found.shape[1] as usize,
            addresses: rows.iter().map(|row| address + row * row_bytes).collect(),
        }))
    }

    fn check_rows(&self, rows: &[u64]) -> Result<()> {
        let Some(&row) = rows.last().filter(|&&row| row >= self.found.shape[0]) else { return Ok(()) };
        let place = Place::new(self.file.path().display().to_string(), self.found.elem.clone());
        Err(Error::RowOutOfRange { place, row: row as i64, n_rows: self.found.shape[0] })
    }

    /// Decodes `rows`, which must be sorted and distinct.
    ///
    /// # Errors
    /// [`Error::RowOutOfRange`], [`Error::Stale`] where the file changed, and what the readers give.
    pub fn read(&self, rows: &[u64], workers: &Workers) -> Result<Block> {
        self.check_rows(rows)?;
        self.file.check_unchanged()?;
        let found = &*self.found;
        let selection = found.selection.as_ref();
        let width = selection.map_or(found.shape[1] as usize, Selection::width);
        let mut block = Block::new(width);
        // What a cache keeps is as narrow and as tight as it can be: fresh memory.
        let spare = self.cache.is_none().then(|| self.spare());
        if let Some(spare) = &spare {
            block = block.with_spare(Arc::clone(spare));
        }
        match &found.kind {
            Kind::Csc(m) => {
                let mut block = Block::new(m.width());
                block.push_rows(self.rows_of(m, workers)?, rows.iter().map(|&row| row as usize));
                return Ok(block);
            }
            Kind::Empty(_) => {
                // Without columns of its own, all that is wanted of it are gaps.
                let (n_cols, kind) = (found.shape[1] as usize, crate::dtype::Kind::U8);
                block.push_band(Arc::new(Band::from_rows(kind, &[], rows.len(), n_cols, selection)));
            }
            Kind::Csr(m) => self.read_units(
                &Units {
                    unit_of: &|row| m.unit_of(row),
                    unit_rows: &|unit| m.unit_rows(unit),
                    decode: &|rows| m.bands(&self.file, rows, selection, spare.as_deref(), workers),
                    guess_per_row: 16 + m.layout().data.len() / found.shape[0] * 4,
                },
                rows,
                &mut block,
            )?,
            Kind::Dense(m) => self.read_units(
                &Units {
                    unit_of: &|row| m.unit_of(row),
                    unit_rows: &|unit| m.unit_rows(unit),
                    decode: &|rows| m.bands(&self.file, rows, selection, workers),
                    guess_per_row: (width * m.layout().dtype.kind.size()) as u64,
                },
                rows,
                &mut block,
            )?,
        }
        Ok(block)
    }

    /// The memory that this matrix's blocks share, while there are any.
    fn spare(&self) -> Arc<Spare> {
        let mut shared = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let new = Arc::default();
            *shared = Arc::downgrade(&new);
            new
        })
    }

    fn read_units(&self, units: &Units, rows: &[u64], block: &mut Block) -> Result<()> {
        if let Some(cache) = &self.cache {
            return read::read(cache, units, rows, block);
        }
        for (_, band) in (units.decode)(rows)? {
            block.push_band(Arc::new(band));
        }
        Ok(())
    }
}

impl Found {
    fn cache(&self, file: &DataFile, budget: &Arc<Budget>) -> Option<Arc<RowCache>> {
        let filtered = match &self.kind {
            Kind::Csr(m) => m.layout().is_filtered(),
            Kind::Dense(m) => m.layout().is_filtered(),
            Kind::Csc(_) | Kind::Empty(_) => false,
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
