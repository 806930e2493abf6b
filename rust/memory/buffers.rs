//! Recycled memory for batches: a new 15 MB batch costs more in page faults than in writing it.
//!
//! A buffer returns to its pool when its last owner drops it, so a batch that is kept is not overwritten. The most recently
//! freed one is reused first: it may still be in the processor's cache.

use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use memmap2::{MmapMut, MmapRaw};

/// Sizes are rounded up to this, the size of a huge page.
const HUGE_PAGE: usize = 2 << 20;

type Free = Mutex<Vec<MmapRaw>>;

/// Buffers that are not in use.
#[derive(Debug)]
pub(crate) struct BufferPool {
    free: Arc<Free>,
}

impl Default for BufferPool {
    fn default() -> Self {
        Self { free: Arc::new(Mutex::new(Vec::new())) }
    }
}

impl BufferPool {
    /// Unused buffers kept; more than that are given back to the system.
    const MAX_FREE: usize = 16;
    /// How often, and how long, to wait for a buffer in use: less than the page faults of a new one take.
    const LOOKS: usize = 4;
    const MOMENT: Duration = Duration::from_micros(50);

    /// A buffer of at least `bytes` bytes, of unspecified content.
    ///
    /// If two are in use, it waits briefly for one of them: a consumer that has just received a batch drops the one before
    /// within microseconds, and two buffers may fit the processor's cache when three do not.
    ///
    /// # Errors
    /// Where the system has no memory.
    pub(crate) fn take(&self, bytes: usize) -> io::Result<Buffer> {
        let size = bytes.max(1).next_multiple_of(HUGE_PAGE);
        let mut recycled = self.recycled(size);
        for _ in 0..Self::LOOKS {
            if recycled.is_some() || Arc::weak_count(&self.free) < 2 {
                break;
            }
            std::thread::sleep(Self::MOMENT);
            recycled = self.recycled(size);
        }
        let map = match recycled {
            Some(map) => map,
            None => new_map(size)?,
        };
        Ok(Buffer { map: Some(map), pool: Arc::downgrade(&self.free) })
    }

    fn recycled(&self, size: usize) -> Option<MmapRaw> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        // Dense batches of a loader have one size, CSR batches similar sizes.
        free.iter().rposition(|map| (size..=size.saturating_mul(2)).contains(&map.len())).map(|at| free.remove(at))
    }
}

fn new_map(size: usize) -> io::Result<MmapRaw> {
    let map = MmapMut::map_anon(size)?;
    // A hint: without huge pages it is only slower.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    Ok(map.into())
}

/// Memory of a [`BufferPool`]; when dropped, it returns there, or to the system if the pool is gone.
#[derive(Debug)]
pub(crate) struct Buffer {
    map: Option<MmapRaw>,
    pool: Weak<Free>,
}

impl Buffer {
    /// Its first byte.
    #[must_use]
    pub(crate) fn as_mut_ptr(&self) -> *mut u8 {
        self.map.as_ref().map_or(std::ptr::null_mut(), MmapRaw::as_mut_ptr)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let (Some(map), Some(pool)) = (self.map.take(), self.pool.upgrade()) else { return };
        // In a forked process the lock may be held by a thread that does not exist: then the memory is unmapped.
        if let Ok(mut free) = pool.try_lock()
            && free.len() < BufferPool::MAX_FREE
        {
            free.push(map);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_freed_comes_first() {
        let pool = BufferPool::default();
        let (a, b) = (pool.take(10).unwrap(), pool.take(10).unwrap());
        let (at_a, at_b) = (a.as_mut_ptr(), b.as_mut_ptr());
        assert_ne!(at_a, at_b);
        drop(b);
        drop(a);
        assert_eq!(pool.take(HUGE_PAGE).unwrap().as_mut_ptr(), at_a);
    }

    #[test]
    fn a_kept_buffer_is_never_handed_out_again() {
        let pool = BufferPool::default();
        let kept = pool.take(1).unwrap();
        for _ in 0..4 {
            assert_ne!(pool.take(1).unwrap().as_mut_ptr(), kept.as_mut_ptr());
        }
        drop(pool);
        assert_eq!(kept.map.as_ref().unwrap().len(), HUGE_PAGE, "it outlives its pool");
    }
}
