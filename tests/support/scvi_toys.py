"""AnnData objects set up with scvi-tools, in memory and backed; the first gene of cell i holds i."""

from __future__ import annotations

import functools
import pickle
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from tests.support.toys import write

#: What a toy is set up with.
SETUP: dict[str, Any] = {
    "batch_key": "donor",
    "labels_key": "type",
    "size_factor_key": "depth",
    "categorical_covariate_keys": ["sex", "assay"],
    "continuous_covariate_keys": ["age", "mito"],
}


def toy(n_obs: int = 43, n_vars: int = 6, kind: str = "csr", dtype: str = "float32", seed: int = 0) -> anndata.AnnData:
    """Return counts with all that scvi-tools registers; ``kind`` is "csr", "csc" or "dense".

    Each call returns an object of its own.
    """
    return pickle.loads(_toy(n_obs, n_vars, kind, dtype, seed))


@functools.cache
def _toy(n_obs: int, n_vars: int, kind: str, dtype: str, seed: int) -> bytes:
    """Return a pickled toy: to load it takes a tenth of the time that it takes to make it."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(2.0, (n_obs, n_vars)) * (rng.random((n_obs, n_vars)) < 0.6)
    counts[:, 1:] += rng.random((n_obs, n_vars - 1)) < 0.05
    counts[:, 0] = np.arange(n_obs)
    make: Any = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": np.asarray}[kind]
    obs = pd.DataFrame(
        {
            "donor": pd.Categorical([f"donor {i % 3}" for i in range(n_obs)]),
            "type": pd.Categorical([["T", "B", "unknown"][i % 3 if i % 5 else 0] for i in range(n_obs)]),
            "sex": pd.Categorical([["f", "m"][i // 2 % 2] for i in range(n_obs)]),
            "assay": pd.Categorical([["10x", "smart", "drop"][i // 4 % 3] for i in range(n_obs)]),
            "age": rng.normal(50, 10, n_obs),
            "mito": rng.random(n_obs).astype("float32"),
            "depth": rng.random(n_obs) + 0.5,
        },
        index=[f"cell{i}" for i in range(n_obs)],
    )
    var = pd.DataFrame(index=[f"g{j}" for j in range(n_vars)])
    adata = anndata.AnnData(make(counts.astype(dtype)), obs=obs, var=var)
    adata.layers["counts"] = make(3 * counts.astype(dtype))
    return pickle.dumps(adata)


def backed(adata: anndata.AnnData, folder: Path, name: str = "toy", **options: Any) -> anndata.AnnData:
    """Return the same, on disk."""
    return anndata.read_h5ad(write(adata, folder / f"{name}.h5ad", **options), backed="r")


def manager(adata: anndata.AnnData, **setup: Any) -> Any:
    """Set ``adata`` up for SCVI and return its manager."""
    from scvi.model import SCVI

    SCVI.setup_anndata(adata, **{**SETUP, **setup})
    return SCVI._get_most_recent_anndata_manager(adata, required=True)


def cells(batch: dict[str, Any]) -> list[int]:
    """The rows of a batch."""
    x = batch["X"]
    dense = x.to_dense() if isinstance(x, torch.Tensor) else x
    return [int(value) for value in dense[:, 0]]


def flat(loader: Any) -> list[int]:
    """The rows of all batches."""
    return [cell for batch in loader for cell in cells(batch)]


def assert_same(a: Any, b: Any) -> None:
    """Two batches are equal in all that a model can see."""
    assert list(a) == list(b)
    for key in a:
        x, y = a[key], b[key]
        assert type(x) is type(y), key
        assert x.dtype == y.dtype, key
        assert tuple(x.shape) == tuple(y.shape), key
        if isinstance(x, torch.Tensor):
            assert x.layout is y.layout, key
            if x.layout is not torch.strided:
                x, y = x.to_dense(), y.to_dense()
            assert torch.equal(x, y), key
        else:
            np.testing.assert_array_equal(x, y)
