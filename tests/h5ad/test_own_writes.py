"""Datasets whose files annfeed itself writes to: what is added changes nothing, and what is replaced is never mixed.

What should come is what anndata reads from the file, before and after.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from tests.support.toys import toy

from annfeed import AnnDataset, StaleFileError, write_obs, write_obsm

N = 40


@pytest.fixture
def path(tmp_path: Path) -> Path:
    adata = toy()
    adata.obsm["protein"] = pd.DataFrame({"CD3": np.arange(N), "CD4": -np.arange(N)}, index=adata.obs_names)
    adata.obsm["X_old"] = np.stack([np.arange(N), -np.arange(N)], axis=1).astype("float32")
    adata.obs["kind"] = pd.Categorical(["x"] * 30 + ["y"] * 10, ["y", "x"])
    adata.obs["other"] = ["p", "q"] * (N // 2)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


def new_values(key: str, width: int) -> Any:
    values = np.full((N, width), 7.0, "float32")
    return values if key == "X_old" else pd.DataFrame(values, columns=[f"P{i}" for i in range(width)])


# --- elements that are replaced --------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [2, 1, 5])
@pytest.mark.parametrize("key", ["protein", "X_old"])
@pytest.mark.parametrize("form", ["alone", "beside X", "in a list"])
def test_an_element_that_is_replaced_in_mid_epoch(path: Path, key: str, form: str, width: int) -> None:
    elem: Any = {"X": "X", "M": f"obsm/{key}"} if form == "beside X" else f"obsm/{key}"
    dataset = AnnDataset([path] if form == "in a list" else path, elem=elem, window=8, cache=0)
    loader = dataset.get_optimized_dataloader(4, shuffle=False)
    old = np.asarray(anndata.read_h5ad(path).obsm[key], "float32")
    batches, rows = iter(loader), []
    rows.append(next(batches)["M" if form == "beside X" else "X"])
    write_obsm(path, key, new_values(key, width), overwrite=True)
    with pytest.raises(StaleFileError, match=f"'obsm/{key}' was replaced by write_obsm.*Make the dataset again"):
        rows += [batch["M" if form == "beside X" else "X"] for batch in batches]
    found = torch.cat(rows).numpy()
    np.testing.assert_array_equal(found, old[: len(found)])  # windows that were read before
    for again in (lambda: dataset[0], lambda: next(iter(loader)), lambda: pickle.loads(pickle.dumps(dataset))[0]):
        with pytest.raises(StaleFileError, match="Make the dataset again"):
            again()
    (batch,) = AnnDataset(path, elem=f"obsm/{key}").get_optimized_dataloader(N, shuffle=False)
    np.testing.assert_array_equal(batch["X"], np.full((N, width), 7.0))
    assert AnnDataset(path)[3]["obs_kind"] == "x"


def test_an_element_of_a_modality_is_that_of_its_modality(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "two.h5mu", "w") as file:
        for name in ("rna", "prot"):
            adata = toy()
            adata.obsm["X_old"] = np.ones((N, 2), "float32")
            anndata.io.write_elem(file.require_group("mod"), name, adata)
    rna, prot = (AnnDataset(tmp_path / "two.h5mu", elem=f"mod/{name}/obsm/X_old") for name in ("rna", "prot"))
    write_obsm(rna, "X_old", np.zeros((N, 2)), overwrite=True)
    assert prot[0]["X"].tolist() == [1, 1]
    with pytest.raises(StaleFileError, match="'mod/rna/obsm/X_old' was replaced"):
        rna[0]


def test_what_could_not_be_replaced_is_read_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = AnnDataset(path, elem="obsm/X_old", cache=0)

    def fail(*_: object) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(anndata.io, "write_elem", fail)
    with pytest.raises(OSError, match="no room"):
        write_obsm(path, "X_old", np.zeros((N, 2)), overwrite=True)
    monkeypatch.undo()
    assert dataset[3]["X"].tolist() == [3, -3]


# --- columns that are replaced ---------------------------------------------------------------------------------------


def labels(dataset: AnnDataset, batches: Any) -> list[str]:
    kinds = [kind for batch in batches for kind in batch["obs_kind"]]
    return kinds if isinstance(kinds[0], str) else [dataset.categories["kind"][int(code)] for code in kinds]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("categories", ["str", "code"])
@pytest.mark.parametrize("listed", [False, True])
def test_a_column_that_is_replaced_between_epochs(path: Path, categories: Any, listed: bool, num_workers: int) -> None:
    """Everything has the new one: batches, items, obs, splits and balanced orders."""
    dataset = AnnDataset([path] if listed else path, categories=categories)
    loader = dataset.get_optimized_dataloader(8, shuffle=False, num_workers=num_workers)
    assert labels(dataset, loader) == ["x"] * 30 + ["y"] * 10
    write_obs(dataset, "kind", ["a"] * 4 + ["b"] * 36, overwrite=True)
    new = anndata.read_h5ad(path).obs["kind"].astype(str).tolist()
    assert new == ["a"] * 4 + ["b"] * 36
    assert labels(dataset, loader) == new
    assert labels(dataset, [{"obs_kind": [dataset[i]["obs_kind"] for i in range(N)]}]) == new
    assert dataset.obs["kind"].tolist() == dataset.obs_column("kind").tolist() == new
    if categories == "code":
        assert dataset.categories["kind"].tolist() == ["a", "b"]
    parts = dataset.split({"train": 0.5, "val": 0.5}, stratify="kind", seed=1)
    for part in parts.values():
        assert labels(part, part.get_optimized_dataloader(8)).count("a") == 2
    drawn = labels(dataset, dataset.get_optimized_dataloader(8, balance="kind", n_samples=80, seed=1))
    assert (drawn.count("a"), drawn.count("b")) == (40, 40)


@pytest.mark.parametrize("listed", [False, True])
def test_a_column_that_is_replaced_in_mid_epoch(path: Path, listed: bool) -> None:
    """The epoch ends with the labels that it began with, and the next has the new ones."""
    dataset = AnnDataset([path] if listed else path, window=8)
    loader = dataset.get_optimized_dataloader(4, shuffle=False, prefetch_batches=0)
    batches = iter(loader)
    kinds = next(batches)["obs_kind"]
    write_obs(path, "kind", ["a"] * 4 + ["b"] * 36, overwrite=True)
    assert dataset[0]["obs_kind"] == "a"  # what is asked for now is what is there now
    assert dataset.obs_column("kind").tolist() == ["a"] * 4 + ["b"] * 36
    kinds += [kind for batch in batches for kind in batch["obs_kind"]]
    assert kinds == ["x"] * 30 + ["y"] * 10
    assert [kind for batch in loader for kind in batch["obs_kind"]] == ["a"] * 4 + ["b"] * 36


def test_a_column_that_is_replaced_before_an_epoch_read_it(path: Path) -> None:
    dataset = AnnDataset(path)
    epoch = dataset.reader.at_epoch(False)
    write_obs(path, "kind", ["a"] * N, overwrite=True)
    with pytest.raises(StaleFileError, match=r"column 'kind' was replaced by write_obs in mid-epoch.*again"):
        epoch.load(np.arange(4)).batch(0, 4)
    assert dataset.reader.at_epoch(False).load(np.arange(4)).batch(0, 4)["obs_kind"] == ["a"] * 4


def test_what_is_added_or_not_delivered_disturbs_no_epoch(path: Path) -> None:
    dataset = AnnDataset(path, obs_columns=["kind"], elem={"X": "X", "M": "obsm/protein"}, window=8, cache=0)
    before = anndata.read_h5ad(path)
    kinds, rows = [], []
    for number, batch in enumerate(dataset.get_optimized_dataloader(4, shuffle=False)):
        write_obs(path, f"new{number}", np.arange(N))
        write_obs(path, "other", ["r"] * N, overwrite=True)
        write_obsm(path, "X_old", np.full((N, number + 1), number), overwrite=True)
        kinds += batch["obs_kind"]
        rows.append(batch["M"])
    assert kinds == before.obs["kind"].tolist()
    np.testing.assert_array_equal(torch.cat(rows), before.obsm["protein"])
    assert set(dataset.obs_column("other")) == {"r"}


@pytest.mark.parametrize("listed", [False, True])
def test_a_new_column_is_not_delivered_by_a_copy_either(path: Path, listed: bool) -> None:
    """What goes to a spawned worker delivers what the dataset does."""
    dataset = AnnDataset([path] if listed else path)
    keys = list(dataset[0])
    write_obs(path, "new", np.arange(N))
    assert list(dataset[0]) == list(pickle.loads(pickle.dumps(dataset))[0]) == keys
    assert "obs_new" in AnnDataset(path)[0]


def test_a_write_within_one_tick_of_the_clock_is_seen(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On file systems that count time coarsely a file can change and keep size and time."""
    from annfeed.h5ad import identity

    dataset = AnnDataset(path, elem="obsm/X_old")
    known = identity.file_identity(str(path))
    with identity.own_write(str(path), "obsm/X_old"):
        pass
    assert identity.file_identity(str(path)) != known
    with pytest.raises(StaleFileError, match="was replaced"):
        dataset[0]
