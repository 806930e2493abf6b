//! An open file: positioned reads that share no cursor, and the check that it is still the file that was opened.
//!
//! `pread` and not mmap: a file truncated under a mapping kills the process.

use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Place, Result};

/// The identity of a file: device, inode, size and modification time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    /// Device number.
    pub(crate) device: u64,
    /// Inode number.
    pub(crate) inode: u64,
    /// Bytes.
    pub(crate) size: u64,
    /// Last modification, in nanoseconds since 1970.
    pub(crate) modified_ns: i64,
}

impl Identity {
    fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified_ns: meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec()),
        }
    }
}

/// A file open for reading.
#[derive(Debug)]
pub(crate) struct DataFile {
    file: File,
    path: PathBuf,
    identity: Identity,
    bytes_read: AtomicU64,
    bytes_decoded: AtomicU64,
}

impl DataFile {
    /// Opens `path`.
    ///
    /// # Errors
    /// [`Error::Io`] where the operating system refuses.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let io = |source| Error::Io { file: path.display().to_string(), doing: "cannot open the file".into(), source };
        // Before opening: to open a pipe would wait for a writer.
        if !std::fs::metadata(path).map_err(io)?.is_file() {
            let error = std::io::Error::new(std::io::ErrorKind::IsADirectory, "it is not a regular file");
            return Err(io(error));
        }
        let file = File::open(path).map_err(io)?;
        let identity = Identity::of(&file.metadata().map_err(io)?);
        Ok(Self {
            file,
            path: path.to_owned(),
            identity,
            bytes_read: AtomicU64::new(0),
            bytes_decoded: AtomicU64::new(0),
        })
    }

    /// The path it was opened by.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its identity when it was opened.
    #[must_use]
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// Bytes read from it so far.
    #[must_use]
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
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

    /// Checks that the file was not written to, truncated, replaced or removed.
    ///
    /// # Errors
    /// [`Error::Stale`].
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        let stale = |change: &str| Error::Stale { file: self.path.display().to_string(), change: change.into() };
        let now = std::fs::metadata(&self.path).map_err(|_| stale("the file was removed or renamed"))?;
        let now = Identity::of(&now);
        let was = self.identity;
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

    /// Asks the system to read `bytes` from `address` on ahead of time; only a hint.
    pub(crate) fn advise(&self, address: u64, bytes: u64) {
        #[cfg(target_os = "linux")]
        let _ =
            rustix::fs::fadvise(&self.file, address, std::num::NonZeroU64::new(bytes), rustix::fs::Advice::WillNeed);
        #[cfg(not(target_os = "linux"))]
        let _ = (address, bytes);
    }

    /// Fills `buffer` from `address`.
    ///
    /// # Errors
    /// [`Error::Io`], naming `place`.
    pub(crate) fn read_at(&self, buffer: &mut [u8], address: u64, place: &Place) -> Result<()> {
        self.file.read_exact_at(buffer, address).map_err(|source| Error::Io {
            file: place.file.clone(),
            doing: format!("cannot read {} bytes of '{}' at address {address}", buffer.len(), place.object),
            source,
        })?;
        self.bytes_read.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}
