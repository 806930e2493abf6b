"""Modalities of a MuData of which no matrix is read: nothing is held of them, and what is wrong with them waits."""

from __future__ import annotations

import gc
import pickle
from pathlib import Path
from typing import Any

import h5py
import mudata
import numpy as np
import pandas as pd
import pytest
from tests.support.mudata_toys import ELEMS, cite, expected, modality, read, written

from annfeed import AnnDataset
from annfeed.errors import FormatError, StaleFileError, UnknownNameError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:mudata", "ignore::FutureWarning:mudata")

RNA = {"rna": "mod/rna/X", "pca": "mod/rna/obsm/X_pca"}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(cite(), tmp_path_factory.mktemp("mudata") / "cite.h5mu")


@pytest.fixture
def bad(path: Path, tmp_path: Path) -> Path:
    """A file whose map of the protein names a cell that is not there."""
    copied = tmp_path / "bad.h5mu"
    copied.write_bytes(path.read_bytes())
    with h5py.File(copied, "r+") as file:
        file["obsmap/prot"][np.flatnonzero(file["obsmap/prot"][()])[0]] = 99
    return copied


def damaged() -> mudata.MuData:
    mdata = cite()
    mdata.mod["prot"] = mdata["prot"][:9].copy()  # without mdata.update()
    return mdata


def check(dataset: AnnDataset, mdata: mudata.MuData) -> None:
    batch, wanted = dataset[:].batch, expected(mdata)
    for key in ("rna", "pca"):
        np.testing.assert_array_equal(batch[key].numpy(), wanted[key])


@pytest.mark.parametrize("form", ["file", "list", "memory"])
def test_a_wrong_map_of_an_unread_modality(bad: Path, form: str) -> None:
    source: Any = {"file": bad, "list": [bad], "memory": damaged()}[form]
    columns = ["donor", "rna:leiden"]
    for cells in ("all", ["rna"]):
        dataset = AnnDataset(source, elem=RNA, cells=cells, obs_columns=columns)
        wanted = cite()
        rows = np.arange(wanted.n_obs) if cells == "all" else np.flatnonzero(wanted.obsmap["rna"])
        np.testing.assert_array_equal(dataset[:].batch["rna"].numpy(), expected(wanted)["rna"][rows])
        assert dataset.obs["donor"].tolist() == wanted.obs["donor"].iloc[rows].tolist()
    check(pickle.loads(pickle.dumps(AnnDataset(source, elem=RNA, cells="all", obs_columns=columns))), cite())
    leave_out = r"obsmap/prot.*mdata\.update\(\)\. Or leave 'prot' out: its columns \(obs_columns=\)"
    for options in ({"obs_columns": ["prot:leiden"]}, {"cells": ["prot"], "obs_columns": columns}, {}):
        with pytest.raises(FormatError, match=leave_out):
            AnnDataset(source, elem=RNA, **{"cells": "all", **options})


@pytest.mark.parametrize("form", ["file", "memory"])
def test_columns_of_an_unread_modality_are_found_later(path: Path, form: str) -> None:
    source, mdata = path if form == "file" else read(path), read(path)
    dataset = AnnDataset(source, elem=RNA, cells="all", obs_columns=["donor"])
    wanted = mdata["prot"].obs["leiden"].reindex(mdata.obs_names)
    copies = [dataset, pickle.loads(pickle.dumps(dataset))] if form == "file" else [dataset]
    for one in copies:
        np.testing.assert_array_equal(one.obs_column("prot:leiden").isna(), wanted.isna())
        assert one.obs_column("prot:leiden").dropna().tolist() == wanted.dropna().tolist()
        check(one, mdata)


def test_a_file_that_was_replaced_before_a_column_was_asked_for(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "cells.h5mu"
    file.write_bytes(path.read_bytes())
    dataset = AnnDataset(file, elem=RNA, cells="all", obs_columns=["donor"])
    written(cite(30), file)
    with pytest.raises(StaleFileError):
        dataset.obs_column("prot:leiden")


def test_names_of_cells_are_not_held(tmp_path: Path) -> None:
    """Of all modalities: they take more memory than all else that a dataset holds for a cell."""
    n = 300
    cells = [f"cell{i}" for i in range(n)]
    parts = {name: modality(cells[i:], 3, i, name, sparse=False) for i, name in enumerate(("rna", "prot", "atac"))}
    file = written(mudata.MuData(parts), tmp_path / "cells.h5mu")
    del parts
    gc.collect()

    def names() -> list[int]:
        gc.collect()
        return [id(one) for one in gc.get_objects() if type(one) is pd.Index and len(one) > n - 3]

    before = names()
    dataset = AnnDataset(file, elem={"rna": "mod/rna/X", "prot": "mod/prot/X"})
    assert dataset[:3].batch["rna_measured"].tolist() == [True] * 3
    assert [one for one in names() if one not in before] == []
    assert dataset.obs_names.tolist() == cells


@pytest.mark.parametrize("form", ["file", "list", "memory"])
def test_a_column_that_the_obs_of_all_cells_has(path: Path, form: str) -> None:
    source: Any = {"file": path, "list": [path, path], "memory": read(path)}[form]
    found = r"has no column 'donor'.*The obs of all cells has 'donor': pass cells='all'.*'rna:<column>'"
    for elem in ({"rna": "mod/rna/X"}, "mod/rna/X"):
        with pytest.raises(UnknownNameError, match=found):
            AnnDataset(source, elem=elem, obs_columns=["n", "donor"])
        AnnDataset(source, elem=elem, obs_columns=["rna:n", "donor"], cells="all")
    with pytest.raises(UnknownNameError, match=r"has no column 'dnor'") as raised:
        AnnDataset(source, elem="mod/rna/X", obs_columns=["n", "dnor"])
    assert "cells=" not in str(raised.value)
    with pytest.raises(UnknownNameError, match=r"has no column 'rna:leyden'"):
        AnnDataset(source, elem=ELEMS, obs_columns=["rna:leyden"])


def test_what_is_advised_was_not_passed_already() -> None:
    with_donor, without = cite(), cite(prefix="other")
    del without.obs["donor"]
    with pytest.raises(KeyError, match="join='outer'") as told:
        AnnDataset([with_donor, without], elem="mod/rna/X", cells="all", obs_columns=["donor"])
    assert "cells=" not in str(told.value)
