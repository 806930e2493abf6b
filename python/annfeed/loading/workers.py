"""torch's worker processes: a loader of them beside ours, and how they begin, die and end.

What each of them is asked for is decided in `loading/slices.py`.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import process
from typing import Any
from weakref import WeakSet, finalize

import torch
from torch.utils.data import DataLoader, Dataset

#: Keywords of torch's DataLoader that concern worker processes, and go to the loader that has them.
WORKER_KEYWORDS = (
    "num_workers",
    "timeout",
    "worker_init_fn",
    "multiprocessing_context",
    "prefetch_factor",
    "persistent_workers",
    "pin_memory",
    "pin_memory_device",
    "in_order",
)


def worker_loader(loader: DataLoader[Any], items: Dataset[Any], order: Any, **keywords: Any) -> DataLoader[Any]:
    """Return the loader that has the worker processes of ``loader``.

    Parameters
    ----------
    loader
        Its `WORKER_KEYWORDS` are taken over.
    items
        What workers make, and hand on as they made it.
    order
        A sampler of ``items``.
    **keywords
        Other values of torch's keywords.
    """
    own = {name: getattr(loader, name) for name in WORKER_KEYWORDS if hasattr(loader, name)}
    return DataLoader(items, batch_size=None, sampler=order, **{**own, "collate_fn": _as_made, **keywords})


def _as_made(made: Any) -> Any:
    """Hand on what a worker made; torch's default would turn tuples and arrays of a user's collate_fn into others."""
    return made


#: torch's iterators over workers that this process has.
_begun: WeakSet[Any] = WeakSet()


def begin_with_workers(loader: DataLoader[Any]) -> Iterator[Any]:
    """Return torch's iterator over an epoch, of new workers where persistent ones died: torch itself keeps the dead."""
    _watch_workers()
    epoch = getattr(loader, "_iterator", None)  # torch's own place for them
    if epoch is not None and not all(worker.is_alive() for worker in getattr(epoch, "_workers", ())):
        loader._iterator = None
    begun: Iterator[Any] = DataLoader.__iter__(loader)
    if begun not in _begun:
        _keep_queues(begun)
    done = getattr(begun, "_workers_done_event", None)
    # The same iterator comes again where workers persist.
    if done is not None and not isinstance(done, _Ended):
        vars(begun)["_workers_done_event"] = _Ended(done, vars(begun)["_workers"])
    _begun.add(begun)
    return begun


def _watch_workers() -> None:
    """Set torch's handler of SIGCHLD again where somebody took it away: without it, a dead worker is noticed after 5 s.

    A trainer of Lightning puts back the handlers that it found, torch's not among them; torch remembers only that it
    has set its own, once.
    """
    handling: Any = getattr(getattr(torch.utils.data, "_utils", None), "signal_handling", None)  # torch's own place
    if (
        getattr(handling, "_SIGCHLD_handler_set", False)
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL
    ):
        handling._SIGCHLD_handler_set = False
        handling._set_SIGCHLD_handler()


def _keep_queues(epoch: Any) -> None:
    """See to it that the queues to the workers are there as long as torch's iterator is.

    After an error in a worker the iterator is part of a cycle: the error knows the frames that it went through, and one
    of them knows the error. Lightning's trainers leave loaders in one. Python tells the queues of a cycle to close
    before it lets the iterator go, which then cannot tell its workers to end: it would wait five seconds for each.
    """
    finalize(epoch, _let_go, getattr(epoch, "_index_queues", None)).atexit = False


def _let_go(_: Any) -> None:
    """Do nothing: whoever was to call it has held its argument until now."""


class _Ended:
    """The event by which torch tells workers to end, for the process that tells it.

    multiprocessing's own locks a semaphore whenever it is looked at. A worker that is killed while it looks leaves it
    locked, and torch would wait for ever to tell the others (its note on shutdown mentions it).
    """

    def __init__(self, event: Any, workers: list[Any]) -> None:
        self._event = event
        self._workers = workers
        self._was_left_locked = False

    def set(self) -> None:
        """Tell them. Nobody waits for it: workers look at it now and then."""
        self._unlock()
        if self._was_left_locked:  # its own method insists on having locked it alone
            self._event._flag.release()
        else:
            self._event.set()

    def is_set(self) -> bool:
        """Whether they were told."""
        self._unlock()
        return bool(self._event.is_set())

    def _unlock(self) -> None:
        lock = getattr(self._event, "_cond", None)  # multiprocessing's own place for it
        if lock is None:
            return
        while not lock.acquire(timeout=0.5):  # a living process has it for microseconds
            if not all(worker.is_alive() for worker in self._workers):
                self._was_left_locked = True
                break
        lock.release()


def _leave_to_parent() -> None:
    # In a forked process, torch complains that it cannot wait for workers which are not its own when an iterator goes;
    # and multiprocessing ends them when that process ends.
    for iterator in list(_begun):
        iterator._shutdown = True
        for worker in getattr(iterator, "_workers", ()):
            getattr(process, "_children", set()).discard(worker)
    _begun.clear()


os.register_at_fork(after_in_child=_leave_to_parent)
