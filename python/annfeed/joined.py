"""The rows of several matrices, one after the other, as one source: each file is read, batches put its rows together.

Which of its columns a file has, and where they go, is settled by whoever makes it (genes.py); which file a row is in is
arithmetic on offsets, so that nothing is held per row.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from annfeed._core import RowOps
from annfeed.blocks import LEAST_ROWS
from annfeed.source import STATS, DecodedRows

if TYPE_CHECKING:
    from annfeed.matrix import Matrix

Int64Array = npt.NDArray[np.int64]
Rounded = tuple[int, str] | None


class JoinedSource:
    """Several matrices with their rows one after the other.

    Parameters
    ----------
    matrices
        In the order of their rows; each delivers the columns it has, in the order of the joined columns.
    places
        For each matrix: int64, strictly increasing, the joined column of each of its own; None where it has them all.
    n_vars
        Joined columns.

    Examples
    --------
    >>> from annfeed import AnnDataset
    >>> import anndata
    >>> AnnDataset([anndata.AnnData(np.eye(2)), anndata.AnnData(np.eye(2))])[3]["X"]
    tensor([0., 1.])
    """

    def __init__(self, matrices: Sequence[Matrix], places: Sequence[Int64Array | None], n_vars: int) -> None:
        self.matrices = list(matrices)
        self.places = list(places)
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
        return any(places is not None for places in self.places)

    def var_mask(self) -> npt.NDArray[np.bool_]:
        """Which columns each matrix has: bool ``[matrices, columns]``."""
        mask = np.ones((len(self.matrices), self._n_vars), bool)
        for row, places in zip(mask, self.places, strict=True):
            if places is not None:
                row[:] = False
                row[places] = True
        return mask

    def read(self, rows: Int64Array, threads: int) -> DecodedRows:
        """Decode ``rows`` (sorted, distinct), file by file."""
        bounds = np.searchsorted(rows, self.offsets)
        pieces = []
        for i in np.flatnonzero(np.diff(bounds)).tolist():
            matrix = self.matrices[i]
            block, positions = matrix.read(rows[bounds[i] : bounds[i + 1]] - self.offsets[i], threads)
            pieces.append(_Piece(matrix.source.place, block, positions, matrix.n_vars, self.places[i]))
        return JoinedBlock(pieces, self._n_vars)

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


class _Csr(NamedTuple):
    """The arrays of compressed rows, to be written."""

    indptr: npt.NDArray[np.int32]
    indices: npt.NDArray[np.int32]
    data: npt.NDArray[Any]

    @classmethod
    def empty(cls, n_rows: int, nnz: int, dtype: npt.DTypeLike) -> _Csr:
        return cls(np.empty(n_rows + 1, np.int32), np.empty(nnz, np.int32), np.empty(nnz, dtype))


@dataclass(frozen=True)
class _Piece:
    """The decoded rows of one file."""

    place: str
    block: DecodedRows
    rows: Int64Array  # place in the block of each row that was asked for
    n_cols: int
    columns: Int64Array | None  # joined column of each of the block's

    def dense(self, at: Int64Array, out: npt.NDArray[Any], dtype: str, threads: int, ops: RowOps | None) -> Rounded:
        try:
            return self.in_joined(self.block.dense(self.rows[at], out, dtype, threads, ops))
        except ValueError as error:
            raise self.told(error) from None

    def csr(self, at: Int64Array, arrays: _Csr, dtype: str, ops: RowOps | None) -> Rounded:
        rows = self.rows[at]
        try:
            rounded = self.block.csr(rows, arrays.indptr, arrays.indices, arrays.data, dtype, ops)
        except ValueError as error:
            raise self.told(error) from None
        if self.columns is not None:
            arrays.indices[:] = self.columns[arrays.indices]
        return self.in_joined(rounded)

    def in_joined(self, rounded: Rounded) -> Rounded:
        if rounded is None or self.columns is None:
            return rounded
        return int(self.columns[rounded[0]]), rounded[1]

    def told(self, error: ValueError) -> ValueError:
        """The error with the file, and with the column as it is delivered."""
        columns = self.columns

        def joined(found: re.Match[str]) -> str:
            return found[0] if columns is None else f"column {columns[int(found[1])]}"

        return ValueError(f"{self.place}: {re.sub(r'^column ([0-9]+)', joined, str(error))}")


class JoinedBlock:
    """Decoded rows of several files; batches are any of them, in any order, as often as wanted.

    Parameters
    ----------
    pieces
        The rows of each file, in the order of the rows that were asked for.
    n_cols
        Joined columns; where a file lacks one, it is 0.
    """

    def __init__(self, pieces: list[_Piece], n_cols: int) -> None:
        self._pieces = pieces
        self._n_cols = n_cols
        self._starts = np.cumsum([0, *(len(piece.rows) for piece in pieces)], dtype=np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        return sum(piece.block.nbytes for piece in self._pieces)

    def dense(
        self, positions: Int64Array, out: npt.NDArray[Any], dtype: str, threads: int = 1, ops: RowOps | None = None
    ) -> Rounded:
        """Write the rows at ``positions`` into ``out``; give column and value of the first whole number rounded."""
        rounded: Rounded = None
        for piece, at, local in self._split(positions):
            neighbours = len(at) > 0 and at[-1] - at[0] == len(at) - 1
            if piece.columns is None and neighbours:
                found = piece.dense(local, out[at[0] : at[-1] + 1], dtype, threads, ops)
            else:
                part = np.empty((len(at), piece.n_cols), out.dtype)
                found = piece.dense(local, part, dtype, threads, ops)
                _scatter(part, out, at, piece.columns)
            rounded = rounded or found
        return rounded

    def nnz(self, positions: Int64Array) -> int:
        """Return how many values are stored in the rows at ``positions``."""
        nnz = sum(piece.block.nnz(piece.rows[local]) for piece, _, local in self._split(positions))
        if nnz >= 2**31:
            raise OverflowError("the batch has 2^31 values or more: ask for fewer rows at a time")
        return nnz

    def csr(
        self,
        positions: Int64Array,
        indptr: npt.NDArray[np.int32],
        indices: npt.NDArray[np.int32],
        data: npt.NDArray[Any],
        dtype: str,
        ops: RowOps | None = None,
    ) -> Rounded:
        """Write the rows at ``positions`` as CSR; give what `dense` gives."""
        rounded: Rounded = None
        parts: list[tuple[Int64Array, _Csr]] = []
        lengths = np.zeros(len(positions), np.int64)
        for piece, at, local in self._split(positions):
            if len(at) == len(positions):
                return piece.csr(local, _Csr(indptr, indices, data), dtype, ops)
            part = _Csr.empty(len(at), piece.block.nnz(piece.rows[local]), data.dtype)
            found = piece.csr(local, part, dtype, ops)
            lengths[at] = np.diff(part.indptr)
            parts.append((at, part))
            rounded = rounded or found
        indptr[0] = 0
        np.cumsum(lengths, out=indptr[1:])
        for at, part in parts:
            # Row by row this takes a third of the time of one index for all values.
            bounds = zip(indptr[at].tolist(), indptr[at + 1].tolist(), pairwise(part.indptr.tolist()), strict=True)
            for start, stop, (first, last) in bounds:
                indices[start:stop] = part.indices[first:last]
                data[start:stop] = part.data[first:last]
        return rounded

    def _split(self, positions: Int64Array) -> Iterator[tuple[_Piece, Int64Array, Int64Array]]:
        """Each piece that ``positions`` touch: where in the batch its rows go, and which rows of the piece they are."""
        of_piece = np.searchsorted(self._starts, positions, side="right") - 1
        for i in np.unique(of_piece).tolist():
            at = np.flatnonzero(of_piece == i)
            yield self._pieces[i], at, positions[at] - self._starts[i]


def _scatter(part: npt.NDArray[Any], out: npt.NDArray[Any], rows: Int64Array, columns: Int64Array | None) -> None:
    if columns is None:
        out[rows] = part
        return
    for row, values in zip(rows.tolist(), part, strict=True):
        out[row] = 0
        # Row by row this takes half the time of np.ix_.
        out[row][columns] = values
