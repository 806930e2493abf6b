"""Matrices that the Rust reader declines, read through h5py: other filters, compact and virtual layouts, odd types.

Slow and general; same interface as the Rust reader. One h5py file stays open per process.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from annfeed._core import Budget, DecodedRows
from annfeed.arrays import Int64Array
from annfeed.errors import FormatError, StaleFileError, UnsupportedError
from annfeed.h5ad.file import missing_filters, open_to_stay, raw_place
from annfeed.h5ad.identity import file_identity
from annfeed.h5ad.sparse import sparse_format, sparse_shape
from annfeed.sources.base import Wanted, decoded


class H5pyMatrix:
    """A matrix of an .h5ad file, read by h5py; a CSC matrix may take ``budget`` in memory, None for nothing."""

    def __init__(self, path: str, elem: str, wanted: Wanted, budget: Budget | None = None) -> None:
        # hdf5plugin registers its filters with h5py when it is imported.
        with contextlib.suppress(ImportError):
            import hdf5plugin  # noqa: F401
        self._path, self._elem, self._wanted, self._budget = path, elem, wanted, budget
        identity = file_identity(path)
        self._file = open_to_stay(path)
        if identity is None:
            raise StaleFileError(f"{path}: the file was replaced while it was opened. Open the dataset again")
        self.identity = identity
        self.format = "dense"
        self._indptr: Int64Array | None = None
        self._unconverted, self._converting = False, threading.Lock()
        try:
            self._open(self._find(elem))
        except (FormatError, MemoryError):
            raise
        except Exception as error:  # of a damaged file h5py may say anything
            raise FormatError(
                f"{path}: '{elem}' cannot be read by h5py either ({error}). Copy or download the file again"
            ) from error

    def _open(self, node: Any) -> None:
        if hasattr(node, "keys"):
            self._open_sparse(node)
        else:
            self._data = self._checked(node, self._elem, 2)
            self.shape = (int(node.shape[0]), int(node.shape[1]))
        self.dtype = str(self._data.dtype)

    @property
    def read_stats(self) -> tuple[int, int, int, int]:
        """Not counted: h5py does not tell."""
        return 0, 0, 0, 0

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
        return H5pyMatrix(self._path, self._elem, self._wanted, budget)

    def read(self, rows: Int64Array, threads: int = 1, cancel: object = None) -> DecodedRows:
        """Read the wanted columns of ``rows`` (sorted, distinct); h5py cannot be cancelled."""
        self.convert()
        if file_identity(self._path) != self.identity:
            raise StaleFileError(f"{self._path}: the file changed since it was opened. Open the dataset again")
        if len(rows) and (rows[0] < 0 or rows[-1] >= self.shape[0]):
            raise IndexError(f"{self._path}: '{self._elem}': row {rows[-1]} is out of range for {self.shape[0]} rows")
        return decoded(self._rows(rows), f"{self._path}: '{self._elem}'", self._wanted)

    def close(self) -> None:
        """Close the file now, even if this matrix is still held."""
        self._file.close()

    def _rows(self, rows: Int64Array) -> Any:
        runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1) if len(rows) else []
        if self._indptr is None:
            return self._read(self._data, self._elem, [(run[0], run[-1] + 1) for run in runs])
        spans = [(self._indptr[run[0]], self._indptr[run[-1] + 1]) for run in runs]
        data = self._read(self._data, f"{self._elem}/data", spans)
        indices = self._read(self._indices, f"{self._elem}/indices", spans)
        self._check_range(indices, self.shape[1])
        indptr = np.concatenate([[0], np.cumsum(np.diff(self._indptr)[rows])])
        return _Rows((len(rows), self.shape[1]), indptr, indices, data)

    def _read(self, array: Any, place: str, spans: list[tuple[int, int]]) -> npt.NDArray[Any]:
        """The spans of an array along its first axis, one after the other."""
        try:
            return np.concatenate([array[a:b] for a, b in spans or [(0, 0)]])
        except (OSError, RuntimeError) as error:
            raise FormatError(
                f"{self._path}: '{place}' cannot be decoded ({error}). Copy or download the file again"
            ) from error

    def _find(self, elem: str) -> Any:
        place = raw_place(self._file, elem)
        parent, _, name = place.rpartition("/")
        if parent and hasattr(self._file[parent], "dtype"):
            # A field of a compound array, as obsm was before anndata 0.7: h5py reads it whole.
            return self._file[parent][name]
        return self._file[place]

    def _open_sparse(self, group: Any) -> None:
        self.format = sparse_format(group) or ""
        self.shape = sparse_shape(group)
        arrays = [self._checked(group.get(name), f"{self._elem}/{name}", 1) for name in ("data", "indices", "indptr")]
        self._data, self._indices = arrays[:2]
        if len(self._data) != len(self._indices):
            raise self._damaged("", f"has {len(self._data)} elements in data but {len(self._indices)} in indices")
        n_major = self.shape[self.format == "csc"]
        indptr = self._read(arrays[2], f"{self._elem}/indptr", [(0, len(arrays[2]))]).astype(np.int64)
        if n_major == 0 and len(indptr) == 0:
            indptr = np.zeros(1, np.int64)
        if len(indptr) != n_major + 1:
            raise self._damaged("/indptr", f"has {len(indptr)} elements, where shape {self.shape} needs {n_major + 1}")
        if indptr[0] != 0 or (np.diff(indptr) < 0).any() or indptr[-1] > len(self._data):
            raise self._damaged("/indptr", f"does not rise from 0 to at most {len(self._data)}, the number of values")
        self._indptr = indptr
        if self.format == "csc":
            self._unconverted = True
            self._check_budget()

    @property
    def unconverted(self) -> int | None:
        """Steps in which the first read turns columns into rows; None where it need not."""
        return 3 if self._unconverted else None

    def convert(self, threads: int = 1, cancel: object = None, progress: Callable[[int], object] | None = None) -> None:
        """Turn a matrix that is stored by columns into rows, unless that was done."""
        with self._converting:
            if self._unconverted:
                self._hold_rows(self._indptr, progress or (lambda done: None))
                self._unconverted = False

    def _check_budget(self) -> None:
        needed = len(self._data) * (8 + 2 * (4 + self._data.dtype.itemsize))
        budget = 0 if self._budget is None else self._budget.most
        if needed > budget:
            raise MemoryError(
                f"{self._path}: '{self._elem}' is stored by columns (CSC), and turning it into rows takes {needed} "
                f"bytes in memory, more than the budget of {budget}. Pass a larger cache=, or write the file with a "
                "CSR matrix"
            )

    def _hold_rows(self, indptr: Any, progress: Callable[[int], object]) -> None:
        self._check_budget()
        used = [(0, int(indptr[-1]))]
        data = self._read(self._data, f"{self._elem}/data", used)
        progress(1)
        rows = self._read(self._indices, f"{self._elem}/indices", used)
        progress(2)
        self._check_range(rows, self.shape[0])
        order = np.argsort(rows, kind="stable")
        columns = np.repeat(np.arange(self.shape[1], dtype=np.int64), np.diff(indptr))
        self._data, self._indices = data[order], columns[order]
        lengths = np.bincount(rows.astype(np.int64), minlength=self.shape[0])
        self._indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    def _check_range(self, indices: npt.NDArray[Any], n: int) -> None:
        wrong = indices[(indices < 0) | (indices >= n)]
        if len(wrong):
            raise self._damaged("/indices", f"holds {wrong[0]}; expected 0 to {n - 1}")

    def _checked(self, array: Any, place: str, n_axes: int) -> Any:
        """The array, if it can be part of a matrix and h5py has the filters to read it."""
        if not hasattr(array, "dtype"):
            raise FormatError(f"{self._path}: '{place}' is not an array. The file is damaged: write it again")
        if array.ndim != n_axes:
            raise FormatError(f"{self._path}: '{place}' has shape {array.shape}; expected {n_axes} axes")
        kinds = "biuf" if place.endswith(("/data", self._elem)) else "iu"
        if array.dtype.kind not in kinds or array.dtype.itemsize > 8:
            expected = "bool, integers or floats of up to 64 bits" if "f" in kinds else "integers"
            raise UnsupportedError(f"{self._path}: '{place}' has dtype {array.dtype}; expected {expected}")
        # Now, not at the first batch.
        missing = missing_filters(array)
        if missing:
            raise UnsupportedError(
                f"{self._path}: '{place}' has HDF5 filter {missing[0]}, which h5py lacks, too. "
                "Install the filters: pip install 'annfeed[filters]'"
            )
        return array

    def _damaged(self, part: str, found: str) -> FormatError:
        return FormatError(
            f"{self._path}: '{self._elem}{part}' {found}. The file is damaged or was written wrongly: write it again"
        )


class _Rows(NamedTuple):
    """Compressed rows, as scipy names their parts; scipy itself has no float16 and no other byte order."""

    shape: tuple[int, int]
    indptr: Int64Array
    indices: npt.NDArray[Any]
    data: npt.NDArray[Any]
