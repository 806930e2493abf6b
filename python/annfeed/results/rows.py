"""Results by row: put as they come, in any order, into one array of all rows.

Held in memory, or on disk where that would be large. Which rows they are is decided in results/batches.py.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from annfeed.arrays import Int64Array

Array = npt.NDArray[Any]
#: Results of more bytes are collected in a temporary file, if they are to go into a file.
SPOOL_BYTES = 64 << 20
#: Bytes copied at a time from one temporary file to another.
_SLAB = 16 << 20


class RowStore:
    """One value, or several, for each of ``n_rows`` rows, none of them there at first.

    ``place`` are the words for them in messages. In ``folder`` a temporary file may be made; None keeps all in memory.

    Examples
    --------
    >>> store = RowStore(3, "AnnData")
    >>> store.put("result 0", np.array([2, 0]), np.array([[4.0], [0.0]]))
    >>> store.missing()
    array([1])
    >>> store.fill(9, store.missing())
    >>> store.whole().ravel()
    array([0., 9., 4.])
    """

    def __init__(self, n_rows: int, place: str, folder: str | None = None) -> None:
        self.n_rows, self.place = n_rows, place
        self._folder = folder
        self._there = np.zeros(n_rows, bool)
        self._rows: Array | _InFile | None = None
        self._dtype, self._width = np.dtype(float), 0

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the results so far, the widest."""
        return self._dtype

    def put(self, what: str, rows: Int64Array, values: Array) -> None:
        """Set some rows.

        A row that has a result keeps it. A second one must be equal, up to rounding.
        """
        if self._rows is None:
            self._dtype, self._width = values.dtype, values.shape[1]
            self._rows = self._new(self._dtype)
        elif values.shape[1] != self._width:
            raise ValueError(
                f"{what} has {values.shape[1]} columns, result 0 has {self._width}: all must have the same"
            )
        self._widen(np.result_type(self._dtype, values.dtype))
        values = values.astype(self._dtype, copy=False)
        new = ~self._there[rows]
        if len(rows) > 1 and not (np.diff(rows) > 0).all():
            first = np.zeros(len(rows), bool)
            first[np.unique(rows, return_index=True)[1]] = True
            new &= first
        if new.all():
            self._rows[rows] = values
        else:
            self._rows[rows[new]] = values[new]
            self._check_repeats(rows[~new], values[~new])
        self._there[rows] = True

    def missing(self) -> Int64Array:
        """Return the rows that have no result."""
        return np.flatnonzero(~self._there)

    def fill(self, value: float, rows: Int64Array) -> None:
        """Set ``rows`` to ``value``."""
        assert self._rows is not None
        held = np.asarray(value).astype(self._dtype) if np.isfinite(value) or self._dtype.kind == "f" else None
        if held is None or (np.isfinite(value) and held != value):
            raise ValueError(f"fill is {value!r}, which results of dtype {self._dtype} cannot hold; pass floats")
        step = max(1, _SLAB // max(1, self._width * self._dtype.itemsize))
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            self._rows[some] = np.full((len(some), self._width), held, self._dtype)
        self._there[rows] = True

    def whole(self) -> Array:
        """Return all rows, ``[n_rows, width]``; of a temporary file it is a map of it."""
        assert self._rows is not None
        return self._rows.whole() if isinstance(self._rows, _InFile) else self._rows

    def _new(self, dtype: np.dtype[Any]) -> Array | _InFile:
        if self._folder is None or self.n_rows * self._width * dtype.itemsize <= SPOOL_BYTES:
            return np.empty((self.n_rows, self._width), dtype)
        return _InFile(self.n_rows, self._width, dtype, self._folder)

    def _widen(self, dtype: np.dtype[Any]) -> None:
        """Go on with a dtype that holds what comes now, too, as joining arrays would."""
        if dtype == self._dtype:
            return
        assert self._rows is not None
        wider = self._new(dtype)
        there = np.flatnonzero(self._there)
        step = max(1, _SLAB // max(1, self._width * dtype.itemsize))
        for start in range(0, len(there), step):
            some = there[start : start + step]
            wider[some] = self._rows[some].astype(dtype)
        self._rows, self._dtype = wider, dtype

    def _check_repeats(self, rows: Int64Array, values: Array) -> None:
        assert self._rows is not None
        held = self._rows[rows]
        if self._dtype.kind == "f":
            # The same row in another batch: matrix products of another shape round otherwise.
            tolerance = float(np.sqrt(np.finfo(cast("Any", self._dtype)).eps))
            scale = np.nan_to_num(np.abs(held), posinf=0).max(axis=1, keepdims=True, initial=0)
            with np.errstate(invalid="ignore"):  # of two infinities
                near = np.abs(values - held) <= tolerance * scale
            same = near | (values == held) | (np.isnan(values) & np.isnan(held))
        else:
            same = values == held
        different = np.flatnonzero(~same.all(axis=1))
        if len(different):
            raise ValueError(f"{self.place}: row {rows[different[0]]} has two different results; give one for each row")


class _InFile:
    """Rows in a file without a name, which goes when nobody uses it any more."""

    def __init__(self, n_rows: int, width: int, dtype: np.dtype[Any], folder: str) -> None:
        self._shape, self._dtype = (n_rows, width), dtype
        self._row_bytes = width * dtype.itemsize
        # The file may be written, its folder perhaps not.
        where = folder if os.access(folder, os.W_OK) else None
        self._file = tempfile.TemporaryFile(dir=where, buffering=0)  # noqa: SIM115
        self._file.truncate(n_rows * self._row_bytes)

    def __setitem__(self, rows: Int64Array, values: Array) -> None:
        values = np.ascontiguousarray(values)
        for start, stop in _runs(rows):
            left = values[start:stop].view(np.uint8).reshape(-1)
            at = int(rows[start]) * self._row_bytes
            while len(left):
                n = os.pwrite(self._file.fileno(), left.data, at)
                left, at = left[n:], at + n

    def __getitem__(self, rows: Int64Array) -> Array:
        values = np.empty((len(rows), self._shape[1]), self._dtype)
        for start, stop in _runs(rows):
            n_bytes = (stop - start) * self._row_bytes
            found = os.pread(self._file.fileno(), n_bytes, int(rows[start]) * self._row_bytes)
            values[start:stop] = np.frombuffer(found, self._dtype).reshape(stop - start, -1)
        return values

    def whole(self) -> Array:
        return np.asarray(np.memmap(self._file, self._dtype, "r", shape=self._shape))

    def __del__(self) -> None:
        with suppress(AttributeError):  # where making it failed
            self._file.close()


def _runs(rows: Int64Array) -> list[tuple[int, int]]:
    """Runs of consecutive rows, as slices of ``rows``."""
    if not len(rows):
        return []
    ends = [*(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
    return list(zip([0, *ends[:-1]], ends, strict=True))
