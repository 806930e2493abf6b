"""Rows of matrices in memory: arrays and scipy matrices, by reference, so that what they hold now is what is read."""

from __future__ import annotations

import copy
import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from annfeed._core import Block
from annfeed.arrays import Int64Array
from annfeed.process.threads import reading_threads
from annfeed.sources.base import STATS, block_of
from annfeed.sources.columns import GAP
from annfeed.sources.frame import FrameRows

#: Bytes that one thread digests at a time.
_CHUNK = 16 << 20


class MemorySource:
    """A matrix in memory, kept by reference: a numpy array, a scipy sparse matrix, or one that its own library reads.

    Parameters
    ----------
    matrix
        2-D array or sparse matrix of bool, integers or floats; or `FrameRows`; or with ``lazy`` anything of such a
        dtype that has ``shape``, and gives sorted, distinct rows as ``matrix[rows]``.
    columns
        int64, the wanted columns in order, `annfeed.sources.columns.GAP` for one that is not there; None for all.
    name
        What it is, for messages: "AnnData in memory: 'X'".
    total_over
        The columns over which rows are added up, where that is wanted; None for all.
    lazy
        The matrix is a dask array, a sparse dataset in zarr, or in an HDF5 file that is in memory: only the rows of a
        window become an array, when they are read.

    Raises
    ------
    TypeError
        If it is none of these, is a masked array, or holds no numbers.

    Examples
    --------
    >>> source = MemorySource(np.eye(3, dtype=np.float32), name="eye")
    >>> source.read(np.array([0, 2]), threads=1).shape
    (2, 3)
    """

    def __init__(
        self,
        matrix: Any,
        *,
        columns: Int64Array | None = None,
        name: str,
        total_over: Int64Array | None = None,
        lazy: bool = False,
    ) -> None:
        import scipy.sparse as sp

        self.place = name
        self._lazy = lazy
        self._columns = columns
        self._totals = False
        self._total_over = total_over
        if lazy:
            self._matrix = matrix
        elif sp.issparse(matrix):
            # Rows of a CSC matrix lie everywhere in it; so do those of the rarer formats.
            self._matrix = matrix if matrix.format == "csr" else matrix.tocsr()
        elif isinstance(matrix, np.ma.MaskedArray):
            raise TypeError(
                f"{name} is a masked array; expected numbers without a mask. Pass matrix.filled(0), or "
                "another value for what is masked"
            )
        elif isinstance(matrix, np.ndarray) and matrix.ndim == 2:
            self._matrix = np.asarray(matrix)
        elif isinstance(matrix, FrameRows):
            matrix.check(columns)
            self._matrix = matrix
        else:
            shape = f" of shape {matrix.shape}" if hasattr(matrix, "shape") else ""
            raise TypeError(
                f"{name} is a {type(matrix).__name__}{shape}, where a 2-D numpy array or a scipy sparse matrix was "
                "expected"
            )
        if isinstance(matrix, FrameRows):
            return
        if self._matrix.dtype.kind not in "biuf" or self._matrix.dtype.itemsize > 8:
            raise TypeError(f"{name} has dtype {self._matrix.dtype}; expected bool, integers or floats")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        n_rows, n_cols = self._matrix.shape
        return int(n_rows), int(n_cols)

    @property
    def is_part(self) -> bool:
        """Whether columns are left out."""
        return self._columns is not None

    def keep_totals(self) -> None:
        """From now on, keep what rows sum to over all columns."""
        if isinstance(self._matrix, FrameRows):
            self._matrix.check(None, totals=self.is_part)
        self._totals = True

    def read(self, rows: Int64Array, threads: int) -> Block:
        """Copy ``rows`` (sorted, distinct) into a block of the wanted columns."""
        columns, matrix = self._columns, self._matrix
        if isinstance(matrix, FrameRows):
            if not self._totals:
                return block_of(matrix.read(rows, columns), None, self.place)
            matrix, rows = matrix.read(rows, None, totals=self.is_part), np.arange(len(rows))
        if self._lazy:
            picked = matrix[rows]
            picked = picked.compute() if hasattr(picked, "compute") else picked
            picked = picked.tocsr() if hasattr(picked, "tocsr") else np.asarray(picked)
            return block_of(picked, columns, self.place, totals=self._totals, total_over=self._total_over)
        if columns is None or self._totals or not isinstance(matrix, np.ndarray) or matrix.shape[1] == 0:
            return block_of(matrix[rows], columns, self.place, totals=self._totals, total_over=self._total_over)
        # Not whole rows: a view may have few of many genes.
        picked = matrix[rows[:, None], np.maximum(columns, 0)]
        picked[:, columns == GAP] = 0
        return block_of(picked, None, self.place)

    def part(self, rows: Int64Array) -> MemorySource:
        """Return a copy of ``rows`` (any order, repeats allowed), as a source of the same columns."""
        part = copy.copy(self)
        part._matrix = self._matrix.part(rows) if isinstance(self._matrix, FrameRows) else self._matrix[rows]
        return part

    def unit_starts(self) -> None:
        """Any row can be taken by itself."""

    def now(self, thorough: bool = True) -> MemorySource:
        """Return itself: who made it knows whether there is another matrix by now."""
        return self

    def stats(self) -> dict[str, int]:
        """Nothing is read."""
        return dict.fromkeys(STATS, 0)

    def close(self) -> None:
        """Nothing to close: the matrix is the user's."""


def digest_of_sparse(matrix: Any) -> str:
    """Return a digest of all numbers of a scipy sparse matrix, made by as many threads as reading uses.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> digest_of_sparse(sp.eye(3, format="csc")) == digest_of_sparse(sp.eye(3, format="csc"))
    True
    """
    if matrix.format in ("csr", "csc"):
        arrays = [matrix.data, matrix.indices, matrix.indptr]
    else:
        matrix = matrix.tocoo()
        arrays = [matrix.data, matrix.row, matrix.col]
    pieces: list[memoryview] = []
    for array in arrays:
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        pieces += [flat[start : start + _CHUNK].data for start in range(0, len(flat), _CHUNK)]
    with ThreadPoolExecutor(reading_threads(None)) as pool:  # hashlib lets go of the GIL
        digests = list(pool.map(lambda piece: hashlib.blake2b(piece, digest_size=16).digest(), pieces))
    return hashlib.blake2b(b"".join(digests), digest_size=16).hexdigest()
