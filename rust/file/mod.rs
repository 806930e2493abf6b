//! An open file: positioned reads, ahead of decoding where they would be waited for, and the check that it is still the file
//! that was opened.
//!
//! `source` says where bytes come from, `pace` whether they are waited for, `team` reads them, `ahead` knows which window they
//! are for.

mod ahead;
mod pace;
mod reads;
mod source;
mod team;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

pub use ahead::Asked;
pub(crate) use ahead::{Extent, Fetched};
pub(crate) use reads::ReadStats;
pub use source::{ByteSource, Identity};

use crate::error::{Error, Place, Result};
use reads::Reads;
use source::LocalFile;
use team::Team;

/// Reads in flight, unless somebody says otherwise.
pub const DEFAULT_DEPTH: usize = 32;

/// A file open for reading.
#[derive(Debug)]
pub(crate) struct DataFile {
    reads: Arc<Reads>,
    bytes_decoded: AtomicU64,
    /// Reads in flight; 0 for none ahead of decoding.
    depth: usize,
    team: OnceLock<Arc<Team>>,
    waiting: Mutex<ahead::Waiting>,
}

impl DataFile {
    /// Opens the local file at `path`, to have `depth` reads in flight.
    ///
    /// # Errors
    /// [`Error::Io`] where the operating system refuses.
    pub(crate) fn open(path: &Path, depth: usize) -> Result<Self> {
        let source = LocalFile::open(path).map_err(|source| Error::Io {
            file: path.display().to_string(),
            doing: "cannot open the file".into(),
            source,
        })?;
        Ok(Self::of(Box::new(source), depth))
    }

    /// What `source` has.
    #[must_use]
    pub(crate) fn of(source: Box<dyn ByteSource>, depth: usize) -> Self {
        let reads = Arc::new(Reads::new(source));
        Self { reads, bytes_decoded: AtomicU64::new(0), depth, team: OnceLock::new(), waiting: Mutex::default() }
    }

    /// The path it was opened by.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        self.reads.source.path()
    }

    /// Its identity when it was opened.
    #[must_use]
    pub(crate) fn identity(&self) -> Identity {
        self.reads.source.identity()
    }

    /// Reads in flight; 0 for none ahead of decoding.
    #[must_use]
    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    /// Whether reads are waited for, so that bytes are worth asking for ahead.
    #[must_use]
    pub(crate) fn waits(&self) -> bool {
        self.depth > 0 && self.reads.pace.is_slow()
    }

    /// What was read from it so far.
    #[must_use]
    pub(crate) fn read_stats(&self) -> ReadStats {
        self.reads.stats()
    }

    /// Counts from here on: what was looked up to open a file is not its content.
    pub(crate) fn count_anew(&self) {
        self.reads.count_anew();
    }

    /// Bytes that came out of its filters so far.
    #[must_use]
    pub(crate) fn bytes_decoded(&self) -> u64 {
        self.bytes_decoded.load(Ordering::Relaxed)
    }

    /// Counts `bytes` that came out of a filter.
    pub(crate) fn count_decoded(&self, bytes: usize) {
        self.bytes_decoded.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Refuses to go on with a file that was written to, truncated, replaced or removed since.
    ///
    /// # Errors
    /// [`Error::Stale`].
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        let stale = |change: &str| Error::Stale { file: self.path().display().to_string(), change: change.into() };
        let now = self.reads.source.identity_now().map_err(|_| stale("the file was removed or renamed"))?;
        let was = self.identity();
        if now == was {
            Ok(())
        } else if (now.device, now.inode) != (was.device, was.inode) {
            Err(stale("the file was replaced by another one"))
        } else if now.size != was.size {
            Err(stale(&format!("the file went from {} to {} bytes", was.size, now.size)))
        } else {
            Err(stale("the file was written to"))
        }
    }

    /// Tells the system that `bytes` from `address` on are wanted soon. A hint: nothing depends on it.
    pub(crate) fn advise(&self, address: u64, bytes: u64) {
        self.reads.source.advise(address, bytes);
    }

    /// Fills `buffer` from `address`.
    ///
    /// # Errors
    /// [`Error::Io`], naming `place`.
    pub(crate) fn read_at(&self, buffer: &mut [u8], address: u64, place: &Place) -> Result<()> {
        let len = buffer.len();
        self.reads.read_here(buffer, address).map_err(|source| Self::failed(len, address, place, source))
    }

    fn failed(len: usize, address: u64, place: &Place, source: std::io::Error) -> Error {
        let doing = format!("cannot read {len} bytes of '{}' at address {address}", place.object);
        Error::Io { file: place.file.clone(), doing, source }
    }
}
