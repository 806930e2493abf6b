"""How many rows a chunk of a file has, and how much there is to decode, from headers alone.

`annfeed.inspection.describe` tells more, but looks at each chunk: too long for every loader.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import NamedTuple

import h5py

from annfeed.h5ad.file import open_h5py
from annfeed.h5ad.sparse import sparse_format

#: Bytes that a value of a sparse matrix and its column take in the cache: an estimate for counts.
_HELD_PER_VALUE = 3


class Headers(NamedTuple):
    """Of a matrix by rows; means per row."""

    rows_per_chunk: float  # 0 if each row can be read alone
    decoded_bytes: float
    held_bytes: float  # in the cache; sparse values are estimated as counts


class StoredArray(NamedTuple):
    """What the header of an array says."""

    n_values: int
    item_size: int
    chunk: tuple[int, ...] | None  # None if the values are contiguous
    is_filtered: bool


def headers_of(values: StoredArray, indices: StoredArray | None, n_rows: int) -> Headers:
    """Return what the headers of the arrays of a matrix tell; ``indices`` are None for a dense one.

    Examples
    --------
    >>> values, indices = StoredArray(500, 4, (100,), True), StoredArray(500, 4, None, False)
    >>> headers_of(values, indices, 10)
    Headers(rows_per_chunk=2.0, decoded_bytes=400.0, held_bytes=150.0)
    """
    n_rows = max(1, n_rows)
    arrays = [values] if indices is None else [indices, values]
    decoded = sum(array.n_values * array.item_size for array in arrays) / n_rows
    # Of arrays with different chunks the indices count; but only what is decoded in whole chunks does.
    chunk = next((array.chunk for array in arrays if array.chunk is not None and array.is_filtered), None)
    rows_per_chunk = 0.0 if chunk is None else float(chunk[0])
    if indices is None:
        return Headers(rows_per_chunk, decoded, decoded)
    per_row = values.n_values / n_rows
    return Headers(rows_per_chunk / max(1.0, per_row), decoded, per_row * _HELD_PER_VALUE)


def read_headers(path: str, elem: str) -> Headers | None:
    """Return what the headers of a matrix tell; None for a matrix by columns, or one that cannot be opened.

    Examples
    --------
    >>> import anndata, numpy as np, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     anndata.AnnData(np.eye(30, dtype="float32")).write_h5ad(f"{folder}/a.h5ad", compression="gzip")
    ...     read_headers(f"{folder}/a.h5ad", "X")
    Headers(rows_per_chunk=30.0, decoded_bytes=120.0, held_bytes=120.0)
    """
    with suppress(OSError, ValueError, KeyError, TypeError, IndexError), open_h5py(path) as file:
        node = file[elem]
        if isinstance(node, h5py.Dataset):
            return headers_of(_stored(node), None, node.shape[0])
        if sparse_format(node) == "csr":
            return headers_of(_stored(node["data"]), _stored(node["indices"]), node["indptr"].shape[0] - 1)
    return None


def _stored(array: h5py.Dataset) -> StoredArray:
    is_filtered = array.chunks is not None and array.id.get_create_plist().get_nfilters() > 0
    return StoredArray(math.prod(array.shape), array.dtype.itemsize, array.chunks, is_filtered)
