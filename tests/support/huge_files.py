"""Files with billions of values that take a few megabytes: chunks that were never written hold the fill value, 0.

Written with h5py alone; nothing here imports annfeed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

#: Values of a chunk.
CHUNK = 1 << 16


def write_huge(
    path: Path, n_rows: int, per_row: int, n_vars: int = 2_000, filled: tuple[int, ...] = (), gzip: bool = True
) -> None:
    """Write a CSR matrix of ``per_row`` values a row; those in the chunks around the values ``filled`` are not 0.

    Value number p of a filled chunk is ``p % 251 + 1`` and lies in column ``p % per_row``. The names of rows are empty.
    """
    nnz = n_rows * per_row
    filters: dict[str, Any] = {"compression": "gzip", "shuffle": True} if gzip else {}
    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        matrix = file.create_group("X")
        matrix.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [n_rows, n_vars]})
        data = matrix.create_dataset("data", (nnz,), "f4", chunks=(min(CHUNK, nnz),), **filters)
        indices = matrix.create_dataset("indices", (nnz,), "i4", chunks=(min(CHUNK, nnz),), **filters)
        step = min(n_rows + 1, 1 << 18)
        indptr = matrix.create_dataset("indptr", (n_rows + 1,), "i8", chunks=(step,), compression="gzip", shuffle=True)
        for start in range(0, n_rows + 1, step):
            stop = min(n_rows + 1, start + step)
            indptr[start:stop] = np.arange(start, stop) * per_row
        for chunk in sorted({near // CHUNK + step for near in filled for step in (-1, 0, 1)}):
            start, stop = max(0, chunk * CHUNK), min(nnz, (chunk + 1) * CHUNK)
            if start < stop:
                places = np.arange(start, stop)
                data[start:stop] = places % 251 + 1
                indices[start:stop] = places % per_row
        _frame(file.create_group("obs"), n_rows)
        _frame(file.create_group("var"), n_vars, [f"gene{j}" for j in range(n_vars)])


def _frame(group: h5py.Group, n: int, names: list[str] | None = None) -> None:
    group.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"})
    group.attrs["column-order"] = np.array([], dtype=h5py.string_dtype())
    index = group.create_dataset("_index", (n,), h5py.string_dtype(), data=names, chunks=(min(n, 1 << 16),))
    index.attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})


def row_of(path: Path, row: int, n_vars: int = 2_000) -> np.ndarray:
    """Return one row, dense, as h5py reads it."""
    with h5py.File(path) as file:
        start, stop = file["X/indptr"][row : row + 2].tolist()
        values = np.zeros(n_vars, "f4")
        np.add.at(values, file["X/indices"][start:stop], file["X/data"][start:stop])
        return values
