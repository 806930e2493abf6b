"""Batches that say which rows they hold: ``"index"``, beside whatever a transform makes of the rest.

The index is put on after the transform, so that one which makes new dicts does not lose it. Nothing is read here.
"""

from __future__ import annotations

from typing import Any, Protocol, Self

import torch

from annfeed.arrays import Int64Array
from annfeed.batches.items import Batch
from annfeed.batches.keys import INDEX
from annfeed.batches.padding import Loaded, Loads
from annfeed.transforms.base import Transform


class Reads(Loads, Protocol):
    """Rows as an epoch reads them."""

    def finish(self, batch: Batch, /) -> Batch:
        """Apply the transform to a batch as it was read."""

    def with_transform(self, transform: Transform | None, /) -> Self:
        """Return the same with another transform."""

    def pin_batches(self, pinned: bool, /) -> None:
        """Make the next batches in page-locked memory, or no longer."""


class Numbered(Reads, Protocol):
    """Rows as an epoch reads them, which know their numbers."""

    def rows_at(self, positions: Int64Array, /) -> Int64Array:
        """Return the rows of the file at ``positions``: what ``"index"`` is."""


class IndexedDataset:
    """A dataset as the loader reads it, with the index in its batches.

    Parameters
    ----------
    dataset
        Reads and transforms.
    """

    def __init__(self, dataset: Numbered) -> None:
        self._dataset = dataset

    def load(self, positions: Int64Array) -> IndexedWindow:
        """Read the rows at ``positions`` together."""
        return IndexedWindow(self._dataset.load(positions), self._dataset.rows_at(positions))

    def with_transform(self, transform: Transform | None) -> IndexedDataset:
        """Return the same with another transform."""
        return IndexedDataset(self._dataset.with_transform(transform))

    def pin_batches(self, pinned: bool) -> None:
        """Make the next batches in page-locked memory, or no longer."""
        self._dataset.pin_batches(pinned)

    def finish(self, batch: Batch) -> Batch:
        """Apply the transform to the rest of the batch."""
        index = batch.pop(INDEX)
        return {**self._dataset.finish(batch), INDEX: index}


class IndexedWindow:
    """A window's rows, read, and their numbers.

    Parameters
    ----------
    loaded
        The rows.
    rows
        int64, their numbers.
    """

    def __init__(self, loaded: Loaded, rows: Int64Array) -> None:
        self._loaded = loaded
        self._rows = rows

    def batch(self, start: int, stop: int) -> Batch:
        """Return rows ``start`` to ``stop`` of the window as a batch, before any transform."""
        batch: dict[str, Any] = self._loaded.batch(start, stop)
        # A copy: the rows of a window are one array.
        return {**batch, INDEX: torch.from_numpy(self._rows[start:stop].copy())}
