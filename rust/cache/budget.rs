//! `Budget`: most bytes of decoded rows that are kept; caches can share one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that may be held, and bytes that are.
#[derive(Debug, Default)]
pub struct Budget {
    limit: AtomicU64,
    held: AtomicU64,
    /// Upper bound of a limit that is moved; `None` for a fixed limit.
    most: Option<u64>,
}

impl Budget {
    /// A budget of `limit` bytes.
    #[must_use]
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit: AtomicU64::new(limit), held: AtomicU64::new(0), most: None })
    }

    /// A budget whose limit begins at 0 and is moved, up to `most`, as other processes leave room.
    #[must_use]
    pub(crate) fn movable(most: u64) -> Arc<Self> {
        Arc::new(Self { limit: AtomicU64::new(0), held: AtomicU64::new(0), most: Some(most) })
    }

    /// Bytes that may be held, now or when the limit is moved.
    #[must_use]
    pub(crate) fn most(&self) -> u64 {
        self.most.unwrap_or_else(|| self.limit())
    }

    /// Bytes that are held.
    #[must_use]
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Sets the limit; rows that are held beyond it stay.
    pub(crate) fn move_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Grows to the limit of `other`, unless one of them is moved from outside.
    pub(super) fn grow_to(&self, other: &Self) {
        if self.most.is_none() && other.most.is_none() {
            self.limit.fetch_max(other.limit(), Ordering::Relaxed);
        }
    }

    /// Bytes that may be held.
    #[must_use]
    pub(crate) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Whether `bytes` more fit; if so they count as held.
    pub(super) fn take(&self, bytes: u64) -> bool {
        let limit = self.limit();
        let fits = |held: u64| held.checked_add(bytes).filter(|&sum| sum <= limit);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    pub(super) fn give_back(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn is_open(&self, bytes: u64) -> bool {
        self.held.load(Ordering::Relaxed).saturating_add(bytes) <= self.limit()
    }
}
