"""Places of matrices in a MuData whose modalities have the names of groups of an AnnData."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mudata
import numpy as np
import pytest
from tests.support.mudata_toys import aligned, as_new, modality, read, written

from annfeed import AnnDataset
from annfeed.h5ad.elem import Elem

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:mudata", "ignore::FutureWarning:mudata")

NAMES = ["raw", "layers", "obsm"]


def named_as_groups(axis: int) -> mudata.MuData:
    """Modalities named as groups; of axis -1 they have the same cells and genes, as raw beside filtered counts."""
    cells = [f"c{i}" for i in range(9)]
    parts = {}
    for seed, name in enumerate(NAMES):
        part = modality(cells[seed % 3 :] if axis == 0 else cells, 4, seed, "g", sparse=bool(seed % 2))
        part.raw = part.copy()
        part.X = part.X * 2
        parts[name] = part
    with as_new():
        return mudata.MuData(parts, axis=axis)


@pytest.mark.parametrize("axis", [0, -1])
def test_modalities_named_as_groups(axis: int, tmp_path: Path) -> None:
    path = written(named_as_groups(axis), tmp_path / "cells.h5mu")
    mdata, sources = read(path), (path, read(path))
    for name, other in zip(NAMES, NAMES[1:] + NAMES[:1], strict=True):
        part = mdata[name]
        matrices: dict[str, Any] = {
            "X": part.X,
            "raw/X": part.raw.X,
            "layers/clr": part.layers["clr"],
            "obsm/X_pca": part.obsm["X_pca"],
        }
        for place, matrix in matrices.items():
            alone, all_cells = matrix.toarray() if hasattr(matrix, "toarray") else matrix, aligned(mdata, name, matrix)
            for source in sources:
                dataset = AnnDataset(source, elem=f"mod/{name}/{place}")
                np.testing.assert_array_equal(dataset[:].batch["X"].numpy(), alone)
                assert dataset.obs_names.equals(part.obs_names)
                assert dataset[:].batch["obs_n"].tolist() == part.obs["n"].tolist()
                paired = AnnDataset(
                    source, elem={name: f"mod/{name}/{place}", "other": f"mod/{other}/X"}, obs_columns=[]
                )
                np.testing.assert_array_equal(paired[:].batch[name].numpy(), all_cells)
                assert paired.obs_names.equals(mdata.obs_names)


@pytest.mark.parametrize(
    ("elem", "obs", "var"),
    [
        ("mod/raw/X", "mod/raw/obs", "mod/raw/var"),
        ("mod/raw/raw/X", "mod/raw/obs", "mod/raw/raw/var"),
        ("mod/layers/layers/a", "mod/layers/obs", "mod/layers/var"),
        ("mod/a/mod/raw/X", "mod/a/mod/raw/obs", "mod/a/mod/raw/var"),
        ("experiments/rna/raw/X", "experiments/rna/obs", "experiments/rna/raw/var"),
        ("raw/X", "obs", "raw/var"),
        ("layers/X", "obs", "var"),
    ],
)
def test_obs_and_var_of_a_place(elem: str, obs: str, var: str) -> None:
    assert Elem.parse(elem) == Elem(elem, obs, var)
