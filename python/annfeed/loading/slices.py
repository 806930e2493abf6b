"""Batches made in torch worker processes: a worker reads a slice of a window and sends all its batches.

torch delivers slices in the order of the epoch, for any number of workers. Their size is bounded because all batches of
a slice are in shared memory at once.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Generator, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from annfeed.batches.window import batches_of
from annfeed.loading.readahead import check_not_forked
from annfeed.loading.worker_processes import begin_with_workers
from annfeed.memory.transport import sendable
from annfeed.order.windows import Window
from annfeed.process.spawning import ThroughFile
from annfeed.user_warnings import on_behalf_of, users_line

#: Most bytes of batches that a worker sends at once, unless one batch is larger.
SLICE_BYTES = 128 << 20


def slices(window: Window, row_bytes: int) -> Iterator[Window]:
    """Cut a window into runs of whole batches of at most `SLICE_BYTES`.

    Parameters
    ----------
    window
        The window; its batches are not changed.
    row_bytes
        Bytes of a delivered row.

    Examples
    --------
    >>> import numpy as np
    >>> window = Window(0, 0, np.arange(5), np.array([0, 2, 4, 5]))
    >>> [part.batches for part in slices(window, SLICE_BYTES // 4)]
    [[array([0, 1]), array([2, 3])], [array([4])]]
    """
    largest = max((stop - start for start, stop in pairwise(window.offsets.tolist())), default=1)
    step = max(1, SLICE_BYTES // max(1, row_bytes * largest))
    for first in range(0, window.n_batches, step):
        yield window.of_batches(first, min(first + step, window.n_batches))


class Slice(NamedTuple):
    """A task of a worker: batches to make, and their transform."""

    window: Window
    #: Pickled; None if it is the one that the worker has.
    transform: bytes | None
    #: Key of what is drawn in rows; None if nothing is.
    draw_key: int | None


class SliceOrder:
    """The slices of the current epoch, as a sampler.

    Parameters
    ----------
    row_bytes
        Bytes of a delivered row.
    transform
        The pickled transform that workers start with; None if it does not pickle, or for workers of one epoch.
    """

    def __init__(self, row_bytes: int, transform: bytes | None = None) -> None:
        self._row_bytes = row_bytes
        self._first = transform
        self.windows: Iterator[Window] = iter(())
        #: The pickled transform of the epoch.
        self.transform = transform
        #: Key of what is drawn in rows in the epoch.
        self.draw_key: int | None = None

    def __iter__(self) -> Iterator[Slice]:
        # After a first change every slice carries its transform, because torch decides which worker makes it.
        known = self.transform == self._first
        if not known:
            self._first = None
        for window in self.windows:
            for part in slices(window, self._row_bytes):
                yield Slice(part, None if known else self.transform, self.draw_key)


class SliceBatches(ThroughFile, Dataset[Any]):
    """A dataset for workers whose items are lists of all batches of a slice.

    Parameters
    ----------
    rows
        Reads windows, as it is when the workers are started. ``with_transform`` changes its transform.
    make
        Called with ``rows`` and a batch that was read; returns the batch to send.
    transform
        The pickled transform of ``rows``; None as in `SliceOrder`.
    """

    def __init__(self, rows: Any, make: Callable[[Any, Any], Any], transform: bytes | None = None) -> None:
        self._rows = rows
        self._make = make
        self._transform = transform
        self._line = users_line()

    def __getitem__(self, wanted: Slice) -> list[Any]:
        with on_behalf_of(self._line):
            return self._batches(wanted)

    def _batches(self, wanted: Slice) -> list[Any]:
        if wanted.transform is not None and wanted.transform != self._transform:
            self._transform = wanted.transform
            self._rows = self._rows.with_transform(pickle.loads(wanted.transform))
        if wanted.draw_key is not None:
            self._rows.draw_key = wanted.draw_key
        loaded = self._rows.load(wanted.window.positions)
        return [sendable(self._make(self._rows, batch)) for batch in batches_of(wanted.window, loaded)]


def batches_from(workers: DataLoader[Any]) -> Generator[Any]:
    """Yield the batches of an epoch from workers that make `SliceBatches`."""
    # torch draws the workers' base seed on the default device, but the generator is on the CPU.
    with torch.device("cpu"):
        made = begin_with_workers(workers)
    process = os.getpid()
    for batches in made:
        for batch in batches:
            yield batch
            check_not_forked(process)
