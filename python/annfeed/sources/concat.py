"""The rows of several matrices, one after the other, as one source: each file is read, the core puts the rows together.

Which of its columns a file has, and where they go, is decided before, in inputs/genes.py; which file a
row is in is arithmetic on offsets, so that nothing is held per row. Rows are decoded file by file, also where a dense
matrix alone would be left in its file: files then need not stay open together (``max_open_files``).
"""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from annfeed._core import DecodedRows
from annfeed.arrays import Int64Array, digest_of
from annfeed.order.auto_blocks import LEAST_ROWS
from annfeed.sources.base import RowSource, sum_stats
from annfeed.sources.columns import MISSING, ColumnMap
from annfeed.user_arrays import as_text

_NO_ROWS: Int64Array = np.empty(0, np.int64)


class Member(Protocol):
    """One of the matrices, with the order of its rows."""

    @property
    def elem(self) -> str:
        """Where the matrix lies."""

    @property
    def n_obs(self) -> int:
        """Rows."""

    @property
    def source(self) -> RowSource:
        """Gives its rows."""

    @property
    def rows(self) -> Int64Array | None:
        """int64 [n_obs], the source's row of each row; None where they are the same."""

    def unit_starts(self) -> Int64Array | None:
        """First row of each run that is decoded together; None where any row can be read by itself."""

    def now(self, thorough: bool = True) -> Member:
        """Return it with what its AnnData holds now; itself where nothing changed."""


class ConcatSource(RowSource):
    """Several matrices with their rows one after the other.

    Parameters
    ----------
    matrices
        In the order of their rows; each delivers the joined columns, zeros for those that it does not have.
    column_maps
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

    def __init__(self, matrices: Sequence[Member], column_maps: Sequence[ColumnMap], n_vars: int) -> None:
        self.matrices = list(matrices)
        self.column_maps = list(column_maps)
        self.offsets = np.cumsum([0, *(matrix.n_obs for matrix in matrices)], dtype=np.int64)
        self._n_vars = n_vars

    @property
    def place(self) -> str:
        return f"{len(self.matrices)} sources: '{self.matrices[0].elem}'"

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.offsets[-1]), self._n_vars

    @property
    def has_gaps(self) -> bool:
        """Whether a matrix lacks a column that others have."""
        return any(columns.has_gaps for columns in self.column_maps)

    @property
    def is_part(self) -> bool:
        return any(matrix.source.is_part for matrix in self.matrices)

    def located(self, row: int) -> tuple[str, int]:
        """Return the place of the matrix that has a row, and the row's number in it."""
        number = int(np.searchsorted(self.offsets, row, side="right")) - 1
        return self.matrices[number].source.place, row - int(self.offsets[number])

    def digest(self, paths: Sequence[str]) -> str:
        """Return a digest of the names of ``paths`` and of their first rows."""
        starts = self.offsets[:-1].tolist()
        return digest_of(np.array([f"{os.path.basename(p)} {n}" for p, n in zip(paths, starts, strict=True)]))

    def parts(self) -> list[RowSource]:
        return [part for matrix in self.matrices for part in matrix.source.parts()]

    def keep_totals(self) -> None:
        """From now on, keep what rows sum to over all columns of their matrix."""
        for matrix in self.matrices:
            matrix.source.keep_totals()

    def var_mask(self) -> npt.NDArray[np.bool_]:
        """Which columns each matrix has: bool ``[matrices, columns]``."""
        mask = np.ones((len(self.matrices), self._n_vars), bool)
        for row, there in zip(mask, self.column_maps, strict=True):
            if there.columns is not None:
                row[:] = there.columns != MISSING
        return mask

    def read(self, rows: Int64Array, threads: int) -> DecodedRows:
        found: list[tuple[DecodedRows, Int64Array | None, str]] = []
        for i, wanted, slots in self._by_part(rows):
            source = self.matrices[i].source
            place = as_text(os.fsencode(source.place))  # the core's text has no bytes that are no UTF-8
            found.append((source.read(wanted, threads), slots, place))
        return DecodedRows.concat(self._n_vars, found)

    def ask(self, rows: Callable[[], Int64Array], threads: int) -> object:
        """Ask for the bytes of rows of the files that are open and slow."""
        wanted = functools.cache(lambda: {i: of_part for i, of_part, _ in self._by_part(rows())})

        def of(i: int) -> Callable[[], Int64Array]:
            return lambda: wanted().get(i, _NO_ROWS)

        return [part.source.ask(of(i), threads) for i, part in enumerate(self.matrices)]

    def _by_part(self, rows: Int64Array) -> Iterator[tuple[int, Int64Array, Int64Array | None]]:
        """The rows that are wanted of each part, by number, and, where it is a view, the slot of each among them."""
        bounds = np.searchsorted(rows, self.offsets)
        for i in np.flatnonzero(np.diff(bounds)).tolist():
            slots = None
            wanted = rows[bounds[i] : bounds[i + 1]] - self.offsets[i]
            of_view = self.matrices[i].rows
            if of_view is not None:  # in any order, and maybe twice, in what it is a view of
                wanted, slots = np.unique(of_view[wanted], return_inverse=True)
                slots = slots.astype(np.int64, copy=False)
            yield i, wanted, slots

    def unit_starts(self) -> Int64Array | None:
        units = [matrix.unit_starts() for matrix in self.matrices]
        if all(starts is None for starts in units):
            return None
        found = []
        for matrix, starts, offset in zip(self.matrices, units, self.offsets.tolist(), strict=False):
            # Where any row can be read by itself, runs that mix well.
            runs = np.arange(0, matrix.n_obs, LEAST_ROWS, dtype=np.int64) if starts is None else starts
            found.append(runs + offset)
        return np.concatenate(found)

    def now(self, thorough: bool = True) -> ConcatSource:
        now = [matrix.now(thorough) for matrix in self.matrices]
        if all(matrix is before for matrix, before in zip(now, self.matrices, strict=True)):
            return self
        changed = copy.copy(self)
        changed.matrices = now
        return changed

    def stats(self) -> dict[str, int]:
        return sum_stats(matrix.source for matrix in self.matrices)

    @property
    def is_closed(self) -> bool:
        return any(matrix.source.is_closed for matrix in self.matrices)

    def close(self) -> None:
        """Close all files."""
        for matrix in self.matrices:
            matrix.source.close()
