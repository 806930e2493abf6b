//! Work outside the interpreter's lock, and the interpreter's end, which waits for it.
//!
//! While it ends, Python (before 3.14) kills every other thread that asks for the GIL, by unwinding its stack; of a thread
//! in Rust that aborts the process. So the end calls off what is under way and waits for those threads to come back; what
//! begins later keeps the GIL.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use pyo3::prelude::*;

/// How often the end looks whether all are back.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Threads of process [`COUNTED_IN`] that work outside. All three change under the GIL only.
static OUTSIDE: AtomicUsize = AtomicUsize::new(0);
/// A forked process has none of its parent's threads.
static COUNTED_IN: AtomicU32 = AtomicU32::new(0);
/// The process whose interpreter ends; 0 for none.
static ENDING: AtomicU32 = AtomicU32::new(0);

/// Whether the interpreter of this process is about to end, so that long work should be given up.
pub(super) fn is_ending() -> bool {
    let ending = ENDING.load(Ordering::Relaxed);
    ending != 0 && ending == std::process::id()
}

/// Does `work` without the GIL; with it, once the interpreter is about to end.
pub(super) fn outside<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> T {
    if is_ending() {
        return work();
    }
    let _counted = Counted::new();
    py.detach(work)
}

/// Calls off what other threads do outside, and waits for them; called when Python's `atexit` does.
#[pyfunction]
pub(super) fn end(py: Python<'_>) {
    ENDING.store(std::process::id(), Ordering::Relaxed);
    while COUNTED_IN.load(Ordering::Relaxed) == std::process::id() && OUTSIDE.load(Ordering::Relaxed) > 0 {
        py.detach(|| std::thread::sleep(LOOK_EVERY));
    }
}

/// A thread that is outside, made and dropped with the GIL held.
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
        // Of a process that a signal handler forked in the middle of it, it is the parent's.
        if self.process == std::process::id() && self.process == COUNTED_IN.load(Ordering::Relaxed) {
            OUTSIDE.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
