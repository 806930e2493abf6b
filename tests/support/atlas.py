"""A small atlas of files with little in common: genes, encodings, dtypes, chunks and obs columns differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

MAKE: dict[str, Any] = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": np.asarray}

#: Of each file: genes by number in their order, encoding, dtype, rows, and how it is written.
FILES: dict[str, tuple[list[int], str, str, int, dict[str, Any]]] = {
    "a": ([0, 1, 2, 3, 4, 5], "csr", "float32", 40, {"compression": "gzip", "chunks": (16,)}),
    "b": ([7, 5, 3, 1, 0, 6], "dense", "int32", 30, {"compression": "gzip", "chunks": (7, 4)}),
    "c": ([3, 0, 5, 1], "csc", "float64", 20, {}),
    "d": ([5, 3, 1, 0, 8, 9, 10], "csr", "uint8", 1, {"compression": "lzf"}),
}


def adata_of(name: str) -> anndata.AnnData:
    """Return one of `FILES` in memory: a cell's values say which cell and which gene they are."""
    genes, kind, dtype, n, _ = FILES[name]
    first = 50 * list(FILES).index(name)
    numbers = np.arange(first, first + n)
    x = ((numbers[:, None] * 7 + np.array(genes)[None, :] * 3) % 11).astype(dtype)
    labels = [f"type {(i * 3) % 12}" if i % 5 else None for i in numbers]
    obs = pd.DataFrame(
        {
            "row": numbers,
            "label": pd.Categorical(labels, sorted({v for v in labels if v}, reverse=name == "b")),
            "text": [f"cell {i}" for i in numbers],
        },
        index=[f"cell{i}" for i in numbers],
    )
    if name != "b":
        obs["score"] = (numbers / 4).astype("float32" if name == "a" else "float64")
    if name == "b":
        obs["only_b"], obs["n"], obs["flag"] = [f"b{i}" for i in numbers], numbers * 2, numbers % 2 == 0
    var = pd.DataFrame(index=[f"gene{g}" for g in genes])
    pca = np.stack([numbers, -numbers], axis=1).astype("float32")
    return anndata.AnnData(MAKE[kind](x), obs=obs, var=var, layers={"double": MAKE[kind](x * 2)}, obsm={"X_pca": pca})


def write(folder: Path, names: str = "abcd") -> list[Path]:
    """Write files of `FILES` and return their paths."""
    paths = []
    for name in names:
        path = folder / f"{name}.h5ad"
        if not path.exists():
            _write(adata_of(name), path, FILES[name])
        paths.append(path)
    return paths


def _write(adata: anndata.AnnData, path: Path, file: tuple[Any, ...]) -> None:
    options = dict(file[4])
    chunks = options.pop("chunks", None)
    adata.write_h5ad(path, **options)
    if chunks is None:
        return
    import h5py

    with h5py.File(path, "r+") as opened:
        places = ["X"] if len(chunks) == 2 else ["X/data", "X/indices"]
        for place in places:
            values, attributes = opened[place][()], dict(opened[place].attrs)
            del opened[place]
            written = opened.create_dataset(place, data=values, chunks=chunks, **options)
            written.attrs.update(attributes)
