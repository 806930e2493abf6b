"""Data that changes under scvi-tools' loaders: an epoch delivers what the AnnData held when it began, or an error.

The oracle is the stock loader, made of the object when the epoch begins.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import torch
from tests.support.scvi_toys import backed, manager, toy

from annfeed import AnnDataLoader, StaleDataError, UnknownNameError
from annfeed.scvi import use

pytestmark = pytest.mark.filterwarnings("ignore")
FORMS = ("memory", "backed")


def held(registered: Any) -> dict[str, torch.Tensor]:
    """What the stock class gives of all cells, now."""
    from scvi.dataloaders import AnnDataLoader as Stock

    (batch,) = Stock(registered, batch_size=len(registered.adata))
    return copy.deepcopy(batch)


def check(batches: Iterator[Any], expected: dict[str, torch.Tensor], start: int = 0) -> None:
    """All batches that are left, in order, are the rows from ``start`` on."""
    found = list(batches)
    for key, values in expected.items():
        assert torch.equal(torch.cat([batch[key] for batch in found]), values[start:]), key


def set_up(form: str, folder: Path, layer: str | None, kind: str = "csr") -> tuple[anndata.AnnData, Any]:
    adata = toy(23, kind=kind)
    adata = adata if form == "memory" else backed(adata, folder)
    return adata, manager(adata, layer=layer)


def _replaced(adata: anndata.AnnData) -> None:
    if adata.isbacked:
        adata.layers["counts"] = adata.layers["counts"] * 2
    else:
        adata.X, adata.layers["counts"] = adata.X * 2, adata.layers["counts"] * 2


def _another_layout(adata: anndata.AnnData) -> None:
    matrix = adata.layers["counts"]
    adata.layers["counts"] = (matrix + matrix).toarray() if hasattr(matrix, "toarray") else matrix + matrix


def _columns_replaced(adata: anndata.AnnData) -> None:
    for name in ("_scvi_batch", "_scvi_labels", "depth"):
        adata.obs[name] = adata.obs[name].to_numpy()[::-1].copy()
    for name in ("_scvi_extra_categorical_covs", "_scvi_extra_continuous_covs"):
        adata.obsm[name] = adata.obsm[name].iloc[::-1].set_axis(adata.obs_names)


def _columns_written_to(adata: anndata.AnnData) -> None:
    for name, shift in {"_scvi_batch": 1, "_scvi_labels": 2, "depth": 0.5}.items():
        adata.obs.loc[adata.obs_names[15:], name] += shift
    adata.obsm["_scvi_extra_continuous_covs"].loc[adata.obs_names[15:], "age"] += 1


def _frame_replaced(adata: anndata.AnnData) -> None:
    frame = adata.obs.copy()
    frame["_scvi_batch"] = 1
    adata.obs = frame


def _file_closed(adata: anndata.AnnData) -> None:
    if adata.isbacked:
        adata.file.close()


def _set_up_again(adata: anndata.AnnData) -> None:
    manager(adata, batch_key="sex", labels_key="donor")


EDITS: dict[str, Callable[[Any], None]] = {
    "matrices replaced": _replaced,
    "a layer of another layout": _another_layout,
    "columns replaced": _columns_replaced,
    "columns written to": _columns_written_to,
    "obs replaced": _frame_replaced,
    "nothing": _file_closed,
    "set up again": _set_up_again,
}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("layer", [None, "counts"])
@pytest.mark.parametrize("form", FORMS)
def test_edits_are_for_the_next_epoch(form: str, layer: str | None, edit: str, workers: int, tmp_path: Path) -> None:
    adata, registered = set_up(form, tmp_path, layer)
    loader = AnnDataLoader(registered, batch_size=2, window=2, num_workers=workers, persistent_workers=workers > 0)
    EDITS[edit](adata)  # after the loader was made
    check(iter(loader), held(registered))
    EDITS[edit](adata)  # between epochs
    expected = held(registered)
    batches = iter(loader)
    first = next(batches)
    EDITS[edit](adata)  # in the midst of one
    check(iter([first, *batches]), expected)
    check(iter(loader), held(registered))


@pytest.mark.parametrize("kind", ["dense", "csr", "csc"])
def test_numbers_overwritten_between_epochs_are_those_of_the_next(kind: str) -> None:
    adata, registered = set_up("memory", Path(), "counts", kind)
    loader = AnnDataLoader(registered, batch_size=5)
    check(iter(loader), held(registered))
    matrix = adata.layers["counts"]
    (matrix if kind == "dense" else matrix.data)[:] += 7
    check(iter(loader), held(registered))


def _filtered(adata: anndata.AnnData) -> None:
    adata._inplace_subset_obs(np.arange(adata.n_obs) > 2)


def _reordered(adata: anndata.AnnData) -> None:
    adata._inplace_subset_obs(np.arange(adata.n_obs)[::-1])


def _renamed(adata: anndata.AnnData) -> None:
    adata.obs_names = [f"{name}'" for name in adata.obs_names]


def _genes_reordered(adata: anndata.AnnData) -> None:
    adata._inplace_subset_var(np.arange(adata.n_vars)[::-1])


def _genes_filtered(adata: anndata.AnnData) -> None:
    adata._inplace_subset_var(np.arange(adata.n_vars) > 1)


REFUSED = {
    "cells filtered": (_filtered, "has 20 cells now; expected the 23"),
    "cells reordered": (_reordered, "other cells now, or has them in another order"),
    "cells renamed": (_renamed, "other cells now"),
    "genes reordered": (_genes_reordered, "other genes now, or has them in another order"),
    "genes filtered": (_genes_filtered, "has 4 genes now; expected the 6"),
}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("edit", REFUSED)
def test_other_cells_or_genes_are_refused(edit: str, workers: int) -> None:
    adata, registered = set_up("memory", Path(), None)
    loader = AnnDataLoader(registered, batch_size=5, num_workers=workers)
    expected = held(registered)
    batches = iter(loader)
    first = next(batches)
    change, message = REFUSED[edit]
    change(adata)
    check(iter([first, *batches]), expected)  # the epoch that runs has what it began with
    with pytest.raises(StaleDataError, match=message):
        list(loader)
    with pytest.raises(StaleDataError, match=message):
        loader.dataset[0]


@pytest.mark.parametrize("whole", [False, True])
def test_a_modality_that_was_filtered_is_refused(whole: bool) -> None:
    import mudata

    mdata = mudata.MuData({"rna": toy(8), "other": toy(8, seed=1)})

    class Manager:
        def __init__(self) -> None:
            self.adata = mdata
            self.data_registry = {"X": _Place("X", None, "rna")}

        def get_from_registry(self, key: str) -> Any:
            return mdata["rna"].X

    loader = AnnDataLoader(Manager(), batch_size=3)
    np.testing.assert_array_equal(
        torch.cat([batch["X"] for batch in loader]).numpy(), mdata["rna"].X.toarray().astype("float32")
    )
    _reordered(mdata["rna"])
    if whole:
        mdata.update()
    with pytest.raises(StaleDataError, match=r"(modality 'rna'|MuData) has other cells"):
        list(loader)


class _Place(dict[str, Any]):
    """Where a key lies, as scvi-tools says it."""

    def __init__(self, attr_name: str, attr_key: str | None, mod_key: str) -> None:
        super().__init__(attr_name=attr_name, attr_key=attr_key)
        self.mod_key = mod_key


def test_a_matrix_that_is_gone_is_told(tmp_path: Path) -> None:
    adata, registered = set_up("backed", tmp_path, "counts")
    loader = AnnDataLoader(registered, batch_size=5)
    del adata.layers["counts"]
    with pytest.raises(UnknownNameError, match="counts"):
        list(loader)


@pytest.mark.parametrize("form", FORMS)
def test_a_model_follows_its_anndata(form: str, tmp_path: Path) -> None:
    """The getters of a model with `use` give what those of the stock model give of the object at that moment."""
    from scvi.model import SCVI

    adata, _ = set_up(form, tmp_path, "counts")
    model = SCVI(adata, n_hidden=4, n_latent=2)
    model.module.eval()
    model.is_trained_ = True
    ours = use(copy.copy(model))

    def same() -> None:
        np.testing.assert_array_equal(
            ours.get_latent_representation(give_mean=True), model.get_latent_representation(give_mean=True)
        )

    same()
    for edit in (_replaced, _columns_replaced, _columns_written_to, _another_layout):
        edit(adata)
        same()
