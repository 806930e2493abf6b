"""MuData of cells in several modalities, in other orders and with some missing; and how mudata itself aligns them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import mudata
import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from tests.support import places

CORPUS = places.CORPUS / "mudata"
#: Places of the matrices of `cite`.
ELEMS = {"rna": "mod/rna/X", "prot": "mod/prot/layers/clr", "pca": "mod/rna/obsm/X_pca"}


@contextlib.contextmanager
def as_new() -> Iterator[None]:
    """mudata before 0.4 behaves as from then on: it does not copy columns of modalities into obs."""
    options = getattr(mudata, "set_options", None)
    with contextlib.nullcontext() if options is None else options(pull_on_update=False):
        yield


def modality(cells: list[str], n_vars: int, seed: int, prefix: str, *, sparse: bool) -> anndata.AnnData:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(0.7, (len(cells), n_vars)).astype("float32")
    obs = pd.DataFrame(
        {
            "n": rng.integers(0, 9, len(cells)),
            "leiden": pd.Categorical(rng.choice(["T", "B", "NK"], len(cells)), ["T", "NK", "B", "none"]),
            "score": rng.normal(size=len(cells)),
            "doublet": rng.random(len(cells)) < 0.5,
            "note": [f"{prefix} {i % 3}" for i in range(len(cells))],
        },
        index=cells,
    )
    adata = anndata.AnnData(
        sp.csr_matrix(counts) if sparse else counts,
        obs=obs,
        var=pd.DataFrame(
            {"gene_ids": [f"{prefix}_{i}" for i in range(n_vars)]}, [f"{prefix}{i}" for i in range(n_vars)]
        ),
    )
    adata.layers["clr"] = rng.normal(size=counts.shape).astype("float32")
    adata.obsm["X_pca"] = rng.normal(size=(len(cells), 4)).astype("float32")
    return adata


def cite(n: int = 40, seed: int = 0, prefix: str = "cell") -> mudata.MuData:
    """RNA of some cells, protein of others, most in both, each in an order of its own; and donors of all."""
    rng = np.random.default_rng(seed)
    names = np.array([f"{prefix}{i}" for i in range(n)])
    picked = [rng.permutation(n)[: n - lacking].tolist() for lacking in (7, 4)]
    picked[1] += [i for i in range(n) if i not in picked[0] and i not in picked[1]]
    with as_new():
        mdata = mudata.MuData(
            {
                "rna": modality(names[picked[0]].tolist(), 12, seed + 1, "g", sparse=True),
                "prot": modality(names[picked[1]].tolist(), 5, seed + 2, "p", sparse=False),
            }
        )
        mdata.obs["donor"] = pd.Categorical([f"d{i % 3}" for i in range(mdata.n_obs)])
        mdata.obsm["X_mofa"] = rng.normal(size=(mdata.n_obs, 3)).astype("float32")
    return mdata


def written(mdata: mudata.MuData, path: Path) -> Path:
    with as_new():
        mdata.write(path)
    return path


def read(path: Path, backed: bool = False) -> mudata.MuData:
    with as_new():
        return mudata.read_h5mu(path, backed=backed)


def aligned(mdata: mudata.MuData, name: str, matrix: Any) -> npt.NDArray[Any]:
    """The rows of a matrix of a modality at the cells of the MuData, zeros for those that it lacks."""
    at = np.asarray(mdata.obsmap[name]).ravel().astype(int)
    values = matrix.toarray() if sp.issparse(matrix) else np.asarray(matrix)
    return np.where((at > 0)[:, None], values[at - 1], 0).astype("float32")


def expected(mdata: mudata.MuData) -> dict[str, npt.NDArray[Any]]:
    """What batches of ``ELEMS`` have, at all cells."""
    rna, prot = mdata["rna"], mdata["prot"]
    found = {
        "rna": aligned(mdata, "rna", rna.X),
        "prot": aligned(mdata, "prot", prot.layers["clr"]),
        "pca": aligned(mdata, "rna", rna.obsm["X_pca"]),
    }
    of = {"rna": "rna", "prot": "prot", "pca": "rna"}
    return found | {f"{key}_measured": np.asarray(mdata.obsmap[name]).ravel() > 0 for key, name in of.items()}
