"""Reading ahead: the next window is read, and the next batches are made, while the model works on this one.

Two threads, made at the first batch and gone with the last: one reads windows, one makes batches. Both spend their time
in Rust, without the GIL. Transforms are not run here.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from annfeed.collate import Batch
from annfeed.epoch import Window

if TYPE_CHECKING:
    from annfeed.dataset import AnnDataset
    from annfeed.loaded import LoadedWindow

T = TypeVar("T")

#: How often a waiting thread looks whether it is still wanted, in seconds.
_LOOK = 0.05


def read_ahead(dataset: AnnDataset, windows: Iterator[Window], n_batches: int) -> Iterator[Batch]:
    """Give the batches of ``windows``, in order, before any transform.

    Parameters
    ----------
    dataset
        Reads and makes them.
    windows
        Their rows.
    n_batches
        Batches made ahead at most; 0 reads and makes each in the caller's thread when it is asked for.

    Raises
    ------
    Exception
        Whatever reading raises, in the caller's thread, after the batches before it.
    """
    if n_batches == 0:
        yield from _batches(_read(dataset, windows))
        return
    with _Stage(lambda: _read(dataset, windows), 1) as read, _Stage(lambda: _batches(iter(read)), n_batches) as made:
        yield from made


def _read(dataset: AnnDataset, windows: Iterator[Window]) -> Iterator[tuple[Window, LoadedWindow]]:
    for window in windows:
        yield window, dataset.load(window.rows)


def _batches(loaded: Iterator[tuple[Window, LoadedWindow]]) -> Iterator[Batch]:
    for window, rows in loaded:
        bounds = window.offsets.tolist()
        for start, stop in pairwise(bounds):
            yield rows.batch(start, stop)


class _Stage:
    """A thread that runs an iterator ahead of whoever iterates over the stage, by at most ``size`` results.

    The one that is being made counts: with a size of 1, the next is begun when the last was taken, so that no more than
    two windows are in memory.
    """

    def __init__(self, work: Callable[[], Iterator[Any]], size: int) -> None:
        self._work = work
        self._ready: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._room = threading.Semaphore(size)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="annfeed-read-ahead", daemon=True)

    def __enter__(self) -> _Stage:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def __iter__(self) -> Iterator[Any]:
        while True:
            try:
                kind, value = self._ready.get(timeout=_LOOK)
            except queue.Empty:
                if self._stop.is_set():
                    return
                continue
            if kind == "end":
                return
            if kind == "error":
                raise value
            self._room.release()
            yield value

    def _run(self) -> None:
        try:
            results = self._work()
            while self._may_go_on():
                self._ready.put(("result", next(results)))
        except StopIteration:
            self._ready.put(("end", None))
        except BaseException as error:  # it belongs to the consumer, whatever it is
            self._ready.put(("error", error))

    def _may_go_on(self) -> bool:
        """Wait for room; False where the stage was stopped meanwhile."""
        while not self._stop.is_set():
            if self._room.acquire(timeout=_LOOK):
                return not self._stop.is_set()
        return False
