//! `Cancel`, and the ways to stop long work: by it, by Ctrl-C, or at the end of the interpreter.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pyo3::exceptions::PySystemExit;
use pyo3::prelude::*;

use super::errors::to_python;
use super::gil::{is_ending, outside};
use crate::error::{Error, Result};
use crate::threads::jobs::Workers;

/// How often a long read checks for Ctrl-C.
const INTERRUPT_EVERY: Duration = Duration::from_millis(20);

/// Stops reads in threads that receive no signals.
#[pyclass(frozen, module = "annfeed._core")]
#[derive(Default)]
pub(crate) struct Cancel {
    wanted: AtomicBool,
}

#[pymethods]
impl Cancel {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Stops the reads that have this, now and later.
    fn set(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }
}

/// Called now and then while the GIL is held for signals.
pub(super) type Report<'a> = &'a (dyn Fn(Python<'_>) -> PyResult<()> + Sync);

/// Runs `work` without the GIL, checks for Ctrl-C and the end of the interpreter, and turns its error into an exception
/// (at the end of the interpreter one that ends a thread without a message).
pub(super) fn interruptible<R: Send>(
    py: Python<'_>,
    threads: usize,
    cancel: Option<&Cancel>,
    report: Option<Report>,
    work: impl FnOnce(&Workers) -> Result<R> + Send,
) -> PyResult<R> {
    // While the interpreter ends, only the main thread goes on, and nothing waits for it.
    let may_be_called_off = !is_ending();
    let (result, signal) = outside(py, || {
        let last = Cell::new(Instant::now());
        let signal = RefCell::new(None);
        let interrupted = || {
            if cancel.is_some_and(|c| c.wanted.load(Ordering::Relaxed)) {
                return true;
            }
            if may_be_called_off && is_ending() {
                signal.replace(Some(PySystemExit::new_err(())));
                return true;
            }
            if last.get().elapsed() < INTERRUPT_EVERY {
                return false;
            }
            last.set(Instant::now());
            match Python::attach(|py| py.check_signals().and_then(|()| report.map_or(Ok(()), |report| report(py)))) {
                Ok(()) => false,
                Err(error) => {
                    signal.replace(Some(error));
                    true
                }
            }
        };
        let result = work(&Workers { threads: threads.max(1), interrupted: &interrupted });
        (result, signal.into_inner())
    });
    match (result, signal) {
        (Ok(done), None) => Ok(done),
        (_, Some(signal)) => Err(signal),
        (Err(Error::Interrupted), None) => Err(to_python(py, Error::Interrupted)),
        (Err(error), None) => Err(to_python(py, error)),
    }
}
