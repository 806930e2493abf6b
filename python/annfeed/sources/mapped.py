"""The rows of a matrix in another order, zeros where it has none: those of a modality as the cells of a MuData."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from annfeed._core import DecodedRows
from annfeed.arrays import Int64Array
from annfeed.order.auto_blocks import units_of_positions
from annfeed.sources.base import RowSource

#: Row of a cell that is not in the matrix.
ABSENT = -1
_NO_VALUES = np.empty(0, np.uint8)
#: The words for rows that are there, in messages after the words for the matrix.
_THERE = "measured cells"


class Mapped(Protocol):
    """The matrix whose rows they are."""

    @property
    def n_vars(self) -> int:
        """Columns delivered."""

    @property
    def source(self) -> RowSource:
        """Gives its rows."""

    def read(self, rows: Int64Array, threads: int) -> tuple[DecodedRows, Int64Array]:
        """Decode some rows (any order, repeats allowed), each once; return them and the slot of each."""

    def ask(self, rows: Int64Array, threads: int) -> object:
        """Ask for the bytes of rows for a later `read`."""

    def unit_starts(self) -> Int64Array | None:
        """First row of each run that is decoded together; None where any row can be read by itself."""

    def now(self, thorough: bool = True) -> Mapped:
        """Return it with what its AnnData holds now; itself where nothing changed."""


class MappedSource(RowSource):
    """A matrix with its rows in another order.

    Parameters
    ----------
    matrix
        The matrix.
    rows
        Integers ``[n]``: row i is that row of the matrix; `ABSENT`, and it is all zeros.

    Examples
    --------
    >>> import anndata
    >>> from annfeed import AnnDataset
    >>> matrix = AnnDataset(anndata.AnnData(np.eye(2))).reader.first
    >>> MappedSource(matrix, np.array([1, ABSENT, 0])).read(np.array([0, 1]), threads=1).shape
    (2, 2)
    """

    def __init__(self, matrix: Mapped, rows: npt.NDArray[np.signedinteger]) -> None:
        self._matrix = matrix
        self._rows = rows

    @property
    def place(self) -> str:
        return self._matrix.source.place

    @property
    def shape(self) -> tuple[int, int]:
        return len(self._rows), self._matrix.source.shape[1]

    @property
    def is_part(self) -> bool:
        return self._matrix.source.is_part

    def parts(self) -> list[RowSource]:
        return self._matrix.source.parts()

    def keep_totals(self) -> None:
        """From now on, keep what rows sum to over all columns of the matrix."""
        self._matrix.source.keep_totals()

    def read(self, rows: Int64Array, threads: int) -> DecodedRows:
        wanted = self._rows[rows].astype(np.int64, copy=False)
        there = wanted != ABSENT
        n_vars = self._matrix.n_vars
        if there.all():
            return DecodedRows.concat(n_vars, [(*self._matrix.read(wanted, threads), _THERE)])
        nothing = DecodedRows.from_csr(n_vars, np.zeros(2, np.int64), _NO_VALUES, "int32", _NO_VALUES, "uint8")
        parts: list[tuple[DecodedRows, Int64Array | None, str]] = [(nothing, None, _THERE)]
        slots = np.zeros(len(wanted), np.int64)
        if there.any():
            found, at = self._matrix.read(wanted[there], threads)
            parts.append((found, None, _THERE))
            slots[there] = at + 1
        return DecodedRows.concat(n_vars, [(DecodedRows.concat(n_vars, parts), slots, _THERE)])

    def ask(self, rows: Callable[[], Int64Array], threads: int) -> object:
        """Ask for the bytes of the rows that are there."""
        wanted = self._rows[rows()].astype(np.int64, copy=False)
        return self._matrix.ask(wanted[wanted != ABSENT], threads)

    def unit_starts(self) -> Int64Array | None:
        starts = self._matrix.unit_starts()
        if starts is None or len(self._rows) == 0:
            return starts
        # A row that is not there goes with the one before it.
        last = np.maximum.accumulate(np.where(self._rows == ABSENT, 0, np.arange(len(self._rows))))
        return units_of_positions(starts, self._rows[last].astype(np.int64, copy=False))

    def now(self, thorough: bool = True) -> MappedSource:
        now = self._matrix.now(thorough)
        if now is self._matrix:
            return self
        changed = copy.copy(self)
        changed._matrix = now
        return changed

    def stats(self) -> dict[str, int]:
        return self._matrix.source.stats()

    @property
    def is_closed(self) -> bool:
        return self._matrix.source.is_closed

    def close(self) -> None:
        """Close the file of the matrix."""
        self._matrix.source.close()
