"""Fields: the data of a registry key, in memory or on disk, as rows of batches. scvi/registry.py makes them."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from annfeed._core import DecodedRows
from annfeed.arrays import Int64Array
from annfeed.batches.matrix import Matrix
from annfeed.batches.tensors import TensorMaker
from annfeed.batches.window import WindowRows
from annfeed.memory.sparse import compressed
from annfeed.sources.base import decoded

#: dtypes that the core casts as numpy does. Others are read as stored and cast by numpy, as scvi-tools does.
_FLOATS = {"float16": torch.float16, "float32": torch.float32, "float64": torch.float64}
#: Bytes of a batch from which on the core, with recycled memory, is faster than scipy.
_LARGE = 8 << 20


class Field(Protocol):
    """One key of a batch."""

    @property
    def streamed(self) -> bool:
        """Whether rows are read from disk."""

    def read(self, rows: Int64Array, threads: int) -> WindowRows:
        """Read ``rows`` (any order, repeats allowed) together."""


class ArrayField:
    """An array in memory, kept by reference.

    Parameters
    ----------
    values
        Array [n_obs, ...].
    dtype
        dtype of a batch, cast as by numpy.

    Examples
    --------
    >>> field = ArrayField(np.array([[1], [2], [3]], dtype=np.int8), np.int64)
    >>> rows = field.read(np.array([2, 0, 2]), 1)
    >>> rows.tensor(rows.block, rows.slots[:2]).tolist()
    [[3], [1]]
    """

    streamed = False

    def __init__(self, values: npt.NDArray[Any], dtype: npt.DTypeLike) -> None:
        self.values = values
        self._dtype = np.dtype(dtype)

    def read(self, rows: Int64Array, threads: int) -> WindowRows:
        """Return the rows; batches are copies."""
        return WindowRows(self.values, rows, lambda values, rows: values[rows].astype(self._dtype, copy=False))


class SparseField:
    """A scipy sparse matrix in memory, kept by reference.

    Parameters
    ----------
    matrix
        CSR (or CSC, with ``as_tensor``), [n_obs, n_vars].
    dtype
        dtype of a batch, cast as by numpy.
    as_tensor
        Return torch sparse tensors with the layout and index dtype of the matrix, instead of dense arrays.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> field = SparseField(sp.csr_matrix(np.eye(3)), np.float32, as_tensor=False)
    >>> rows = field.read(np.array([2, 0]), 1)
    >>> rows.tensor(rows.block, rows.slots).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """

    streamed = False

    def __init__(self, matrix: Any, dtype: npt.DTypeLike, *, as_tensor: bool) -> None:
        self.matrix = matrix
        self._dtype = np.dtype(dtype)
        self._as_tensor = as_tensor
        read_as = _FLOATS.get(self._dtype.name)
        self._large: LargeBatches | None = None
        if read_as is not None and not as_tensor and matrix.dtype.kind in "biuf" and matrix.dtype.itemsize <= 8:
            self._large = LargeBatches(matrix, read_as)

    def read(self, rows: Int64Array, threads: int) -> WindowRows:
        """Return the rows; batches are copies."""
        return WindowRows(self.matrix, rows, partial(self._batch, threads=threads))

    def _batch(self, matrix: Any, slots: Int64Array, threads: int) -> npt.NDArray[Any] | torch.Tensor:
        picked = matrix[slots]
        if self._large is not None and np.prod(picked.shape) * self._dtype.itemsize >= _LARGE:
            return self._large.dense(picked, threads)
        rows = picked.astype(self._dtype, copy=False)
        if not self._as_tensor:
            dense: npt.NDArray[Any] = rows.toarray()
            return dense
        # scipy caches this flag for a matrix, but not for rows of it.
        if not self.matrix.has_canonical_format and not rows.has_canonical_format:
            rows.sum_duplicates()  # torch requires sorted, distinct indices
        indptr, indices, data = map(torch.from_numpy, (rows.indptr, rows.indices, rows.data))
        return compressed(indptr, indices, data, rows.shape, rows.format)


class LargeBatches:
    """Makes large dense batches of a CSR matrix in memory with the core, which is faster than scipy there."""

    def __init__(self, matrix: Any, dtype: torch.dtype) -> None:
        self._tensors = TensorMaker("registered data in memory", matrix.shape[1])
        self._dtype = dtype

    def dense(self, rows: Any, threads: int) -> npt.NDArray[Any]:
        """Return scipy CSR rows as an array."""
        batch = self._tensors.tensor(
            decoded(rows, self._tensors.place), np.arange(rows.shape[0]), "dense", self._dtype, threads
        )
        return batch.numpy()


class StreamedField:
    """A matrix whose rows are read from disk, a window at a time.

    Parameters
    ----------
    matrix
        The matrix.
    stored
        numpy dtype of its values on disk.
    dtype
        dtype of a batch.
    as_tensor
        Return torch sparse CSR tensors instead of dense arrays.
    """

    streamed = True

    def __init__(self, matrix: Matrix, stored: npt.DTypeLike, dtype: npt.DTypeLike, *, as_tensor: bool) -> None:
        self.matrix = matrix
        self._dtype = np.dtype(dtype)
        self._output = "csr" if as_tensor else "dense"
        lossless = torch.float64 if np.dtype(stored).kind == "f" else torch.int64
        self._read_as = _FLOATS.get(self._dtype.name, lossless)

    @property
    def row_bytes(self) -> int:
        """Bytes of a delivered row; a sparse row is estimated as a quarter of a dense one."""
        dense = self.matrix.n_vars * self._dtype.itemsize
        return dense if self._output == "dense" else dense // 4

    def read(self, rows: Int64Array, threads: int) -> WindowRows:
        """Decode the rows, each once."""
        return WindowRows(*self.matrix.read(rows, threads), partial(self._batch, threads=threads))

    def _batch(self, block: DecodedRows, slots: Int64Array, threads: int) -> npt.NDArray[Any] | torch.Tensor:
        batch = self.matrix.tensors.tensor(block, slots, self._output, self._read_as, threads)
        if self._output == "dense":
            return batch.numpy().astype(self._dtype, copy=False)
        if self._dtype.name in _FLOATS:
            return batch
        values = torch.from_numpy(batch.values().numpy().astype(self._dtype))
        return compressed(batch.crow_indices(), batch.col_indices(), values, batch.shape)


def no_names() -> Any:
    """Return no column names, for a matrix of a registry key."""
    raise NotImplementedError("a registry key has no column names of its own; adata.var_names has them")
