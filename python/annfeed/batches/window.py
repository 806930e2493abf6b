"""`LoadedWindow`: the decoded rows of a window, from which its batches are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import torch

from annfeed.arrays import Int64Array
from annfeed.batches.items import Batch
from annfeed.batches.keys import INDEX, IS_PADDING, check_keys
from annfeed.batches.sets import SETS, marks_of
from annfeed.errors import StaleFileError
from annfeed.h5ad.turns import reading
from annfeed.order.windows import Window

#: Key of row totals in a batch between `LoadedWindow.batch` and `RowReader.postprocess`; transforms do not see it.
ROW_TOTALS = "annfeed: totals of the rows of X"


@dataclass(frozen=True, slots=True)
class WindowRows:
    """The rows of one matrix in a window."""

    #: The rows, each once: decoded, or left in the file, or (in ``annfeed.scvi``) a matrix in memory.
    block: Any
    #: The slot in ``block`` of each row of the window.
    slots: Int64Array
    #: Makes a tensor (for scvi-tools also an array) of the rows at some slots of ``block``.
    tensor: Callable[[Any, Int64Array], Any]

    def entries(self, key: str, start: int, stop: int) -> Batch:
        """Return rows ``start`` to ``stop`` of the window, as a batch has the matrix of this key."""
        return {key: self.tensor(self.block, self.slots[start:stop])}


@dataclass(frozen=True, slots=True)
class TokenRows:
    """The rows of a matrix that becomes tokens, in a window."""

    #: The decoded rows, each once.
    block: Any
    #: The slot in ``block`` of each row of the window, and its number in the data.
    slots: Int64Array
    rows: Int64Array
    #: Makes the tokens of some slots and rows.
    tokens: Callable[[Any, Int64Array, Int64Array], Batch]

    def entries(self, key: str, start: int, stop: int) -> Batch:
        """Return the tokens of rows ``start`` to ``stop`` of the window."""
        return self.tokens(self.block, self.slots[start:stop], self.rows[start:stop])


class LoadedWindow:
    """The decoded rows of one window.

    ``read`` reads the rows of each matrix by key, ``obs`` returns obs columns of rows ``start`` to ``stop``. Batches
    have ``"index"`` if there is an ``index``, and ``with_totals`` the sums of the rows of "X" over all genes.
    """

    def __init__(
        self,
        read: Callable[[], Mapping[str, WindowRows | TokenRows]],
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
        """Bytes of the decoded rows."""
        return sum(rows.block.nbytes for rows in self._rows.values())

    def batch(self, start: int, stop: int) -> Batch:
        """Return rows ``start`` to ``stop`` of the window as a batch, before any transform."""
        try:
            return self._batch(start, stop)
        except StaleFileError:
            # Rows were left in the file, and annfeed wrote to it: read again. After any other change this raises.
            with reading():
                self._rows = self._read()
                return self._batch(start, stop)

    def _batch(self, start: int, stop: int) -> Batch:
        batch: dict[str, Any] = {}
        for key, rows in self._rows.items():
            batch |= rows.entries(key, start, stop)
        obs = self._obs(start, stop)
        check_keys(batch, obs)  # the obs of an AnnData may have a new column
        if self._with_totals:
            x: Any = self._rows["X"]
            batch[ROW_TOTALS] = torch.as_tensor(x.block.totals(x.slots[start:stop]))
        batch.update(obs)
        if self._index is not None:
            # A copy, because the rows of a window are one array.
            batch[INDEX] = torch.from_numpy(self._index[start:stop].copy())
        return batch


class Loaded(Protocol):
    """The rows of a window that was read."""

    def batch(self, start: int, stop: int) -> Batch:
        """Return rows ``start`` to ``stop`` of the window as a batch."""


def batches_of(window: Window, loaded: Loaded) -> Iterator[Batch]:
    """Yield the batches of a window, before any transform; with several ranks they have ``"is_padding"``."""
    bounds = window.offsets.tolist()
    if window.sets is not None:
        for (start, stop), sets in zip(pairwise(bounds), marks_of(window.sets, bounds), strict=True):
            yield {**loaded.batch(start, stop), SETS: sets}
        return
    for start, stop in pairwise(bounds):
        batch = loaded.batch(start, stop)
        if window.n_padding is not None:
            batch[IS_PADDING] = torch.arange(start, stop, device="cpu") >= bounds[-1] - window.n_padding
        yield batch
