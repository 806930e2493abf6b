//! Whether reads are waited for: where they are, bytes are worth asking for ahead of decoding.
//!
//! The page cache tells, where the system does (`ByteSource::read_at_hand`); else the clock does.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// What a read of the page cache takes at most: so long, and a nanosecond a byte.
const AT_ONCE: Duration = Duration::from_micros(300);

/// Reads that were waited for, among those of late.
#[derive(Debug)]
pub(super) struct Pace {
    reads: AtomicU32,
    waits: AtomicU32,
    is_slow: AtomicBool,
    /// Whether it was the clock that told: a busy machine makes some reads look slow.
    by_clock: AtomicBool,
}

impl Default for Pace {
    /// Nothing is known yet: to look first costs less than to wait for each read of a first window.
    fn default() -> Self {
        Self {
            reads: AtomicU32::new(0),
            waits: AtomicU32::new(0),
            is_slow: AtomicBool::new(true),
            by_clock: AtomicBool::new(false),
        }
    }
}

impl Pace {
    /// Counts a read whose bytes were at hand, or were not.
    pub(super) fn told(&self, at_hand: bool) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.waits.fetch_add(u32::from(!at_hand), Ordering::Relaxed);
    }

    /// Counts a read of `bytes` that took so long.
    pub(super) fn timed(&self, taken: Duration, bytes: usize) {
        self.by_clock.store(true, Ordering::Relaxed);
        self.told(taken < AT_ONCE + Duration::from_nanos(bytes as u64));
    }

    /// Whether reads are worth asking for ahead, by those since it was asked last.
    pub(super) fn judge(&self) -> bool {
        let (reads, waits) = (self.reads.swap(0, Ordering::Relaxed), self.waits.swap(0, Ordering::Relaxed));
        let share = if self.by_clock.load(Ordering::Relaxed) { 8 } else { 64 };
        if reads > 0 {
            self.is_slow.store(waits.saturating_mul(share) >= reads, Ordering::Relaxed);
        }
        self.is_slow()
    }

    /// What was found when it was asked last.
    pub(super) fn is_slow(&self) -> bool {
        self.is_slow.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_slow_until_reads_are_not_waited_for() {
        let pace = Pace::default();
        assert!(pace.judge(), "nothing is known");
        (0..100).for_each(|_| pace.told(true));
        assert!(!pace.judge());
        assert!(!pace.judge(), "nothing new is known");
        (0..98).for_each(|_| pace.told(true));
        (0..2).for_each(|_| pace.told(false));
        assert!(pace.judge(), "one of fifty had to come from the disk");
    }

    #[test]
    fn the_clock_is_believed_where_it_tells_often() {
        let pace = Pace::default();
        let timed = |slow: u32| {
            (0..100).for_each(|i| pace.timed(Duration::from_micros(if i < slow { 5000 } else { 20 }), 4096));
            pace.judge()
        };
        assert!(!timed(5), "a busy machine");
        assert!(timed(60), "a network");
        assert!(!timed(0));
        pace.timed(Duration::from_millis(2), 4 << 20);
        assert!(!pace.judge(), "many bytes take long wherever they are");
    }
}
