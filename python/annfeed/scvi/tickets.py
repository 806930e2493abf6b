"""How torch workers share windows: batch i is made by worker i mod W, of a window of that worker's next batches.

torch hands items to its workers in turn, so that each worker can read what it will be asked for together, while batches
arrive one by one, in the order of the sampler. A ticket says all that a batch needs: should torch hand it to another
worker, it is only slower.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count, islice
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset

from annfeed.arrays import Int64Array
from annfeed.memory.transport import sendable
from annfeed.process.spawning import ThroughFile
from annfeed.scvi.dataset import Batch, LoadedRows, RowSubset

#: Rows that each worker reads first; then twice as many, up to its share of the window.
_FIRST = 512


class Ticket(NamedTuple):
    """One batch: positions ``start`` to ``stop`` of the window ``rows``, which is read once by whoever has ``key``."""

    key: tuple[int, ...]
    rows: Int64Array
    start: int
    stop: int


class Tickets:
    """The tickets of an epoch, as a sampler.

    Parameters
    ----------
    batches
        Positions of each batch, int64.
    window
        Rows that all workers together hold.
    n_workers
        How many they are.

    Examples
    --------
    >>> batches = [np.array([i, i + 10]) for i in range(3)]
    >>> [(t.key[-1], t.rows[t.start : t.stop].tolist()) for t in Tickets(batches, 100, 2)]
    [(0, [0, 10]), (1, [1, 11]), (0, [2, 12])]
    """

    def __init__(self, batches: Iterable[Int64Array], window: int, n_workers: int) -> None:
        self._batches = batches
        self._share = max(window // n_workers, 1)
        self._n_workers = n_workers
        self._n_epochs = 0

    def __iter__(self) -> Iterator[Ticket]:
        """Give the tickets of the next epoch."""
        self._n_epochs += 1
        batches = iter(self._batches)
        for number in count():
            wanted = min(_FIRST << min(number, 40), self._share)
            group = self._group(batches, wanted)
            if not group:
                return
            windows = [group[worker :: self._n_workers] for worker in range(min(self._n_workers, len(group)))]
            rows = [np.concatenate(window) for window in windows]
            ends = [np.cumsum([len(batch) for batch in window]).tolist() for window in windows]
            for place, batch in enumerate(group):
                worker = place % self._n_workers
                stop = ends[worker][place // self._n_workers]
                yield Ticket((self._n_epochs, number, worker), rows[worker], stop - len(batch), stop)

    def _group(self, batches: Iterator[Int64Array], wanted: int) -> list[Int64Array]:
        """As many rounds over the workers as give each about ``wanted`` rows."""
        group: list[Int64Array] = []
        n_rows = 0
        while n_rows < wanted * self._n_workers:
            turn = list(islice(batches, self._n_workers))
            group += turn
            n_rows += sum(map(len, turn))
            if len(turn) < self._n_workers:
                break
        return group


class TicketBatches(ThroughFile, Dataset[Batch]):
    """The dataset of a worker: its items are batches, made of the window that it holds.

    Parameters
    ----------
    rows
        Reads windows.
    """

    def __init__(self, rows: RowSubset) -> None:
        self._rows = rows
        self._key: Any = None
        self._loaded: LoadedRows | None = None

    def __getitem__(self, ticket: Ticket) -> Batch:
        """Return the batch of a ticket."""
        if self._loaded is None or self._key != ticket.key:
            self._loaded = None  # the old window goes before the new one is read
            self._loaded, self._key = self._rows.load(ticket.rows), ticket.key
        return sendable(self._loaded.batch(ticket.start, ticket.stop))
