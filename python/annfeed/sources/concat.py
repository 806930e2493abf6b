"""The rows of several matrices, one after the other, as one source: each file is read, the core puts the rows together.

Which of its columns a file has, and where they go, is settled by whoever makes it (inputs/genes.py); which file a
row is in is arithmetic on offsets, so that nothing is held per row. Rows are decoded file by file, also where a dense
matrix alone would be left in its file: files then need not stay open together (``max_open_files``).
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from annfeed._core import Block
from annfeed.arrays import Int64Array
from annfeed.order.blocks import LEAST_ROWS
from annfeed.sources.base import STATS, Source
from annfeed.sources.columns import GAP, Placed
from annfeed.user_arrays import as_text


class Part(Protocol):
    """One of the sources, with the order of its rows."""

    @property
    def elem(self) -> str:
        """Where the matrix lies."""

    @property
    def n_obs(self) -> int:
        """Rows."""

    @property
    def source(self) -> Source:
        """Gives blocks of its rows."""

    @property
    def rows(self) -> Int64Array | None:
        """int64 [n_obs], the source's row of each row; None where they are the same."""

    def unit_starts(self) -> Int64Array | None:
        """First row of each run that is decoded together; None where any row can be read by itself."""

    def now(self, thorough: bool = True) -> Part:
        """Return it with what its AnnData holds now; itself where nothing changed."""


class JoinedSource:
    """Several matrices with their rows one after the other.

    Parameters
    ----------
    parts
        In the order of their rows; each delivers the joined columns, zeros for those that it does not have.
    placed
        For each of them: which of its columns those are.
    n_vars
        Joined columns.

    Examples
    --------
    >>> from annfeed import AnnDataset
    >>> import anndata
    >>> AnnDataset([anndata.AnnData(np.eye(2)), anndata.AnnData(np.eye(2))])[3]["X"]
    tensor([0., 1.])
    """

    def __init__(self, parts: Sequence[Part], placed: Sequence[Placed], n_vars: int) -> None:
        self.matrices = list(parts)
        self.placed = list(placed)
        self.offsets = np.cumsum([0, *(part.n_obs for part in parts)], dtype=np.int64)
        self._n_vars = n_vars

    @property
    def place(self) -> str:
        """How many there are, and the element."""
        return f"{len(self.matrices)} sources: '{self.matrices[0].elem}'"

    @property
    def shape(self) -> tuple[int, int]:
        """All rows, and the joined columns."""
        return int(self.offsets[-1]), self._n_vars

    @property
    def has_gaps(self) -> bool:
        """Whether a matrix lacks a column that others have."""
        return any(placed.has_gaps for placed in self.placed)

    @property
    def is_part(self) -> bool:
        """Whether columns of some matrix are left out."""
        return any(part.source.is_part for part in self.matrices)

    def keep_totals(self) -> None:
        """From now on, keep what rows sum to over all columns of their matrix."""
        for part in self.matrices:
            part.source.keep_totals()

    def var_mask(self) -> npt.NDArray[np.bool_]:
        """Which columns each matrix has: bool ``[matrices, columns]``."""
        mask = np.ones((len(self.matrices), self._n_vars), bool)
        for row, placed in zip(mask, self.placed, strict=True):
            if placed.columns is not None:
                row[:] = placed.columns != GAP
        return mask

    def read(self, rows: Int64Array, threads: int) -> Block:
        """Decode ``rows`` (sorted, distinct), file by file."""
        bounds = np.searchsorted(rows, self.offsets)
        blocks: list[tuple[Block, Int64Array | None, str]] = []
        for i in np.flatnonzero(np.diff(bounds)).tolist():
            part, slots = self.matrices[i], None
            wanted = rows[bounds[i] : bounds[i + 1]] - self.offsets[i]
            if part.rows is not None:  # of a view: in any order, and maybe twice, in what it is a view of
                wanted, slots = np.unique(part.rows[wanted], return_inverse=True)
                slots = slots.astype(np.int64, copy=False)
            place = as_text(os.fsencode(part.source.place))  # the core's text has no bytes that are no UTF-8
            blocks.append((part.source.read(wanted, threads), slots, place))
        return Block.joined(self._n_vars, blocks)

    def unit_starts(self) -> Int64Array | None:
        """First row of each run that is decoded together; None where any row of any file can be read by itself."""
        units = [part.unit_starts() for part in self.matrices]
        if all(starts is None for starts in units):
            return None
        found = []
        for part, starts, offset in zip(self.matrices, units, self.offsets.tolist(), strict=False):
            # Where any row can be read by itself, runs that mix well.
            runs = np.arange(0, part.n_obs, LEAST_ROWS, dtype=np.int64) if starts is None else starts
            found.append(runs + offset)
        return np.concatenate(found)

    def now(self, thorough: bool = True) -> JoinedSource:
        """Return it with what AnnData objects hold now; itself where nothing changed."""
        parts = [part.now(thorough) for part in self.matrices]
        if all(now is before for now, before in zip(parts, self.matrices, strict=True)):
            return self
        joined = copy.copy(self)
        joined.matrices = parts
        return joined

    def stats(self) -> dict[str, int]:
        """What reading did so far in this process, in all files."""
        total = dict.fromkeys(STATS, 0)
        for part in self.matrices:
            for name, count in part.source.stats().items():
                total[name] += count
        return total

    def close(self) -> None:
        """Close all files."""
        for part in self.matrices:
            part.source.close()
