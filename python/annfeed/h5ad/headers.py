"""How many rows a chunk of a file has, and how much there is to decode, from headers alone.

`annfeed.inspection.describe` tells more, but looks at each chunk: too long for every loader.
"""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

import h5py

from annfeed.h5ad.file import open_h5py


class Headers(NamedTuple):
    """Of a matrix by rows; means per row."""

    rows_per_chunk: float  # 0 if each row can be read alone
    decoded_bytes: float
    held_bytes: float  # in the cache; sparse values are estimated as counts


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
    with suppress(Exception), open_h5py(path) as file:
        node = file[elem]
        if isinstance(node, h5py.Dataset):
            row = node.shape[1] * node.dtype.itemsize
            return Headers(float(node.chunks[0]) if _is_filtered(node) else 0.0, float(row), float(row))
        if {"indptr", "indices", "data"} <= set(node) and _is_by_rows(node):
            data, indices = node["data"], node["indices"]
            per_row = data.shape[0] / max(1, node["indptr"].shape[0] - 1)
            filtered = _is_filtered(data) or _is_filtered(indices)
            rows = (indices.chunks or data.chunks)[0] / max(1.0, per_row) if filtered else 0.0
            return Headers(rows, per_row * (data.dtype.itemsize + indices.dtype.itemsize), per_row * 3)
    return None


def _is_filtered(array: h5py.Dataset) -> bool:
    return array.chunks is not None and array.id.get_create_plist().get_nfilters() > 0


def _is_by_rows(group: h5py.Group) -> bool:
    encoding = group.attrs.get("encoding-type", group.attrs.get("h5sparse_format"))
    text = encoding.decode() if isinstance(encoding, bytes) else str(encoding)
    return text in ("csr_matrix", "csr")
