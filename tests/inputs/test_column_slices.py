"""Slices with a step or from the end on, and columns of arrays in obsm: as in numpy, in each storage and form."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.support.toys import FORMS, dense, hand_over, toy

from annfeed import AnnDataset, NormalizeTotal, UnknownNameError

SLICES = [slice(None, None, 2), slice(None, None, -1), slice(5, 0, -2), slice(1, None, 3)]


def read(dataset: AnnDataset) -> np.ndarray:
    loader = dataset.get_optimized_dataloader(batch_size=16, shuffle=False)
    return np.concatenate([dense(batch["X"]) for batch in loader])


@pytest.mark.parametrize("output", ["dense", "csr"])
@pytest.mark.parametrize("form", [*FORMS, "list"])
@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_slices_of_columns(tmp_path: Path, kind: str, form: str, output: Any) -> None:
    adata = toy(kind=kind)
    x = dense(adata.X)
    given, times = hand_over(adata, "path" if form == "list" else form, tmp_path), 1
    if form == "list":
        given, times = [given, adata], 2
    for some in SLICES:
        dataset = AnnDataset(given, var_subset=some, output=output)
        assert list(dataset.var_names) == adata.var_names[some].tolist()
        np.testing.assert_array_equal(read(dataset), np.tile(x[:, some], (times, 1)))
        rows = AnnDataset(given, obs_subset=some, output=output)
        np.testing.assert_array_equal(read(rows), np.tile(x, (times, 1))[some])
        np.testing.assert_array_equal(read(AnnDataset(given, output=output).subset(some)), read(rows))


@pytest.mark.parametrize("form", ["memory", "backed"])
@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_slices_that_a_view_has(tmp_path: Path, kind: str, form: str) -> None:
    adata = toy(kind=kind)
    x = dense(adata.X)
    given = hand_over(adata, form, tmp_path)
    for some in SLICES:
        view = given[:, some]
        np.testing.assert_array_equal(read(AnnDataset(view)), x[:, some])
        np.testing.assert_array_equal(dense(AnnDataset(view)[3]["X"]), x[3, some])
        np.testing.assert_array_equal(read(AnnDataset(view, var_subset=[1, 0])), x[:, some][:, [1, 0]])
        np.testing.assert_array_equal(read(AnnDataset(given[some, ::-1])), x[some, ::-1])
        totals = x[:, some].sum(axis=1, keepdims=True)
        scaled = x[:, some] * np.divide(10, totals, out=np.ones_like(totals), where=totals > 0)
        found = read(AnnDataset(view, transform=NormalizeTotal(10)))
        np.testing.assert_allclose(found, scaled, rtol=1e-6)


MASK = [True, False, True]


@pytest.mark.parametrize("form", [*FORMS, "view", "list"])
def test_columns_of_an_array_in_obsm(tmp_path: Path, form: str) -> None:
    adata = toy()
    given, times = hand_over(adata, form if form in FORMS else "path", tmp_path), 1
    if form == "view":
        adata = given = adata[::-1, :4]
    if form == "list":
        given, times = [given, adata], 2
    pca = np.tile(np.asarray(adata.obsm["X_pca"]), (times, 1))
    both = {"X": "X", "pca": "obsm/X_pca"}
    for some in ([2, 0], slice(None, None, -2), MASK, np.array(MASK), pd.Series(MASK), [-1], []):
        alone = AnnDataset(given, elem="obsm/X_pca", var_subset=some)
        np.testing.assert_array_equal(read(alone), pca[:, some])
        assert list(alone.var_names) == np.array(["0", "1", "2"])[some].tolist()
        beside = AnnDataset(given, elem=both, var_subset={"pca": some})
        np.testing.assert_array_equal(beside[5]["pca"], pca[5, some])
        assert len(beside[5]["X"]) == adata.n_vars
    assert [len(AnnDataset(given, elem=both, var_subset=[1])[0][key]) for key in both] == [1, 3]
    for wrong in ({"pca": ["gene1"]}, {"pca": ["0"]}):
        with pytest.raises(UnknownNameError, match="'obsm/X_pca' have no names; expected positions, a slice"):
            AnnDataset(given, elem=both, var_subset=wrong)
    with pytest.raises(IndexError, match=r"var_subset holds 3, but .*'obsm/X_pca' has 3 columns"):
        AnnDataset(given, elem="obsm/X_pca", var_subset=[3])
    totals = AnnDataset(given, elem="obsm/X_pca", var_subset=[1], transform=NormalizeTotal(10))
    np.testing.assert_allclose(totals[4]["X"][0], 10 * pca[4, 1] / pca[4].sum(dtype=np.float64), rtol=1e-5)
