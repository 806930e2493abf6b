"""Cell Ranger's files (10x Genomics), written with h5py alone as Cell Ranger writes them.

Nothing here imports annfeed or anndata.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

#: How Cell Ranger compresses.
GZIP: dict[str, Any] = {"compression": "gzip", "shuffle": True}


def counts(n_cells: int, n_features: int, seed: int = 0, *, unsorted: bool = True) -> sp.csr_matrix:
    """Return counts of cells x features: the first and the last cell have none, rows are not in order of columns."""
    rng = np.random.default_rng(seed)
    dense = rng.poisson(0.4, (n_cells, n_features)) * rng.integers(1, 9, (n_cells, n_features))
    dense[[0, -1]] = 0
    matrix = sp.csr_matrix(dense.astype(np.int32))
    if unsorted:
        for first, last in zip(matrix.indptr, matrix.indptr[1:], strict=False):
            order = rng.permutation(last - first) + first
            matrix.indices[first:last], matrix.data[first:last] = matrix.indices[order], matrix.data[order]
    return matrix


def features_of(
    symbols: Sequence[str], types: Sequence[str] | None = None, genome: str = "GRCh38", **more: Any
) -> dict[str, Any]:
    """Return what Cell Ranger 3 says of features: their ids are numbered by the text of their symbols."""
    seen: dict[str, int] = {}
    ids = []
    for symbol in symbols:
        seen[symbol] = seen.get(symbol, 0) + 1
        ids.append(f"ENSG_{symbol}_{seen[symbol]}")
    types = types or ["Gene Expression"] * len(symbols)
    return {"id": ids, "name": list(symbols), "feature_type": list(types), "genome": [genome] * len(symbols), **more}


def write_tenx_3(
    path: Path,
    matrix: sp.csr_matrix,
    features: Mapping[str, Any],
    *,
    barcodes: Sequence[str] | None = None,
    dtypes: tuple[str, str, str] = ("i4", "i8", "i8"),
    chunk: int = 50,
    storage: Mapping[str, Any] = GZIP,
    obs: Mapping[str, Any] | None = None,
) -> Path:
    """Write a file of Cell Ranger 3 or later; ``dtypes`` are of data, indices and indptr."""
    with h5py.File(path, "w") as file:
        file.attrs["filetype"] = "matrix"
        file.attrs["chemistry_description"] = "Single Cell 3' v3"
        group = file.create_group("matrix")
        _arrays(group, matrix, barcodes, dtypes, chunk, storage)
        for name, values in features.items():
            group[f"features/{name}"] = _stored(values)
        group["features/_all_tag_keys"] = _stored(["genome"])
        for name, values in (obs or {}).items():
            group[name] = values
    return path


def write_tenx_2(
    path: Path,
    genomes: Mapping[str, tuple[sp.csr_matrix, Mapping[str, Any]]],
    *,
    dtypes: tuple[str, str, str] = ("i4", "i8", "i8"),
    storage: Mapping[str, Any] = GZIP,
) -> Path:
    """Write a file of Cell Ranger 2: a group for each genome, with attributes of PyTables."""
    with h5py.File(path, "w") as file:
        for genome, (matrix, features) in genomes.items():
            group = file.create_group(genome)
            group.attrs["CLASS"], group.attrs["TITLE"] = np.bytes_(b"GROUP"), h5py.Empty("S1")
            _arrays(group, matrix, None, dtypes, 50, storage)
            group["genes"], group["gene_names"] = _stored(features["id"]), _stored(features["name"])
            for array in group.values():
                array.attrs["CLASS"], array.attrs["TITLE"] = np.bytes_(b"CARRAY"), h5py.Empty("S1")
    return path


def _arrays(
    group: h5py.Group,
    matrix: sp.csr_matrix,
    barcodes: Sequence[str] | None,
    dtypes: tuple[str, str, str],
    chunk: int,
    storage: Mapping[str, Any],
) -> None:
    n_cells, n_features = matrix.shape
    group["barcodes"] = _stored(barcodes or [f"ACGT{i:04}-1" for i in range(n_cells)])
    group["shape"] = np.array([n_features, n_cells], "i4")
    for name, dtype in zip(("data", "indices", "indptr"), dtypes, strict=True):
        values = getattr(matrix, name).astype(dtype)
        options = {**storage, "chunks": (min(chunk, len(values)),)} if storage and len(values) else {}
        group.create_dataset(name, data=values, **options)


def _stored(values: Any) -> npt.NDArray[Any]:
    array = np.asarray(values)
    return np.char.encode(array, "utf-8") if array.dtype.kind == "U" else array
