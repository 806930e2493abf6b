"""The rows of several matrices, one after the other, as one source: each file is read, batches put its rows together.

Which of its columns a file has, and where they go, is settled by whoever makes it (inputs/genes.py); which file a
row is in is arithmetic on offsets, so that nothing is held per row.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from annfeed._core import Block, RowOps
from annfeed.arrays import Int64Array
from annfeed.order.blocks import LEAST_ROWS
from annfeed.sources.base import STATS, DecodedRows, Lost, Source
from annfeed.sources.columns import GAP, Placed


class SourceRows(Protocol):
    """The rows of one source, in the order of its obs."""

    @property
    def elem(self) -> str:
        """Where the matrix lies."""

    @property
    def n_obs(self) -> int:
        """Rows."""

    @property
    def source(self) -> Source:
        """Gives blocks of its rows."""

    def read(self, rows: Int64Array, threads: int) -> tuple[DecodedRows, Int64Array]:
        """Decode ``rows`` (any order, repeats allowed), each once; also give the place of each in the block."""

    def unit_starts(self) -> Int64Array | None:
        """First row of each run that is decoded together; None where any row can be read by itself."""

    def now(self, thorough: bool = True) -> SourceRows:
        """Return it with what its AnnData holds now; itself where nothing changed."""


class JoinedSource:
    """Several matrices with their rows one after the other.

    Parameters
    ----------
    matrices
        In the order of their rows; each delivers the joined columns, zeros for those that it does not have.
    placed
        For each matrix: which of its columns those are.
    n_vars
        Joined columns.

    Examples
    --------
    >>> from annfeed import AnnDataset
    >>> import anndata
    >>> AnnDataset([anndata.AnnData(np.eye(2)), anndata.AnnData(np.eye(2))])[3]["X"]
    tensor([0., 1.])
    """

    def __init__(self, matrices: Sequence[SourceRows], placed: Sequence[Placed], n_vars: int) -> None:
        self.matrices = list(matrices)
        self.placed = list(placed)
        self.offsets = np.cumsum([0, *(matrix.n_obs for matrix in matrices)], dtype=np.int64)
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
        return any(matrix.source.is_part for matrix in self.matrices)

    def keep_totals(self) -> None:
        """From now on, keep what rows sum to over all columns of their matrix."""
        for matrix in self.matrices:
            matrix.source.keep_totals()

    def var_mask(self) -> npt.NDArray[np.bool_]:
        """Which columns each matrix has: bool ``[matrices, columns]``."""
        mask = np.ones((len(self.matrices), self._n_vars), bool)
        for row, placed in zip(mask, self.placed, strict=True):
            if placed.columns is not None:
                row[:] = placed.columns != GAP
        return mask

    def read(self, rows: Int64Array, threads: int) -> DecodedRows:
        """Decode ``rows`` (sorted, distinct), file by file."""
        bounds = np.searchsorted(rows, self.offsets)
        pieces = []
        for i in np.flatnonzero(np.diff(bounds)).tolist():
            matrix = self.matrices[i]
            block, positions = matrix.read(rows[bounds[i] : bounds[i + 1]] - self.offsets[i], threads)
            # What a file or a matrix in memory gives is a block of the core.
            pieces.append(_Piece(matrix.source.place, cast(Block, block), positions))
        return JoinedBlock(self._n_vars, pieces)

    def unit_starts(self) -> Int64Array | None:
        """First row of each run that is decoded together; None where any row of any file can be read by itself."""
        units = [matrix.unit_starts() for matrix in self.matrices]
        if all(starts is None for starts in units):
            return None
        found = []
        for matrix, starts, offset in zip(self.matrices, units, self.offsets.tolist(), strict=False):
            # Where any row can be read by itself, runs that mix well.
            runs = np.arange(0, matrix.n_obs, LEAST_ROWS, dtype=np.int64) if starts is None else starts
            found.append(runs + offset)
        return np.concatenate(found)

    def now(self, thorough: bool = True) -> JoinedSource:
        """Return it with what AnnData objects hold now; itself where nothing changed."""
        matrices = [matrix.now(thorough) for matrix in self.matrices]
        if all(now is before for now, before in zip(matrices, self.matrices, strict=True)):
            return self
        joined = copy.copy(self)
        joined.matrices = matrices
        return joined

    def stats(self) -> dict[str, int]:
        """What reading did so far in this process, in all files."""
        total = dict.fromkeys(STATS, 0)
        for matrix in self.matrices:
            for name, count in matrix.source.stats().items():
                total[name] += count
        return total

    def close(self) -> None:
        """Close all files."""
        for matrix in self.matrices:
            matrix.source.close()


@dataclass(frozen=True)
class _Piece:
    """The decoded rows of one file."""

    place: str
    block: Block
    rows: Int64Array  # place in the block of each row that was asked for


class JoinedBlock:
    """Decoded rows of several files; batches are any of them, in any order, as often as wanted.

    Parameters
    ----------
    n_cols
        Joined columns.
    pieces
        The rows of each file, in the order of the rows that were asked for.
    """

    def __init__(self, n_cols: int, pieces: list[_Piece]) -> None:
        self._block = Block.joined(n_cols, [piece.block for piece in pieces])
        before = np.cumsum([0, *(piece.block.shape[0] for piece in pieces)], dtype=np.int64)
        shifted = [piece.rows + start for piece, start in zip(pieces, before, strict=False)]
        self._rows = np.concatenate([*shifted, np.empty(0, np.int64)])
        self._places = [piece.place for piece in pieces]
        self._starts = np.cumsum([0, *(len(piece.rows) for piece in pieces)], dtype=np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        return self._block.nbytes

    def dense(
        self, positions: Int64Array, out: npt.NDArray[Any], dtype: str, threads: int = 1, ops: RowOps | None = None
    ) -> Lost | None:
        """Write the rows at ``positions`` into ``out``; give what was lost."""
        try:
            return self._block.dense(self._rows[positions], out, dtype, threads, ops)
        except ValueError as error:
            # Of which file it is, is found out only now: file by file.
            for place, at in self._of_files(positions):
                with _named(place):
                    self._block.dense(self._rows[positions[at]], out[: len(at)], dtype, 1, ops)
            raise error

    def totals(self, positions: Int64Array) -> npt.NDArray[np.float64]:
        """Return what the rows at ``positions`` sum to over all columns of their own matrix."""
        return self._block.totals(self._rows[positions])

    def nnz(self, positions: Int64Array) -> int:
        """Return how many values are stored in the rows at ``positions``."""
        return self._block.nnz(self._rows[positions])

    def csr(
        self,
        positions: Int64Array,
        indptr: npt.NDArray[np.int32],
        indices: npt.NDArray[np.int32],
        data: npt.NDArray[Any],
        dtype: str,
        ops: RowOps | None = None,
    ) -> Lost | None:
        """Write the rows at ``positions`` as CSR; give what `dense` gives."""
        try:
            return self._block.csr(self._rows[positions], indptr, indices, data, dtype, ops)
        except ValueError as error:
            for place, at in self._of_files(positions):
                rows = self._rows[positions[at]]
                n = self._block.nnz(rows)
                with _named(place):
                    self._block.csr(rows, indptr[: len(at) + 1], indices[:n], data[:n], dtype, ops)
            raise error

    def _of_files(self, positions: Int64Array) -> Iterator[tuple[str, Int64Array]]:
        """Each file that ``positions`` touch, and which of them do."""
        of_file = np.searchsorted(self._starts, positions, side="right") - 1
        for i in np.unique(of_file).tolist():
            yield self._places[i], np.flatnonzero(of_file == i)


@contextmanager
def _named(place: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
