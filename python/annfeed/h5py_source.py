"""Matrices that the Rust reader declines, read through h5py: other filters, compact and virtual layouts, odd types.

Slow and general; same interface as the Rust reader. One h5py file stays open per process.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from annfeed._core import Block, Budget
from annfeed.errors import FormatError, StaleFileError, UnsupportedError
from annfeed.h5py_file import open_h5py

Int64Array = npt.NDArray[np.int64]


class H5pyMatrix:
    """A matrix of an .h5ad file, read by h5py.

    Parameters
    ----------
    path, elem
        The file and the place in it.
    columns
        int64, the wanted columns in order; None for all.
    budget
        What a CSC matrix may take in memory; None for nothing.

    Raises
    ------
    UnsupportedError
        If h5py cannot read it either: a filter that is not installed, or values that are no numbers.
    FormatError
        If it does not hang together.
    MemoryError
        If a CSC matrix does not fit ``budget``.
    """

    def __init__(self, path: str, elem: str, *, columns: Int64Array | None = None, budget: Budget | None = None) -> None:
        import h5py

        # hdf5plugin registers its filters with h5py when it is imported.
        with contextlib.suppress(ImportError):
            import hdf5plugin  # noqa: F401
        self._path, self._elem, self._columns, self._budget = path, elem, columns, budget
        self.identity = _identity(path)
        self._file = open_h5py(path)
        node = self._find(elem)
        self.format = "dense"
        self._indptr: Int64Array | None = None
        self._held: Any = None
        if isinstance(node, h5py.Group):
            self._open_sparse(node)
        else:
            self._data = node
            self.shape = (int(node.shape[0]), int(node.shape[1]))
        self.dtype = str(self._data.dtype)
        if self._data.dtype.kind not in "biuf":
            raise UnsupportedError(
                f"{path}: '{elem}' has dtype {self._data.dtype}, where bool, integers or floats were expected"
            )
        self._check_filters()

    @property
    def bytes_read(self) -> int:
        """Not counted: h5py does not tell."""
        return 0

    @property
    def bytes_decoded(self) -> int:
        """Not counted: h5py does not tell."""
        return 0

    @property
    def cache_stats(self) -> tuple[int, int, int]:
        """Nothing is kept."""
        return 0, 0, 0

    def unit_starts(self) -> None:
        """Not known here."""

    def reopen(self, budget: Budget | None = None) -> H5pyMatrix:
        """Return the same matrix through a file of its own, as a forked process needs."""
        return H5pyMatrix(self._path, self._elem, columns=self._columns, budget=budget)

    def read(self, rows: Int64Array, threads: int = 1) -> Block:
        """Read ``rows`` (sorted, distinct) into a block of the wanted columns."""
        from annfeed.source import block_of

        if _identity(self._path) != self.identity:
            raise StaleFileError(f"{self._path}: the file changed since it was opened. Open the dataset again")
        if len(rows) and (rows[0] < 0 or rows[-1] >= self.shape[0]):
            raise IndexError(f"{self._path}: '{self._elem}': row {rows[-1]} is out of range for {self.shape[0]} rows")
        try:
            picked = self._rows(rows)
        except OSError as error:
            raise FormatError(
                f"{self._path}: '{self._elem}' cannot be decoded ({error}). Copy or download the file again"
            ) from error
        return block_of(picked, self._columns)

    def _rows(self, rows: Int64Array) -> Any:
        import scipy.sparse as sp

        if self._held is not None:
            return self._held[rows]
        runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1) if len(rows) else []
        if self._indptr is None:
            parts = [self._data[run[0] : run[-1] + 1] for run in runs]
            return np.concatenate(parts) if parts else np.empty((0, self.shape[1]), self._data.dtype)
        spans = [(self._indptr[run[0]], self._indptr[run[-1] + 1]) for run in runs]
        empty = [slice(0, 0)] if not spans else []
        slices = [slice(a, b) for a, b in spans] + empty
        data = np.concatenate([self._data[s] for s in slices])
        indices = np.concatenate([self._indices[s] for s in slices]).astype(np.int64)
        if len(indices) and (indices.min() < 0 or indices.max() >= self.shape[1]):
            raise FormatError(
                f"{self._path}: '{self._elem}/indices' holds {indices.max()}, where 0 to {self.shape[1] - 1} was "
                "expected"
            )
        indptr = np.concatenate([[0], np.cumsum(np.diff(self._indptr)[rows])])
        return sp.csr_matrix((data, indices, indptr), shape=(len(rows), self.shape[1]))

    def _find(self, elem: str) -> Any:
        place = "raw.X" if elem == "raw/X" and "raw/X" not in self._file else elem
        parent, _, name = place.rpartition("/")
        if parent and hasattr(self._file[parent], "dtype"):
            # A field of a compound array, as obsm was before anndata 0.7: h5py reads it whole.
            return self._file[parent][name]
        return self._file[place]

    def _open_sparse(self, group: Any) -> None:
        attrs: dict[str, Any] = dict(group.attrs)
        encoding = str(attrs.get("encoding-type", attrs.get("h5sparse_format", "")))
        shape: Any = attrs.get("shape", attrs.get("h5sparse_shape"))
        self.shape = (int(shape[0]), int(shape[1]))
        self._data, self._indices = group["data"], group["indices"]
        indptr = group["indptr"][:].astype(np.int64)
        rising = len(indptr) == 0 or (indptr[0] == 0 and (np.diff(indptr) >= 0).all())
        if not rising or (len(indptr) and indptr[-1] > len(self._data)):
            raise FormatError(
                f"{self._path}: '{self._elem}/indptr' does not rise from 0 to the number of values. "
                "The file is damaged or was written wrongly: write it again"
            )
        self.format = encoding[:3]
        self._indptr = indptr
        if self.format == "csc":
            self._hold_rows()

    def _hold_rows(self) -> None:
        import scipy.sparse as sp

        needed = len(self._data) * (8 + 2 * (4 + self._data.dtype.itemsize))
        budget = 0 if self._budget is None else self._budget.limit
        if needed > budget:
            raise MemoryError(
                f"{self._path}: '{self._elem}' is stored by columns (CSC) and would need {needed} bytes in memory, "
                f"more than the budget of {budget}. Pass a larger cache=, or write the file with a CSR matrix"
            )
        parts = (self._data[:], self._indices[:], self._indptr)
        self._held = sp.csc_matrix(parts, shape=self.shape).tocsr()

    def _check_filters(self) -> None:
        """Fail at open, not at the first batch, where h5py lacks a filter."""
        if self._data.size == 0:
            return
        try:
            self._data[(slice(0, 1),) * self._data.ndim]
        except OSError as error:
            ids = [f[0] for f in map(self._data.id.get_create_plist().get_filter, range(_n_filters(self._data)))]
            raise UnsupportedError(
                f"{self._path}: '{self._elem}' cannot be decoded by h5py either (filters {ids}: {error}). "
                "Install the filters: pip install 'annfeed[filters]'"
            ) from error


def _n_filters(dataset: Any) -> int:
    return int(dataset.id.get_create_plist().get_nfilters())


def _identity(path: str) -> tuple[int, int, int, int]:
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
