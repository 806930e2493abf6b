//! Where bytes come from: a local file, or whatever else has an identity and gives bytes at an address.

use std::fmt::Debug;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// What tells one file from another: device, inode, size and time of the last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Last modification, in nanoseconds since 1970.
    pub modified_ns: i64,
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

/// Bytes at addresses, of something that can be told from what comes to be there later.
///
/// Many threads read from it at a time.
pub trait ByteSource: Debug + Send + Sync {
    /// Its name in messages.
    fn path(&self) -> &Path;

    /// What it was when it was opened.
    fn identity(&self) -> Identity;

    /// What is there now.
    ///
    /// # Errors
    /// Where nothing is.
    fn identity_now(&self) -> io::Result<Identity>;

    /// Reads from `address` into `buffer` as many bytes as come at once, and says how many; 0 at the end.
    ///
    /// # Errors
    /// As `pread` does; [`io::ErrorKind::Interrupted`] is tried again.
    fn read(&self, buffer: &mut [u8], address: u64) -> io::Result<usize>;

    /// As `read`, of bytes that are at hand: 0 where there are none. `None` where it cannot tell.
    fn read_at_hand(&self, buffer: &mut [u8], address: u64) -> Option<usize>;

    /// Says that `bytes` from `address` on are wanted soon. A hint: nothing depends on it.
    fn advise(&self, address: u64, bytes: u64);
}

/// A file of this machine, or of a mount that looks like one; `pread` shares no cursor.
///
/// Not mmap: a file truncated under a mapping kills the process.
#[derive(Debug)]
pub(crate) struct LocalFile {
    file: File,
    path: PathBuf,
    identity: Identity,
    /// Until the system says that it does not know what is in the page cache, as on most network file systems.
    can_tell: AtomicBool,
}

impl LocalFile {
    /// Opens `path`.
    ///
    /// # Errors
    /// Where the operating system refuses.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        // Before it is opened: opening a pipe waits for a writer.
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is not a regular file"));
        }
        let file = File::open(path)?;
        let identity = Identity::of(&file.metadata()?);
        Ok(Self { file, path: path.to_owned(), identity, can_tell: AtomicBool::new(cfg!(target_os = "linux")) })
    }
}

impl ByteSource for LocalFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn identity(&self) -> Identity {
        self.identity
    }

    fn identity_now(&self) -> io::Result<Identity> {
        std::fs::metadata(&self.path).map(|meta| Identity::of(&meta))
    }

    fn read(&self, buffer: &mut [u8], address: u64) -> io::Result<usize> {
        self.file.read_at(buffer, address)
    }

    fn read_at_hand(&self, buffer: &mut [u8], address: u64) -> Option<usize> {
        if !self.can_tell.load(Ordering::Relaxed) {
            return None;
        }
        #[cfg(target_os = "linux")]
        {
            use rustix::io::{Errno, ReadWriteFlags, preadv2};
            match preadv2(&self.file, &mut [io::IoSliceMut::new(buffer)], address, ReadWriteFlags::NOWAIT) {
                Ok(read) => return Some(read),
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::PERM) => {}
                // Also a failed read, which fails again where it is waited for.
                Err(_) => return Some(0),
            }
        }
        let _ = (buffer, address);
        self.can_tell.store(false, Ordering::Relaxed);
        None
    }

    fn advise(&self, address: u64, bytes: u64) {
        #[cfg(target_os = "linux")]
        let _ =
            rustix::fs::fadvise(&self.file, address, std::num::NonZeroU64::new(bytes), rustix::fs::Advice::WillNeed);
        #[cfg(not(target_os = "linux"))]
        let _ = (address, bytes);
    }
}
