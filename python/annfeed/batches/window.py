"""A window's rows, read: batches are made of it as often and in whatever order is wanted.

It does no I/O; it is dropped when its last batch is made.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch

from annfeed._core import StoredRows
from annfeed.arrays import Int64Array
from annfeed.batches.items import Batch
from annfeed.batches.keys import check_keys
from annfeed.errors import StaleFileError
from annfeed.h5ad.turns import reading
from annfeed.sources.base import DecodedRows

Blocks = dict[str, tuple[DecodedRows | StoredRows, Int64Array]]


class MakesBatches(Protocol):
    """A dataset, as its windows know it: dtype, output, obs and the transform are its own."""

    def load_rows(self, rows: Int64Array, /) -> LoadedWindow:
        """Read rows of obs together."""

    def matrix_batch(self, key: str, block: DecodedRows | StoredRows, places: Int64Array, /) -> torch.Tensor:
        """Return rows of a matrix as a tensor."""

    def totals_batch(self, blocks: Blocks, start: int, stop: int, /) -> Batch:
        """Return what the rows sum to, where the transform needs it."""

    def obs_batch(self, rows: Int64Array, /) -> Batch:
        """Return the obs of rows."""


class LoadedWindow:
    """The rows of one window, decoded.

    Parameters
    ----------
    dataset
        Knows dtype, output and obs.
    rows
        int64, rows of obs in the order of delivery.
    blocks
        By key: the rows of each matrix, decoded or as they are stored, and the place in it of each of ``rows``.
    """

    def __init__(self, dataset: MakesBatches, rows: Int64Array, blocks: Blocks) -> None:
        self._dataset = dataset
        self._rows = rows
        self._blocks = blocks

    @property
    def nbytes(self) -> int:
        """Bytes of decoded rows held."""
        return sum(block.nbytes for block, _ in self._blocks.values())

    def batch(self, start: int, stop: int) -> Batch:
        """Return rows ``start`` to ``stop`` of the window as a batch, before any transform."""
        try:
            return self._batch(start, stop)
        except StaleFileError:
            # Rows left in the file while annfeed itself wrote to it; of any other change the second read tells again.
            with reading():
                self._blocks = self._dataset.load_rows(self._rows)._blocks
                return self._batch(start, stop)

    def _batch(self, start: int, stop: int) -> Batch:
        batch: dict[str, Any] = {
            key: self._dataset.matrix_batch(key, block, places[start:stop])
            for key, (block, places) in self._blocks.items()
        }
        totals = self._dataset.totals_batch(self._blocks, start, stop)
        obs = self._dataset.obs_batch(self._rows[start:stop])
        check_keys(batch, obs)  # a column may have been added to the obs of an AnnData
        return {**batch, **totals, **obs}
