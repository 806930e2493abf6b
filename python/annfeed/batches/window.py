"""A window's rows, read: batches are made of it as often and in whatever order is wanted.

It owns what it needs for that, and is dropped when its last batch is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import torch

from annfeed.arrays import Int64Array
from annfeed.batches.items import Batch
from annfeed.batches.keys import INDEX, IS_PADDING, check_keys
from annfeed.errors import StaleFileError
from annfeed.h5ad.turns import reading
from annfeed.order.windows import Window

#: Key of a batch between `LoadedWindow.batch` and `RowReader.postprocess`, which no transform sees.
ROW_TOTALS = "annfeed: totals of the rows of X"


@dataclass(frozen=True, slots=True)
class WindowRows:
    """The rows of one matrix in a window.

    Parameters
    ----------
    block
        The rows, each once: decoded, or as they are stored; or what has them in memory (``annfeed.scvi`` only).
    slots
        int64, where in it each row of the window is.
    tensor
        Makes a tensor (for scvi-tools: or an array) of the block's rows at some slots.
    """

    block: Any
    slots: Int64Array
    tensor: Callable[[Any, Int64Array], Any]


class LoadedWindow:
    """The rows of one window, decoded.

    Parameters
    ----------
    read
        Reads the rows of each matrix, by key.
    obs
        Gives the obs of rows ``start`` to ``stop`` of the window.
    index
        int64, the rows' numbers, where batches are to say them.
    with_totals
        Whether batches say what the rows of "X" sum to over all genes.
    """

    def __init__(
        self,
        read: Callable[[], dict[str, WindowRows]],
        obs: Callable[[int, int], Batch],
        index: Int64Array | None = None,
        with_totals: bool = False,
    ) -> None:
        self._read = read
        self._obs = obs
        self._index = index
        self._with_totals = with_totals
        self._rows = read()

    @property
    def nbytes(self) -> int:
        """Bytes of decoded rows held."""
        return sum(rows.block.nbytes for rows in self._rows.values())

    def batch(self, start: int, stop: int) -> Batch:
        """Return rows ``start`` to ``stop`` of the window as a batch, before any transform."""
        try:
            return self._batch(start, stop)
        except StaleFileError:
            # Rows left in the file while annfeed itself wrote to it; of any other change the second read tells again.
            with reading():
                self._rows = self._read()
                return self._batch(start, stop)

    def _batch(self, start: int, stop: int) -> Batch:
        batch: dict[str, Any] = {key: r.tensor(r.block, r.slots[start:stop]) for key, r in self._rows.items()}
        obs = self._obs(start, stop)
        check_keys(batch, obs)  # a column may have been added to the obs of an AnnData
        if self._with_totals:
            x: Any = self._rows["X"]
            batch[ROW_TOTALS] = torch.from_numpy(x.block.totals(x.slots[start:stop]))
        batch.update(obs)
        if self._index is not None:
            # A copy: the rows of a window are one array.
            batch[INDEX] = torch.from_numpy(self._index[start:stop].copy())
        return batch


class Loaded(Protocol):
    """The rows of a window, read."""

    def batch(self, start: int, stop: int) -> Batch:
        """Return rows ``start`` to ``stop`` of the window as a batch."""


def batches_of(window: Window, loaded: Loaded) -> Iterator[Batch]:
    """Give the batches of a window, before any transform; with several ranks marked where rows only fill up the last.

    Parameters
    ----------
    window
        Positions and their cut into batches.
    loaded
        The rows at them, read.
    """
    bounds = window.offsets.tolist()
    for start, stop in pairwise(bounds):
        batch = loaded.batch(start, stop)
        if window.n_padding is not None:
            batch[IS_PADDING] = torch.arange(start, stop, device="cpu") >= bounds[-1] - window.n_padding
        yield batch
