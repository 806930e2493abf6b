"""Raw counts on disk for scvi-tools' tables of differential expression.

scvi-tools takes the matrix from the manager of an AnnData and computes on it as on one in memory, which fails for a
backed matrix. `streaming` returns a manager whose matrices on disk compute sums and means window by window.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from annfeed.arrays import Int64Array
from annfeed.inputs.selection import row_indices
from annfeed.scvi.dataset import RegistryDataset

#: A function of rows of counts (a float64 array or a scipy matrix) and their places; returns an array of that shape.
Step = Callable[[Any, slice], Any]


class StreamedCounts:
    """A matrix on disk with ``sum`` as of a scipy matrix; indexing with rows gives `RowsOfCounts`.

    Other attributes are those of the matrix itself.

    Parameters
    ----------
    manager
        As scvi-tools makes it in ``setup_anndata``.
    key
        Key of the matrix in its registry.
    window
        Rows read together.
    **options
        ``cache``, ``threads`` and ``io_depth`` of `annfeed.AnnDataLoader`.
    """

    def __init__(self, manager: Any, key: str, window: int, **options: Any) -> None:
        self._matrix = manager.get_from_registry(key)
        self._rows = RegistryDataset(manager, {key: np.float64}, load_sparse_tensor=True, **options)
        self._key, self._window = key, window
        stored = np.dtype(self._matrix.dtype)
        #: dtype of sums and means, which are computed in float64.
        self.dtype = stored if stored.kind == "f" else np.dtype(np.float64)
        self.shape = (len(self._rows), int(self._matrix.shape[1]))

    def __getitem__(self, index: Any) -> Any:
        """Return rows as `RowsOfCounts`; for a slice, or rows and columns, what the matrix returns."""
        if isinstance(index, tuple | slice):
            return self._matrix[index]
        return RowsOfCounts(self, row_indices(index, self.shape[0]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._matrix, name)

    def sum(self, axis: int | None = None) -> Any:
        """Return the sums of rows (axis 1), [n_rows, 1], of columns (0), [1, n_columns], or of all values (None)."""
        rows = RowsOfCounts(self, np.arange(self.shape[0], dtype=np.int64))
        if axis is None:
            return rows.sums().sum().astype(self.dtype)
        if axis == 0:
            return rows.sums()[None, :].astype(self.dtype)
        sums = [np.asarray(counts.sum(axis=1)).reshape(-1, 1) for counts, _ in rows.windows()]
        return np.concatenate(sums).astype(self.dtype)

    def read(self, rows: Int64Array) -> Any:
        """Return rows as a float64 scipy CSR matrix or array."""
        import scipy.sparse as sp

        read = self._rows.load(rows).batch(0, len(rows))[self._key]
        if isinstance(read, np.ndarray):
            return read
        data, indices, indptr = (part.numpy() for part in (read.values(), read.col_indices(), read.crow_indices()))
        return sp.csr_matrix((data, indices, indptr), shape=read.shape)

    @property
    def window(self) -> int:
        """Rows read together."""
        return self._window


class RowsOfCounts:
    """Rows of a matrix on disk, with elementwise steps that are applied window by window when a mean is computed.

    Other operations load the rows into memory.

    Parameters
    ----------
    counts
        The matrix.
    rows
        int64, in order.
    steps
        Steps for each window.
    dtype
        dtype of means; None for that of ``counts``.
    """

    def __init__(
        self, counts: StreamedCounts, rows: Int64Array, steps: tuple[Step, ...] = (), dtype: Any = None
    ) -> None:
        self._counts, self._row_numbers, self._steps = counts, rows, steps
        self.dtype = counts.dtype if dtype is None else np.dtype(dtype)

    def windows(self) -> Any:
        """Yield the rows window by window, with the place of each window."""
        # One empty window for no rows: it has the columns.
        for start in range(0, max(len(self._row_numbers), 1), self._counts.window):
            place = slice(start, min(start + self._counts.window, len(self._row_numbers)))
            counts = self._counts.read(self._row_numbers[place])
            for step in self._steps:
                counts = step(counts, place)
            yield counts, place

    def sums(self) -> npt.NDArray[np.float64]:
        """Return the sum of each column."""
        parts = [np.asarray(counts.sum(axis=0), dtype=np.float64).ravel() for counts, _ in self.windows()]
        total: npt.NDArray[np.float64] = np.sum(parts, axis=0)
        return total

    def mean(self, axis: int | None = None, dtype: Any = None, out: Any = None) -> npt.NDArray[Any]:
        """Return the mean of each column (``axis`` 0), also for ``numpy.mean``, which passes ``dtype`` and ``out``."""
        if axis != 0:
            return np.asarray(self._in_memory().mean(axis=axis))
        return (self.sums() / len(self._row_numbers)).astype(self.dtype)

    def multiply(self, factors: npt.NDArray[Any]) -> RowsOfCounts:
        """Multiply each row by its factor, [n_rows, 1]."""
        return self._then(lambda counts, place: _times(counts, np.asarray(factors)[place]))

    __mul__ = multiply

    def __ne__(self, other: object) -> Any:
        return self._then(lambda counts, _: counts != other, np.float64)

    def __gt__(self, other: Any) -> RowsOfCounts:
        return self._then(lambda counts, _: counts > other, np.float64)

    __hash__ = None  # type: ignore[assignment]  # as of any array

    def __getitem__(self, index: Any) -> Any:
        """Select columns (``[:, columns]``); anything else loads the rows."""
        if isinstance(index, tuple) and len(index) == 2 and index[0] == slice(None):
            return self._then(lambda counts, _: counts[:, index[1]])
        return self._in_memory()[index]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._in_memory(), name)

    def _then(self, step: Step, dtype: Any = None) -> RowsOfCounts:
        steps = (*self._steps, step)
        return RowsOfCounts(self._counts, self._row_numbers, steps, self.dtype if dtype is None else dtype)

    def _in_memory(self) -> Any:
        import scipy.sparse as sp

        parts = [counts for counts, _ in self.windows()]
        return sp.vstack(parts, format="csr") if parts and sp.issparse(parts[0]) else np.concatenate(parts)


def _times(counts: Any, factors: npt.NDArray[Any]) -> Any:
    return counts.multiply(factors).tocsr() if hasattr(counts, "multiply") else counts * factors


class ManagesCounts:
    """Replaces ``get_anndata_manager`` of a model of scvi-tools; its managers are `streaming`.

    Parameters
    ----------
    model
        The model.
    window, cache, threads, io_depth
        As in `annfeed.AnnDataLoader`.
    """

    def __init__(
        self,
        model: Any,
        *,
        window: int,
        cache: str | int,
        threads: int | None,
        io_depth: int | Literal["auto"] = "auto",
    ) -> None:
        self._model = model
        self._options: dict[str, Any] = {"window": window, "cache": cache, "threads": threads, "io_depth": io_depth}

    def __call__(self, adata: Any, required: bool = False) -> Any:
        """Return the manager of an AnnData."""
        manager = type(self._model).get_anndata_manager(self._model, adata, required=required)
        return None if manager is None else streaming(manager, **self._options)


def streaming(manager: Any, **options: Any) -> Any:
    """Return a copy of ``manager`` whose matrices on disk are `StreamedCounts` with ``options``."""
    other = copy.copy(manager)
    other.get_from_registry = lambda key: _streamed(manager, key, options)
    other.on_disk = manager
    return other


def stock(manager: Any) -> Any:
    """Return the manager that was passed to `streaming`; any other manager itself."""
    return vars(manager).get("on_disk", manager)


def _streamed(manager: Any, key: str, options: dict[str, Any]) -> Any:
    import h5py
    from anndata.abc import CSCDataset, CSRDataset

    value = manager.get_from_registry(key)
    on_disk = isinstance(value, CSRDataset | CSCDataset | h5py.Dataset)
    return StreamedCounts(manager, key, **options) if on_disk else value
