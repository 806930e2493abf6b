"""Batches made in torch worker processes: a worker reads a slice of a window and sends all its batches.

Slices follow the order of the epoch, and torch delivers them in that order, whatever the number of workers. Their size
is bounded, because all batches of a slice go through shared memory at once.
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
from annfeed.loading.workers import begin_with_workers
from annfeed.memory.transport import sendable
from annfeed.order.windows import Window
from annfeed.process.spawning import ThroughFile

#: Bytes of batches that a worker sends at once, unless one batch alone is larger.
SLICE_BYTES = 128 << 20


def slices(window: Window, row_bytes: int) -> Iterator[Window]:
    """Cut a window into runs of whole batches of at most `SLICE_BYTES`.

    Parameters
    ----------
    window
        Its batches stay as they are.
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
    """What a worker is asked for: batches, and the transform to make them with."""

    window: Window
    #: Pickled; None where it is the one that the worker has.
    transform: bytes | None


class SliceOrder:
    """The slices of the epoch that workers are at, as a sampler.

    Parameters
    ----------
    row_bytes
        Bytes of a delivered row.
    transform
        The transform that workers begin with, pickled; None if it does not pickle, or workers see one epoch only.
    """

    def __init__(self, row_bytes: int, transform: bytes | None = None) -> None:
        self._row_bytes = row_bytes
        self._first = transform
        self.windows: Iterator[Window] = iter(())
        #: That of the epoch, pickled.
        self.transform = transform

    def __iter__(self) -> Iterator[Slice]:
        # Once it was another, each slice says which: who makes a slice is for torch to decide.
        known = self.transform == self._first
        if not known:
            self._first = None
        for window in self.windows:
            for part in slices(window, self._row_bytes):
                yield Slice(part, None if known else self.transform)


class SliceBatches(ThroughFile, Dataset[Any]):
    """A dataset whose items are all batches of a slice: what a worker makes.

    Parameters
    ----------
    rows
        Reads windows, as it is when the workers are made. With transforms, its ``with_transform`` takes another one.
    make
        Makes of ``rows`` and a batch as it was read the batch to send.
    transform
        The transform of ``rows``, pickled; None as in `SliceOrder`.
    """

    def __init__(self, rows: Any, make: Callable[[Any, Any], Any], transform: bytes | None = None) -> None:
        self._rows = rows
        self._make = make
        self._transform = transform

    def __getitem__(self, wanted: Slice) -> list[Any]:
        if wanted.transform is not None and wanted.transform != self._transform:
            self._transform = wanted.transform
            self._rows = self._rows.with_transform(pickle.loads(wanted.transform))
        loaded = self._rows.load(wanted.window.positions)
        return [sendable(self._make(self._rows, batch)) for batch in batches_of(wanted.window, loaded)]


def batches_from(workers: DataLoader[Any]) -> Generator[Any]:
    """Give the batches of an epoch from workers that make `SliceBatches`."""
    # torch draws the workers' base seed on the default device; the generator is the CPU's.
    with torch.device("cpu"):
        made = begin_with_workers(workers)
    process = os.getpid()
    for batches in made:
        for batch in batches:
            yield batch
            check_not_forked(process)
