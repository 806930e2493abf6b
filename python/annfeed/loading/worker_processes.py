"""torch's worker processes: how they start, die and end. Their tasks are made in loading/slices.py."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import process
from typing import Any
from weakref import WeakSet, finalize

import torch
from torch.utils.data import DataLoader, Dataset

#: Keywords of torch's DataLoader for worker processes.
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
    """Return a plain torch loader that has the worker processes of ``loader``.

    Parameters
    ----------
    loader
        Its `WORKER_KEYWORDS` are copied.
    items
        Dataset of what the workers make; items are not collated.
    order
        Sampler of ``items``.
    **keywords
        Other keywords of torch's DataLoader.
    """
    own = {name: getattr(loader, name) for name in WORKER_KEYWORDS if hasattr(loader, name)}
    if own["num_workers"]:
        own["worker_init_fn"] = partial(_begin, own["worker_init_fn"])
    return DataLoader(items, batch_size=None, sampler=order, **{**own, "collate_fn": _as_made, **keywords})


def _as_made(made: Any) -> Any:
    """Return an item unchanged; torch's default would convert tuples and arrays of a user's collate_fn."""
    return made


def _begin(users: Callable[[int], None] | None, worker: int) -> None:
    """Run first in a worker: it ends if the process that reads its batches is killed; then run the user's function.

    Forked and spawned workers are children of that process, and torch sees that they lost it. Those of a fork server,
    the default of Linux from Python 3.14 on, are not: they would keep their memory, and the server, for ever.
    """
    reader = process.parent_process()
    if reader is not None and reader.pid != os.getppid():
        threading.Thread(target=_end_after, args=(reader,), name="annfeed-end", daemon=True).start()
    if users is not None:
        users(worker)


def _end_after(reader: process.BaseProcess) -> None:
    reader.join()
    os._exit(1)


#: torch's iterators over workers in this process.
_begun: WeakSet[Any] = WeakSet()


def begin_with_workers(loader: DataLoader[Any]) -> Iterator[Any]:
    """Return torch's iterator over an epoch; if persistent workers died, with new ones, which torch does not start."""
    _watch_workers()
    epoch = getattr(loader, "_iterator", None)  # torch's private attribute
    if epoch is not None and not all(worker.is_alive() for worker in getattr(epoch, "_workers", ())):
        loader._iterator = None
    begun: Iterator[Any] = DataLoader.__iter__(loader)
    if begun not in _begun:
        _keep_queues(begun)
    done = getattr(begun, "_workers_done_event", None)
    # Persistent workers keep the same iterator.
    if done is not None and not isinstance(done, _Ended):
        vars(begun)["_workers_done_event"] = _Ended(done, vars(begun)["_workers"])
    _begun.add(begun)
    return begun


def _watch_workers() -> None:
    """Set torch's handler of SIGCHLD again if it was removed; without it, a dead worker is noticed after 5 s.

    Lightning's Trainer restores the handlers that it found; torch sets its own only once.
    """
    handling: Any = getattr(getattr(torch.utils.data, "_utils", None), "signal_handling", None)  # private to torch
    if (
        getattr(handling, "_SIGCHLD_handler_set", False)
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL
    ):
        handling._SIGCHLD_handler_set = False
        handling._set_SIGCHLD_handler()


def _keep_queues(epoch: Any) -> None:
    """Keep the queues to the workers alive as long as torch's iterator.

    After an error in a worker the iterator is in a reference cycle (error and traceback); Lightning's trainers leave
    loaders in one, too. Python finalizes the queues of a cycle before the iterator, which then cannot tell its workers
    to end and waits five seconds for each.
    """
    finalize(epoch, _let_go, getattr(epoch, "_index_queues", None)).atexit = False


def _let_go(_: Any) -> None:
    """Do nothing: the finalizer that calls this keeps its argument alive."""


class _Ended:
    """The event by which torch tells workers to end, in the process that sets it.

    multiprocessing's event locks a semaphore in ``is_set``. A worker that is killed there leaves it locked, and torch
    would wait for ever in ``set`` (its note on shutdown mentions this).
    """

    def __init__(self, event: Any, workers: list[Any]) -> None:
        self._event = event
        self._workers = workers
        self._was_left_locked = False

    def set(self) -> None:
        """Set the event without notifying waiters: workers only poll it."""
        self._unlock()
        if self._was_left_locked:  # the event's own method would wait for the lock
            self._event._flag.release()
        else:
            self._event.set()

    def is_set(self) -> bool:
        """Whether it is set."""
        self._unlock()
        return bool(self._event.is_set())

    def _unlock(self) -> None:
        lock = getattr(self._event, "_cond", None)  # multiprocessing's private attribute
        if lock is None:
            return
        while not lock.acquire(timeout=0.5):  # a living process holds it for microseconds
            if not all(worker.is_alive() for worker in self._workers):
                self._was_left_locked = True
                break
        lock.release()


def _leave_to_parent() -> None:
    # In a forked process, torch would complain that workers of an iterator are not its children, and multiprocessing
    # would end them when that process ends.
    for iterator in list(_begun):
        iterator._shutdown = True
        for worker in getattr(iterator, "_workers", ()):
            getattr(process, "_children", set()).discard(worker)
    _begun.clear()


os.register_at_fork(after_in_child=_leave_to_parent)
