//! A matrix on disk: sorted rows in, [`DecodedRows`] out; or [`DirectRows`], which need no decoding.
//!
//! `plan` and `row_starts` are arithmetic; `spans` decodes one-dimensional arrays; `csr`, `csc` and `dense` are the formats, two
//! of them by rows (`by_rows`). Opening files, the cache and threads are in rooms below.

pub(crate) mod by_rows;
pub(crate) mod csc;
pub(crate) mod csr;
pub(crate) mod dense;
pub(crate) mod direct;
pub mod plan;
pub(crate) mod row_starts;
pub(crate) mod spans;
mod wanted;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError, Weak};
use std::time::Duration;

use crate::cache::read;
use crate::cache::{Budget, CacheKey, RowCache};
use crate::error::{Error, Place, Result};
use crate::file::{Asked, ByteSource, DataFile};
use crate::layout::MatrixLayout;
use crate::memory::reserve;
use crate::rows::{DecodedRows, FreeList, RowGroup, Selection};
use crate::threads::jobs::Workers;
use by_rows::ByRows;
use csc::CscMatrix;
use csr::CsrMatrix;
use dense::DenseMatrix;
use direct::DirectRows;
pub use wanted::Wanted;

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
    Rows(ByRows),
    Csc(CscMatrix),
    /// No rows or no columns: nothing to read.
    Empty(MatrixLayout),
}

impl Matrix {
    /// Opens the matrix `elem` of the file at `path`, to read the `wanted` columns.
    ///
    /// `budget` bounds what a CSC matrix may take in memory, and what is kept of decoded rows. `io_depth` reads are in flight
    /// where they are waited for; with 0, every thread reads what it decodes.
    ///
    /// # Errors
    /// See [`crate::h5::open`], [`CsrMatrix::new`], [`CscMatrix::new`]; [`Error::Format`] for columns that are not there.
    pub fn open(path: &Path, elem: &str, wanted: Wanted<'_>, budget: &Arc<Budget>, io_depth: usize) -> Result<Self> {
        Self::in_file(DataFile::open(path, io_depth)?, elem, wanted, budget)
    }

    /// As `open`, of the file that `source` reads; its layout is found at its path.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_from(
        source: Box<dyn ByteSource>,
        elem: &str,
        wanted: Wanted<'_>,
        budget: &Arc<Budget>,
        io_depth: usize,
    ) -> Result<Self> {
        Self::in_file(DataFile::of(source, io_depth), elem, wanted, budget)
    }

    fn in_file(file: DataFile, elem: &str, wanted: Wanted<'_>, budget: &Arc<Budget>) -> Result<Self> {
        let file = Arc::new(file);
        let layout = crate::h5::open(&file, elem)?;
        file.count_anew();
        // Between the two openings the path may have come to name another file.
        file.check_unchanged()?;
        let shape = layout.shape();
        let place = Place::new(file.path().display().to_string(), elem);
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
            MatrixLayout::Csr(layout) => Format::Rows(ByRows::Csr(Box::new(CsrMatrix::new(&file, layout)?))),
            MatrixLayout::Csc(layout) => Format::Csc(CscMatrix::new(&file, layout, selection.as_ref(), budget.most())?),
            MatrixLayout::Dense(layout) => Format::Rows(ByRows::Dense(Box::new(DenseMatrix::new(layout)))),
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
        let file = Arc::new(DataFile::open(self.file.path(), self.file.depth())?);
        // The cache of the process that was forked stays untouched: a thread that is not here may hold its lock.
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
        match &self.opened.format {
            Format::Rows(m) => m.unit_starts(self.opened.shape[0]),
            _ => None,
        }
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
            Format::Rows(m) => m.format(),
            Format::Csc(_) => "csc",
            Format::Empty(layout) => layout.format(),
        }
    }

    /// The layout of its values.
    #[must_use]
    pub(crate) fn values(&self) -> &crate::layout::ArrayLayout {
        match &self.opened.format {
            Format::Rows(m) => m.values(),
            Format::Csc(m) => &m.layout().data,
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
            Format::Rows(m) if self.opened.selection.is_none() => {
                m.direct_address().map(|address| (m.values(), address))
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
            Format::Rows(m) => {
                let before = self.file.asked_for(rows);
                let free_list = free_list.as_deref();
                let decode =
                    |rows: &[u64]| m.row_groups(&self.file, rows, before.clone(), selection, free_list, workers);
                match &self.cache {
                    Some(cache) => read::read(cache, &m.units(opened.shape[0], width), &decode, rows, &mut decoded)?,
                    None => decode(rows)?.into_iter().for_each(|(_, group)| decoded.push_group(Arc::new(group))),
                }
            }
        }
        Ok(decoded)
    }

    /// Asks for the bytes of `rows` (sorted and distinct), which so many threads will decode later: by [`Matrix::read`], while
    /// what this gives is held. `None` where reads are not waited for.
    ///
    /// # Errors
    /// [`Error::RowOutOfRange`].
    pub fn ask(&self, rows: &[u64], threads: usize) -> Result<Option<Arc<Asked>>> {
        self.check_rows(rows)?;
        let opened = &*self.opened;
        let Format::Rows(m) = &opened.format else { return Ok(None) };
        let selection = opened.selection.as_ref();
        Ok(self.file.ask(rows, || {
            let extents = |rows: &[u64]| m.extents(rows, selection, threads);
            let width = selection.map_or(opened.shape[1] as usize, Selection::width);
            match &self.cache {
                Some(cache) => {
                    let missing = read::missing(cache, &m.units(opened.shape[0], width), rows);
                    missing.iter().flat_map(|rows| extents(rows)).collect()
                }
                None => extents(rows),
            }
        }))
    }

    /// The free list that the decoded rows of this matrix share, while there are any.
    fn free_list(&self) -> Arc<FreeList> {
        let mut shared = self.free_list.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let new = Arc::default();
            *shared = Arc::downgrade(&new);
            new
        })
    }
}

impl Opened {
    fn cache(&self, file: &DataFile, budget: &Arc<Budget>) -> Option<Arc<RowCache>> {
        let filtered = match &self.format {
            Format::Rows(m) => m.is_filtered(),
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
