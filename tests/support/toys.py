"""Small AnnData objects that tell where each of their rows came from, and the ways a user hands them over."""

from __future__ import annotations

import functools
import hashlib
import pickle
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

#: How a user hands over data.
FORMS = ("memory", "backed", "path")


def toy(n_obs: int = 40, n_vars: int = 7, kind: str = "csr", dtype: str = "float32") -> anndata.AnnData:
    """Return an AnnData whose row i holds i in ``X[:, 0]`` and in ``obs["row"]``, and other numbers elsewhere.

    ``kind`` is "csr", "csc" or "dense". Row 3 is empty but for its number; the last column is empty. Each call returns
    an object of its own.
    """
    return pickle.loads(_toy(n_obs, n_vars, kind, dtype))


@functools.cache
def _toy(n_obs: int, n_vars: int, kind: str, dtype: str) -> bytes:
    """Return a pickled toy: to load it takes a tenth of the time that it takes to make it."""
    rng = np.random.default_rng(5)
    x = rng.integers(1, 100, (n_obs, n_vars)) * (rng.random((n_obs, n_vars)) < 0.4)
    if n_obs > 3:
        x[3] = 0
    if n_vars > 1:
        x[:, -1] = 0
    if n_vars:
        x[:, 0] = np.arange(n_obs)
    x = x.astype(dtype)
    counts, scores = x * 2, rng.standard_normal((n_obs, 3)).astype("float32")
    make: Any = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": np.asarray}[kind]
    obs = pd.DataFrame(
        {
            "row": np.arange(n_obs),
            "score": np.arange(n_obs) / 4,
            "flag": np.arange(n_obs) % 3 == 0,
            "label": pd.Categorical([f"type {i % 3}" for i in range(n_obs)], ["type 2", "type 0", "unused", "type 1"]),
            "text": [f"cell of row {i}" for i in range(n_obs)],
        },
        index=pd.Index([f"cell{i}" for i in range(n_obs)]),
    )
    var = pd.DataFrame(index=pd.Index([f"gene{j}" for j in range(n_vars)]))
    adata = anndata.AnnData(make(x), obs=obs, var=var, layers={"counts": make(counts)}, obsm={"X_pca": scores})
    adata.raw = anndata.AnnData(
        make(np.hstack([x, x])), obs=obs, var=pd.DataFrame(index=[f"r{j}" for j in range(2 * n_vars)])
    )
    return pickle.dumps(adata)


#: The bytes of the files written so far, by the digest of what was written.
_FILES: dict[bytes, bytes] = {}


def write(adata: anndata.AnnData, path: Path, **options: Any) -> Path:
    """Write ``adata`` like ``adata.write_h5ad(path, **options)``, and return ``path``.

    anndata writes equal ones once a process, which takes it 30 ms; from then on their bytes are copied. The file is the
    test's own.
    """
    digest = hashlib.sha256(pickle.dumps((adata, options))).digest()
    if digest not in _FILES:
        # A copy, as anndata makes text categorical in what it writes.
        adata.copy().write_h5ad(path, **options)
        _FILES[digest] = path.read_bytes()
    path.write_bytes(_FILES[digest])
    return path


def hand_over(adata: anndata.AnnData, form: str, folder: Path, name: str = "toy") -> Any:
    """Return ``adata`` as one of `FORMS`; the file is called ``name`` in ``folder``."""
    if form == "memory":
        return adata
    path = folder / f"{name}.h5ad"
    if not path.exists():
        write(adata, path)
    return anndata.read_h5ad(path, backed="r") if form == "backed" else path


def dense(matrix: Any) -> np.ndarray:
    """Return a matrix as an array, whatever it is: numpy, scipy, anndata's backed ones, torch."""
    if isinstance(matrix, torch.Tensor):
        return matrix.to_dense().numpy()
    matrix = matrix.to_memory() if hasattr(matrix, "to_memory") else matrix
    matrix = matrix.toarray() if hasattr(matrix, "toarray") else matrix
    return np.asarray(matrix)


def as_csr(matrix: Any) -> torch.Tensor:
    """Return a matrix as torch's CSR, its invariants checked; lists of numbers as float32."""
    m = sp.csr_matrix(np.asarray(matrix, np.float32) if isinstance(matrix, list) else matrix)
    # What torch 2.6 says of empty ones is not so: "expected col_indices to be a contiguous tensor".
    parts = [torch.from_numpy(a) for a in (m.indptr, m.indices, m.data)]
    return torch.sparse_csr_tensor(*parts, size=m.shape, check_invariants=bool(m.nnz))


def rows_of(batches: Any) -> list[list[int]]:
    """Return the row numbers of each batch, having checked that its X, obs and text are of those rows."""
    found = []
    for batch in batches:
        rows = batch["obs_row"].tolist()
        assert dense(batch["X"])[:, 0].tolist() == rows
        assert batch["obs_text"] == [f"cell of row {row}" for row in rows]
        found.append(rows)
    return found


def flat(rows: list[list[int]]) -> list[int]:
    """Return the rows of all batches, in order."""
    return [row for batch in rows for row in batch]


def assert_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Two items or batches are equal: keys in order, values, dtypes, layouts."""
    assert list(found) == list(wanted)
    for key, value in wanted.items():
        if isinstance(value, torch.Tensor):
            assert (found[key].layout, found[key].dtype) == (value.layout, value.dtype), key
            torch.testing.assert_close(found[key].to_dense(), value.to_dense(), rtol=0, atol=0, equal_nan=True)
        else:
            assert found[key] == value, key
