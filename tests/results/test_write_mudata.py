"""Results of the cells of a MuData: into its obs and obsm, or those of one modality; in a file and in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.support.mudata_toys import ELEMS, cite, expected, read, written

from annfeed import AnnDataset, write_obs, write_obsm

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:mudata", "ignore::FutureWarning:mudata")


@pytest.mark.parametrize("in_file", [True, False])
def test_results_go_to_the_cells(in_file: bool, tmp_path: Path) -> None:
    mdata = cite()
    path = written(mdata, tmp_path / "cells.h5mu")
    source = path if in_file else mdata
    wanted = expected(mdata)
    sums = np.where(wanted["rna_measured"], wanted["rna"].sum(1), np.nan)
    dataset = AnnDataset(source, elem=ELEMS, cells=["rna"])
    results = [(batch["index"], batch["rna"].sum(1)) for batch in dataset.predict_loader(7)]
    write_obs(dataset, "total", results)
    write_obs(source, "again", results)
    write_obsm(dataset, "X_total", [(index, values[:, None]) for index, values in results], fill=float("nan"))
    of_rna = AnnDataset(source, elem="mod/rna/X")
    write_obs(of_rna, "own", [(batch["index"], batch["X"].sum(1)) for batch in of_rna.predict_loader(7)])
    after = read(path) if in_file else mdata
    for values in (after.obs["total"], after.obs["again"], after.obsm["X_total"][:, 0]):
        np.testing.assert_array_equal(np.asarray(values, float), sums)
    np.testing.assert_array_equal(after["rna"].obs["own"], np.asarray(after["rna"].X.sum(axis=1)).ravel())
    # The dataset goes on; what is in the file now has the new columns.
    assert dataset[0]["rna"].shape == (12,)
    assert {"obs_total", "obs_rna:own"} <= set(AnnDataset(source, elem=ELEMS)[0])
