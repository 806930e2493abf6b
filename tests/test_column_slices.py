"""Columns and rows with a step, or from the end on: a slice means in each storage and form what it means in numpy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toys import FORMS, dense, hand_over, toy

from annfeed import AnnDataset, NormalizeTotal

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
