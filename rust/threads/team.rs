//! A thread team that stays with its caller, because making a batch takes less time than starting a thread.
//!
//! Each calling thread has its own helpers, from its first shared work until it ends. They join running work; the caller
//! does not wait for a helper that wakes up too late. A thread that makes batches ahead works alone until the
//! consumer waits for its batch ([`follow_demand`]), so that it does not compete with the consumer for cores. After a fork
//! the child has no helpers, and starts its own.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Makes this thread work alone while `awaited` is false. With `None`, the default, its helpers join at once.
pub(crate) fn follow_demand(awaited: Option<Arc<AtomicBool>>) {
    DEMAND.set(awaited);
}

/// Does `work` for all `pieces`, on the calling thread and at most `threads - 1` helpers; the results come in order.
///
/// # Panics
/// Where `work` does.
pub(crate) fn share<P: Send, R: Send>(
    threads: usize,
    pieces: impl ExactSizeIterator<Item = P> + Send,
    work: impl Fn(P) -> R + Sync,
) -> Vec<R> {
    let threads = threads.min(pieces.len());
    if threads <= 1 {
        return pieces.map(work).collect();
    }
    let n_pieces = pieces.len();
    let left = Mutex::new(pieces.enumerate());
    let done = Mutex::new(Vec::with_capacity(n_pieces));
    with_team(threads - 1, |team| {
        team.run(threads - 1, &|| {
            let next = lock(&left).next();
            let Some((i, piece)) = next else { return false };
            let result = work(piece);
            lock(&done).push((i, result));
            true
        });
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Bytes of a piece of rows: large enough to be worth sharing, small enough that threads end at about the same time.
const PIECE_BYTES: usize = 1 << 20;

/// Rows of so many bytes that are one piece.
pub(crate) fn rows_of_piece(row_bytes: usize) -> usize {
    (PIECE_BYTES / row_bytes.max(1)).max(1)
}

/// As [`share`], for the rows at `positions` and their places in `out`, of `row_len` elements each (at least one).
///
/// # Panics
/// Where `work` does.
pub(crate) fn share_rows<T: Send, R: Send>(
    threads: usize,
    positions: &[i64],
    out: &mut [T],
    row_len: usize,
    work: impl Fn(&[i64], &mut [T]) -> R + Sync,
) -> Vec<R> {
    let rows = rows_of_piece(row_len * size_of::<T>());
    share(threads, positions.chunks(rows).zip(out.chunks_mut(rows * row_len)), |(rows, out)| work(rows, out))
}

thread_local! {
    static TEAM: Cell<Option<Team>> = const { Cell::new(None) };
    static DEMAND: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

fn is_demanded() -> bool {
    DEMAND.with_borrow(|awaited| awaited.as_ref().is_none_or(|awaited| awaited.load(Ordering::Relaxed)))
}

/// Runs `work` with the calling thread's team, of at least `n_helpers`.
fn with_team<R>(n_helpers: usize, work: impl FnOnce(&Team) -> R) -> R {
    let team = TEAM.take().filter(|team| team.is_of_this_process() && team.n_helpers >= n_helpers);
    let team = team.unwrap_or_else(|| Team::new(n_helpers));
    let result = work(&team);
    TEAM.set(Some(team));
    result
}

/// Does the next piece of some work; returns false if nothing is left.
type Step<'a> = dyn Fn() -> bool + Sync + 'a;

/// Work that helpers may still join. It lives as long as [`Team::run`], which returns only when no helper is at it.
#[derive(Clone, Copy)]
struct Task(&'static Step<'static>);

#[derive(Default)]
struct TeamState {
    task: Option<Task>,
    /// Number of tasks so far: a helper joins each once.
    n_tasks: u64,
    /// Helpers that may still join the task.
    n_wanted: usize,
    at_work: usize,
    panic: Option<Box<dyn Any + Send>>,
    over: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<TeamState>,
    begun: Condvar,
    left: Condvar,
}

struct Team {
    shared: Arc<Shared>,
    n_helpers: usize,
    process: u32,
}

impl Team {
    fn new(n_helpers: usize) -> Self {
        let shared = Arc::new(Shared::default());
        // If the system cannot start more threads, there are fewer helpers.
        let started = (0..n_helpers).map_while(|_| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name("annfeed-helper".into()).spawn(move || shared.help()).ok()
        });
        let _ = started.count();
        Self { shared, n_helpers, process: std::process::id() }
    }

    fn is_of_this_process(&self) -> bool {
        self.process == std::process::id()
    }

    /// Runs `step` here, and on at most `n_helpers` helpers once the consumer waits; returns when no thread is at it.
    fn run<'a>(&self, n_helpers: usize, step: &'a Step<'a>) {
        /// Removes the task, also after a panic.
        struct Recall<'a>(&'a Shared);
        impl Drop for Recall<'_> {
            fn drop(&mut self) {
                let mut state = lock(&self.0.state);
                state.task = None;
                while state.at_work > 0 {
                    state = self.0.left.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
        while !is_demanded() {
            if !step() {
                return;
            }
        }
        // SAFETY: helpers take a task only from `state`, under its lock, and count themselves in there before they let go of
        // it. `Recall` removes the task and waits until all have counted themselves out, before the borrow ends.
        #[allow(unsafe_code)]
        let unbounded = unsafe { std::mem::transmute::<&'a Step<'a>, &'static Step<'static>>(step) };
        let recall = Recall(&self.shared);
        {
            let mut state = lock(&self.shared.state);
            state.task = Some(Task(unbounded));
            state.n_tasks += 1;
            state.n_wanted = n_helpers;
        }
        self.shared.begun.notify_all();
        while step() {}
        drop(recall);
        if let Some(panic) = lock(&self.shared.state).panic.take() {
            resume_unwind(panic);
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        // In a forked child the lock may be held by a helper that does not exist there.
        if self.is_of_this_process() {
            lock(&self.shared.state).over = true;
            self.shared.begun.notify_all();
        }
    }
}

impl Shared {
    /// The loop of a helper.
    fn help(&self) {
        let mut seen = 0;
        let mut state = lock(&self.state);
        loop {
            match state.task {
                _ if state.over => return,
                Some(Task(step)) if state.n_tasks != seen && state.n_wanted > 0 => {
                    seen = state.n_tasks;
                    state.n_wanted -= 1;
                    state.at_work += 1;
                    drop(state);
                    let result = catch_unwind(AssertUnwindSafe(|| while step() {}));
                    state = lock(&self.state);
                    state.panic = state.panic.take().or(result.err());
                    state.at_work -= 1;
                    self.left.notify_one();
                }
                _ => state = self.begun.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_pieces() {
        for threads in [1, 2, 5] {
            for n in [0u64, 1, 2, 100] {
                let squares = share(threads, 0..n as usize, |i| i * i);
                assert_eq!(squares, (0..n as usize).map(|i| i * i).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn pieces_may_be_parts_of_what_the_caller_has() {
        let mut out = [0usize; 1000];
        share(3, out.chunks_mut(7).enumerate(), |(i, part)| part.fill(i));
        assert!(out.iter().enumerate().all(|(at, &i)| i == at / 7));
    }

    #[test]
    fn the_same_helpers_come_again_and_end_with_the_caller() {
        let seen = Mutex::new(HashSet::new());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..50 {
                    share(2, 0..4, |_| {
                        lock(&seen).insert(std::thread::current().id());
                        std::thread::sleep(Duration::from_micros(200));
                    });
                }
                TEAM.with(|team| {
                    let held = team.take();
                    assert!(held.as_ref().is_some_and(|held| held.n_helpers == 1));
                    team.set(held);
                });
            });
        });
        assert_eq!(lock(&seen).len(), 2);
    }

    #[test]
    fn no_more_helpers_come_than_are_wanted() {
        let who_did = |threads: usize| {
            let done = share(threads, 0..60, |_| {
                std::thread::sleep(Duration::from_micros(300));
                std::thread::current().id()
            });
            done.into_iter().collect::<HashSet<_>>().len()
        };
        assert!(who_did(6) > 2);
        assert_eq!(who_did(2), 2);
    }

    #[test]
    fn helpers_come_when_the_work_is_waited_for() {
        let awaited = Arc::new(AtomicBool::new(false));
        let who_did = |from: usize| {
            let done = share(2, 0..40, |i| {
                awaited.store(i >= from, Ordering::Relaxed);
                std::thread::sleep(Duration::from_micros(300));
                std::thread::current().id()
            });
            done.into_iter().collect::<HashSet<_>>().len()
        };
        follow_demand(Some(Arc::clone(&awaited)));
        assert_eq!(who_did(40), 1);
        awaited.store(false, Ordering::Relaxed);
        assert_eq!(who_did(5), 2);
        follow_demand(None);
        assert_eq!(who_did(40), 2);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_next_work_is_done() {
        for bad in 0..20 {
            let failed = catch_unwind(AssertUnwindSafe(|| share(2, 0..20, |i| assert_ne!(i, bad))));
            assert!(failed.is_err());
            let done = AtomicUsize::new(0);
            share(2, 0..20, |_| done.fetch_add(1, Ordering::Relaxed));
            assert_eq!(done.load(Ordering::Relaxed), 20);
        }
    }
}
