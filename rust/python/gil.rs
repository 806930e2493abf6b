//! Work without the GIL, and the end of the interpreter, which waits for it.
//!
//! While it ends, Python (before 3.14) kills every other thread that takes the GIL, by unwinding its stack; in a thread
//! that is in Rust this aborts the process. So annfeed stops running work at the end and waits for its threads; work that
//! begins later keeps the GIL.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use pyo3::prelude::*;

/// How often the end checks whether all threads are back.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Threads of process [`COUNTED_IN`] that work without the GIL. All three change only under the GIL.
static OUTSIDE: AtomicUsize = AtomicUsize::new(0);
/// A forked process does not have its parent's threads.
static COUNTED_IN: AtomicU32 = AtomicU32::new(0);
/// The process whose interpreter ends; 0 for none.
static ENDING: AtomicU32 = AtomicU32::new(0);

/// Whether the interpreter of this process is ending, so that long work should stop.
pub(super) fn is_ending() -> bool {
    let ending = ENDING.load(Ordering::Relaxed);
    ending != 0 && ending == std::process::id()
}

/// Does `work` without the GIL, or with it while the interpreter is ending.
pub(super) fn outside<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> T {
    if is_ending() {
        return work();
    }
    let _counted = Counted::new();
    py.detach(work)
}

/// Stops the work of other threads without the GIL, and waits for them; registered with `atexit`.
#[pyfunction]
pub(super) fn end(py: Python<'_>) {
    ENDING.store(std::process::id(), Ordering::Relaxed);
    while COUNTED_IN.load(Ordering::Relaxed) == std::process::id() && OUTSIDE.load(Ordering::Relaxed) > 0 {
        py.detach(|| std::thread::sleep(LOOK_EVERY));
    }
}

/// A thread that works without the GIL; made and dropped with the GIL held.
struct Counted {
    process: u32,
}

impl Counted {
    fn new() -> Self {
        let process = std::process::id();
        if COUNTED_IN.swap(process, Ordering::Relaxed) != process {
            OUTSIDE.store(0, Ordering::Relaxed);
        }
        OUTSIDE.fetch_add(1, Ordering::Relaxed);
        Self { process }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // In a process that a signal handler forked meanwhile, the count belongs to the parent.
        if self.process == std::process::id() && self.process == COUNTED_IN.load(Ordering::Relaxed) {
            OUTSIDE.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
