//! Jobs over scoped threads, for windows: no thread outlives a call.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::error::{Error, Result};
use crate::filters::{Decoder, Encoder};

/// Memory and (de)compressors that a thread uses for all of its jobs.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Decompressors.
    pub(crate) decoder: Decoder,
    /// Compressors.
    pub(crate) encoder: Encoder,
    /// Bytes as stored.
    pub(crate) stored: Vec<u8>,
    /// One decoded chunk.
    pub(crate) chunk: Vec<u8>,
    /// The same for a second chunk that is decoded together with the first.
    pub(crate) second: (Vec<u8>, Vec<u8>),
    /// Rows put together from tiles.
    pub(crate) rows: Vec<u8>,
}

/// The threads of a call, and its check for interrupts.
#[derive(Clone, Copy)]
pub struct Workers<'a> {
    /// Threads, the calling one included.
    pub threads: usize,
    /// Whether to stop; called before the first job and between jobs, only on the calling thread.
    pub interrupted: &'a dyn Fn() -> bool,
}

impl Workers<'_> {
    /// Does all jobs and returns their results in order.
    ///
    /// The calling thread works too. After the first error no new job is begun.
    ///
    /// # Errors
    /// The error of the first job that failed (by number), or [`Error::Interrupted`].
    pub(crate) fn run<J: Sync, R: Send>(
        &self,
        jobs: &[J],
        work: impl Fn(&mut Scratch, &J) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        // Also here: the other threads may do all jobs before this one does any.
        let mut interrupted = (self.interrupted)();
        let next = AtomicUsize::new(0);
        let stop = AtomicBool::new(interrupted);
        let results: Vec<Mutex<Option<Result<R>>>> = jobs.iter().map(|_| Mutex::new(None)).collect();
        let do_next = |scratch: &mut Scratch| -> bool {
            if stop.load(Ordering::Relaxed) {
                return false;
            }
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(i) else { return false };
            let result = work(scratch, job);
            if result.is_err() {
                stop.store(true, Ordering::Relaxed);
            }
            *results[i].lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(result);
            true
        };
        std::thread::scope(|scope| {
            for _ in 1..self.threads.min(jobs.len()) {
                scope.spawn(|| {
                    let mut scratch = Scratch::default();
                    while do_next(&mut scratch) {}
                });
            }
            let mut scratch = Scratch::default();
            while do_next(&mut scratch) {
                if (self.interrupted)() {
                    interrupted = true;
                    stop.store(true, Ordering::Relaxed);
                }
            }
        });
        if interrupted {
            return Err(Error::Interrupted);
        }
        let mut done = Vec::with_capacity(jobs.len());
        for result in results {
            // A job without a result was not begun, because a later job failed: find that error.
            if let Some(result) = result.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
                done.push(result?);
            }
        }
        if done.len() == jobs.len() { Ok(done) } else { Err(Error::Interrupted) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_jobs() {
        for threads in [1, 2, 5] {
            let jobs: Vec<u64> = (0..100).collect();
            let workers = Workers { threads, interrupted: &|| false };
            assert_eq!(workers.run(&jobs, |_, &j| Ok(j * j)).unwrap(), jobs.iter().map(|j| j * j).collect::<Vec<_>>());
        }
        assert!(Workers { threads: 1, interrupted: &|| false }.run(&[0u8; 0], |_, _| Ok(())).unwrap().is_empty());
    }

    #[test]
    fn an_error_reaches_the_caller_and_ends_the_work() {
        let begun = AtomicUsize::new(0);
        let jobs: Vec<usize> = (0..10_000).collect();
        let workers = Workers { threads: 2, interrupted: &|| false };
        let failed = workers.run(&jobs, |_, &j| {
            begun.fetch_add(1, Ordering::Relaxed);
            if j == 7 { Err(Error::Stale { file: "f".into(), change: "job 7".into() }) } else { Ok(()) }
        });
        assert!(matches!(failed, Err(Error::Stale { change, .. }) if change == "job 7"));
        assert!(begun.load(Ordering::Relaxed) < 10_000);
    }

    #[test]
    fn an_interrupt_ends_the_work() {
        // Miri takes 5 seconds for 16,000, and did not end in 5 minutes with 32,000.
        const N_JOBS: usize = if cfg!(miri) { 2_000 } else { 100_000 };
        let begun = AtomicUsize::new(0);
        let workers = Workers { threads: 2, interrupted: &|| begun.load(Ordering::Relaxed) > 10 };
        let result = workers.run(&[(); N_JOBS], |_, ()| {
            // On a busy machine the calling thread, which asks, may wait long for its turn.
            if begun.fetch_add(1, Ordering::Relaxed) > 10 {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            Ok(())
        });
        assert!(matches!(result, Err(Error::Interrupted)));
        assert!(begun.load(Ordering::Relaxed) < N_JOBS);
    }

    #[test]
    fn an_interrupt_that_is_there_before_the_work_lets_none_begin() {
        let begun = AtomicUsize::new(0);
        let workers = Workers { threads: 2, interrupted: &|| true };
        let result = workers.run(&[(); 2], |_, ()| {
            begun.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
        assert!(matches!(result, Err(Error::Interrupted)));
        assert_eq!(begun.load(Ordering::Relaxed), 0);
    }
}
