//! The cache of decoded rows: whole decode units (the rows that begin in one chunk, or one row of tiles), up to a budget.
//!
//! `read` reads through the cache; its caller passes the function that decodes rows.
//!
//! Nothing is evicted. Every epoch needs each unit about equally often, and in exact random order each window needs
//! nearly all of them. Such a cyclic scan gives no hits with least-recently-used eviction, but without eviction hits in
//! proportion to the size of the cache.
//!
//! There is one cache per file and element in a process, shared by all datasets on it.

mod budget;
pub(crate) mod read;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};

pub use budget::Budget;

use crate::file::Identity;
use crate::rows::{Counted, RowGroup};

/// The key of a cache: the file, the element, and the columns.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CacheKey {
    /// The file's path (also for links to one inode, because messages name it).
    pub(crate) path: PathBuf,
    /// The file's identity.
    pub(crate) identity: Identity,
    /// The element.
    pub(crate) elem: String,
    /// Wanted columns, `None` for one that is not there; `None` for all.
    pub(crate) columns: Option<Vec<Option<u32>>>,
    /// Which columns count in the totals of rows, where totals are kept.
    pub(crate) counted: Option<Counted>,
}

/// A unit that is held: its rows lie in `group`, the first of them at `base`.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    /// Decoded rows, perhaps of other units too.
    pub(crate) group: Arc<RowGroup>,
    /// Row of the row group that is the unit's first.
    pub(crate) base: usize,
}

#[derive(Debug, Default)]
struct KeptUnits {
    held: HashMap<u64, Held>,
    /// Bytes held and rows they hold, for the estimate of what the next unit takes.
    bytes: u64,
    rows: u64,
}

/// The decoded rows of one matrix.
#[derive(Debug)]
pub(crate) struct RowCache {
    budget: Arc<Budget>,
    units: Mutex<KeptUnits>,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl RowCache {
    /// An empty cache that nothing else uses.
    #[must_use]
    pub(crate) fn alone(budget: Arc<Budget>) -> Arc<Self> {
        let (hits, misses) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { budget, units: Mutex::default(), hits, misses })
    }

    /// The cache of this process for `key`, made if there is none.
    ///
    /// A cache with a budget of its own grows to the largest budget of its datasets.
    #[must_use]
    pub(crate) fn shared(key: CacheKey, budget: Arc<Budget>) -> Arc<Self> {
        let shared = with_caches(|caches| {
            caches.retain(|_, cache| cache.strong_count() > 0);
            if let Some(cache) = caches.get(&key).and_then(Weak::upgrade) {
                cache.budget.grow_to(&budget);
                return cache;
            }
            let cache = Self::alone(Arc::clone(&budget));
            caches.insert(key, Arc::downgrade(&cache));
            cache
        });
        shared.unwrap_or_else(|| Self::alone(budget))
    }

    /// The held rows of each of `units`; counts hits and misses in rows.
    pub(crate) fn look_up(&self, units: impl Iterator<Item = (u64, u64)>) -> Vec<Option<Held>> {
        let all = self.lock();
        let (mut hits, mut misses) = (0, 0);
        let found = units
            .map(|(unit, rows)| {
                let held = all.held.get(&unit).cloned();
                *(if held.is_some() { &mut hits } else { &mut misses }) += rows;
                held
            })
            .collect();
        self.hits.fetch_add(hits, Ordering::Relaxed);
        self.misses.fetch_add(misses, Ordering::Relaxed);
        found
    }

    /// Whether a unit is held; counts nothing.
    pub(crate) fn holds(&self, unit: u64) -> bool {
        self.lock().held.contains_key(&unit)
    }

    /// How many of the units, given by their numbers of rows, are worth decoding whole because they can be kept.
    pub(crate) fn room_for(&self, unit_rows: impl Iterator<Item = u64>, guess_per_row: u64) -> usize {
        let all = self.lock();
        let per_row = if all.rows == 0 { guess_per_row } else { all.bytes.div_ceil(all.rows) };
        drop(all);
        let mut planned = 0u64;
        unit_rows
            .take_while(|rows| {
                planned = planned.saturating_add(rows.saturating_mul(per_row));
                self.budget.is_open(planned)
            })
            .count()
    }

    /// Keeps the units of a row group (unit, base), if the budget allows.
    pub(crate) fn keep(&self, group: &Arc<RowGroup>, units: &[(u64, usize)]) {
        let bytes = group.bytes() as u64;
        let mut all = self.lock();
        // Another thread may have decoded the same rows meanwhile.
        if units.iter().all(|(unit, _)| all.held.contains_key(unit)) || !self.budget.take(bytes) {
            return;
        }
        all.bytes += bytes;
        all.rows += group.n_rows() as u64;
        for &(unit, base) in units {
            all.held.entry(unit).or_insert_with(|| Held { group: Arc::clone(group), base });
        }
    }

    /// Rows found, rows not found, bytes held.
    #[must_use]
    pub(crate) fn stats(&self) -> (u64, u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed), self.lock().bytes)
    }

    fn lock(&self) -> MutexGuard<'_, KeptUnits> {
        self.units.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RowCache {
    fn drop(&mut self) {
        let bytes = self.units.get_mut().unwrap_or_else(PoisonError::into_inner).bytes;
        self.budget.give_back(bytes);
    }
}

/// All caches of a process, and the process they belong to.
#[derive(Default)]
struct Caches {
    pid: u32,
    by_key: HashMap<CacheKey, Weak<RowCache>>,
}

static CACHES: Mutex<Option<Caches>> = Mutex::new(None);

/// Runs `work` on this process's caches; `None` if a thread held the lock when this process was forked.
fn with_caches<R>(work: impl FnOnce(&mut HashMap<CacheKey, Weak<RowCache>>) -> R) -> Option<R> {
    let mut guard = match CACHES.try_lock() {
        Ok(guard) => guard,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return None,
    };
    let pid = std::process::id();
    // Inherited caches of a forked process are not used: their locks may be held by threads that do not exist.
    if guard.as_ref().is_none_or(|caches| caches.pid != pid) {
        *guard = Some(Caches { pid, by_key: HashMap::new() });
    }
    guard.as_mut().map(|caches| work(&mut caches.by_key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Values;

    fn group(bytes: usize) -> Arc<RowGroup> {
        let mut values = Values::with_capacity(bytes);
        values.append(crate::dtype::Kind::U8, &vec![1; bytes]);
        Arc::new(RowGroup::Dense { n_cols: 1, n_rows: bytes, values, totals: crate::rows::Totals::OfValues })
    }

    fn found(cache: &RowCache, unit: u64) -> bool {
        cache.look_up(std::iter::once((unit, 1)))[0].is_some()
    }

    #[test]
    fn what_fits_is_kept_and_the_rest_is_not() {
        let cache = RowCache::alone(Budget::new(250));
        cache.keep(&group(100), &[(0, 0), (1, 50)]);
        cache.keep(&group(100), &[(2, 0)]);
        cache.keep(&group(100), &[(3, 0)]);
        assert_eq!([0, 1, 2, 3].map(|u| found(&cache, u)), [true, true, true, false]);
        assert_eq!(cache.look_up(std::iter::once((1, 1)))[0].as_ref().unwrap().base, 50);
        assert_eq!(cache.stats(), (4, 1, 200));
    }

    #[test]
    fn a_limit_that_is_moved_bounds_what_is_kept_from_then_on() {
        let budget = Budget::movable(1000);
        let cache = RowCache::alone(Arc::clone(&budget));
        cache.keep(&group(100), &[(0, 0)]);
        assert_eq!((found(&cache, 0), budget.limit(), budget.most(), budget.held()), (false, 0, 1000, 0));
        budget.move_limit(150);
        cache.keep(&group(100), &[(0, 0)]);
        cache.keep(&group(100), &[(1, 0)]);
        assert_eq!((found(&cache, 0), found(&cache, 1), budget.held()), (true, false, 100));
        budget.move_limit(0);
        assert!(found(&cache, 0), "what is held stays");
    }

    #[test]
    fn keeping_twice_counts_once() {
        let cache = RowCache::alone(Budget::new(250));
        cache.keep(&group(100), &[(0, 0)]);
        cache.keep(&group(100), &[(0, 0)]);
        assert_eq!(cache.stats().2, 100);
    }

    #[test]
    fn room_is_estimated_from_what_is_held() {
        let cache = RowCache::alone(Budget::new(1000));
        assert_eq!(cache.room_for([10, 10, 10].into_iter(), 40), 2);
        cache.keep(&group(100), &[(0, 0)]);
        assert_eq!(cache.room_for([300, 300, 300, 300].into_iter(), 40), 3);
    }

    #[test]
    fn one_cache_a_key_while_it_is_used_and_its_bytes_come_back() {
        let key = |elem: &str| CacheKey {
            path: "f".into(),
            identity: Identity { device: 1, inode: 2, size: 3, modified_ns: 4 },
            elem: elem.into(),
            columns: None,
            counted: None,
        };
        let budget = Budget::new(500);
        let one = RowCache::shared(key("X"), Arc::clone(&budget));
        assert!(Arc::ptr_eq(&one, &RowCache::shared(key("X"), Arc::clone(&budget))));
        let other = RowCache::shared(key("raw/X"), Arc::clone(&budget));
        assert!(!Arc::ptr_eq(&one, &other));
        one.keep(&group(400), &[(0, 0)]);
        other.keep(&group(400), &[(0, 0)]);
        assert!(!found(&other, 0), "both draw on one budget");
        drop(one);
        other.keep(&group(400), &[(0, 0)]);
        assert!(found(&other, 0), "a dropped cache gives its bytes back");
    }
}
