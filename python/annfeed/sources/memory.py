"""Rows of matrices in memory: arrays and scipy matrices, by reference, so that what they hold now is what is read."""

from __future__ import annotations

import copy
import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from annfeed._core import DecodedRows
from annfeed.arrays import Int64Array
from annfeed.process.threads import reading_threads
from annfeed.sources.base import RowSource, Wanted, decoded
from annfeed.sources.columns import MISSING
from annfeed.sources.frame import FrameRows

#: Bytes that one thread digests at a time.
_CHUNK = 16 << 20


class MemorySource(RowSource):
    """A matrix in memory, kept by reference: a numpy array, a scipy sparse matrix, or one that its own library reads.

    Parameters
    ----------
    matrix
        2-D array or sparse matrix of bool, integers or floats; or `FrameRows`; or with ``lazy`` anything of such a
        dtype that has ``shape``, and gives sorted, distinct rows as ``matrix[rows]``.
    columns, total_over
        As of `annfeed.sources.base.Wanted`.
    name
        What it is, for messages: "AnnData in memory: 'X'".
    lazy
        The matrix is a dask array, a sparse dataset in zarr, or in an HDF5 file that is in memory: only the rows of a
        window become an array, when they are read.

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

        self._name = name
        self._lazy = lazy
        self._wanted = Wanted(columns, total_over=total_over)
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
    def place(self) -> str:
        return self._name

    @property
    def shape(self) -> tuple[int, int]:
        n_rows, n_cols = self._matrix.shape
        return int(n_rows), int(n_cols)

    @property
    def is_part(self) -> bool:
        return self._wanted.columns is not None

    def keep_totals(self) -> None:
        """From now on, keep what rows sum to over all columns."""
        if isinstance(self._matrix, FrameRows):
            self._matrix.check(None, totals=self.is_part)
        self._wanted = self._wanted._replace(totals=True)

    def read(self, rows: Int64Array, threads: int) -> DecodedRows:
        matrix, wanted = self._matrix, self._wanted
        columns = wanted.columns
        if isinstance(matrix, FrameRows):
            if not wanted.totals:
                return decoded(matrix.read(rows, columns), self.place)
            return decoded(matrix.read(rows, None, totals=self.is_part), self.place, wanted)
        if columns is not None and not wanted.totals and isinstance(matrix, np.ndarray) and matrix.shape[1]:
            # Not whole rows: a view may have few of many genes.
            picked = matrix[rows[:, None], np.maximum(columns, 0)]
            picked[:, columns == MISSING] = 0
            return decoded(picked, self.place)
        picked = matrix[rows]
        if self._lazy:
            picked = picked.compute() if hasattr(picked, "compute") else picked
            picked = picked.tocsr() if hasattr(picked, "tocsr") else np.asarray(picked)
        return decoded(picked, self.place, wanted)

    def part(self, rows: Int64Array) -> MemorySource:
        """Return a copy of ``rows`` (any order, repeats allowed), as a source of the same columns."""
        part = copy.copy(self)
        part._matrix = self._matrix.part(rows) if isinstance(self._matrix, FrameRows) else self._matrix[rows]
        return part


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
