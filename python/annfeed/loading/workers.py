"""Batches made in torch worker processes: a worker reads part of a window and sends all its batches.

The parts follow the order of the epoch, and torch delivers them in that order, whatever the number of workers. Their
size is bounded, because all of a part's batches go through shared memory at once.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections.abc import Iterator
from itertools import pairwise
from multiprocessing import process
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakSet, finalize

import torch
from torch.utils.data import DataLoader, Dataset

from annfeed.batches.items import Batch, Collate, Items
from annfeed.batches.keys import IS_PADDING
from annfeed.batches.padding import batches_of
from annfeed.memory.transport import sendable
from annfeed.order.windows import Window
from annfeed.process.spawning import ThroughFile

if TYPE_CHECKING:
    from annfeed.batches.indexed import Reads
    from annfeed.transforms.base import Transform

#: Bytes of batches that a worker sends at once, unless one batch alone is larger.
PART_BYTES = 128 << 20


def parts(window: Window, row_bytes: int) -> Iterator[Window]:
    """Cut a window into runs of whole batches of at most `PART_BYTES`.

    Parameters
    ----------
    window
        Its batches stay as they are.
    row_bytes
        Bytes of a delivered row.

    Examples
    --------
    >>> from annfeed.order.epoch import EpochPlan
    >>> window = EpochPlan(n_rows=5, batch_size=2, window=6, shuffle=False).window_at(0)
    >>> [part.batches for part in parts(window, PART_BYTES // 4)]
    [[array([0, 1]), array([2, 3])], [array([4])]]
    """
    largest = max((stop - start for start, stop in pairwise(window.offsets.tolist())), default=1)
    step = max(1, PART_BYTES // max(1, row_bytes * largest))
    for first in range(0, window.n_batches, step):
        offsets = window.offsets[first : first + step + 1]
        rows = window.rows[offsets[0] : offsets[-1]]
        padding = window.n_padding if window.n_padding is None or first + step >= window.n_batches else 0
        yield Window(window.index, window.first_batch + first, rows, offsets - offsets[0], padding)


class Part(NamedTuple):
    """What a worker is asked for: batches, and the transform to make them with."""

    window: Window
    #: Pickled; None where it is the one that the worker has.
    transform: bytes | None


class PartOrder:
    """The parts of the epoch that workers are at, as a sampler.

    Parameters
    ----------
    row_bytes
        Bytes of a delivered row.
    transform
        The transform that workers begin with, pickled; None if it does not pickle, or workers see one epoch only.
    """

    def __init__(self, row_bytes: int, transform: bytes | None) -> None:
        self._row_bytes = row_bytes
        self._first = transform
        self.windows: Iterator[Window] = iter(())
        #: That of the epoch, pickled.
        self.transform = transform

    def __iter__(self) -> Iterator[Part]:
        # Once it was another, each part says which: who makes a part is for torch to decide.
        known = self.transform == self._first
        if not known:
            self._first = None
        for window in self.windows:
            for part in parts(window, self._row_bytes):
                yield Part(part, None if known else self.transform)


class PartBatches(ThroughFile, Dataset[Any]):
    """A dataset whose items are all batches of a part: what a worker makes.

    Parameters
    ----------
    dataset
        As it is when the workers are made.
    collate_fn
        As torch takes it.
    transform
        The dataset's, pickled; None as in `PartOrder`.
    """

    def __init__(self, dataset: Reads, collate_fn: Any, transform: bytes | None) -> None:
        self._dataset = dataset
        self._collate_fn = collate_fn
        self._transform = transform

    def __getitem__(self, part: Part) -> list[Any]:
        if part.transform is not None and part.transform != self._transform:
            self._transform = part.transform
            self._dataset = self._dataset.with_transform(pickle.loads(part.transform))
        loaded = self._dataset.load(part.window.rows)
        return [sendable(finished(self._dataset, batch, self._collate_fn)) for batch in batches_of(part.window, loaded)]


def packed(transform: Transform | None) -> bytes | None:
    """Return a transform pickled, to be compared with and sent to workers; None if it does not pickle.

    Examples
    --------
    >>> packed(None) == packed(None)
    True
    """
    try:
        return pickle.dumps(transform)
    except Exception:  # whatever its own code raises; forked workers need no pickle
        return None


def finished(dataset: Reads, batch: Batch, collate_fn: Any) -> Any:
    """Return a batch transformed and collated; a user's collate function sees a sequence of items."""
    marks = {key: batch.pop(key) for key in (IS_PADDING,) if key in batch}  # beside whatever a transform makes
    done = {**dataset.finish(batch), **marks}
    return done if isinstance(collate_fn, Collate) else collate_fn(Items(done))


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


def as_made(made: Any) -> Any:
    """Hand on what a worker made; torch's default would turn tuples and arrays of a user's collate_fn into others."""
    return made
