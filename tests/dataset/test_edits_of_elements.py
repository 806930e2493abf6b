"""Each thing that an AnnData holds may be edited under a dataset: raw, layers, obsm (arrays and tables), its file.

The oracle is anndata: a copy of what the object gives, taken when an epoch begins.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from tests.support.toys import dense, toy, write

from annfeed import AnnDataset, StaleDataError, UnknownNameError

pytestmark = pytest.mark.filterwarnings("ignore")
FORMS = ("memory", "backed")


def handed_over(form: str, folder: Path) -> anndata.AnnData:
    adata = toy(24)
    adata.obsm["table"] = pd.DataFrame({"a": np.arange(24.0), "b": np.arange(24) * 2}, index=adata.obs_names)
    return adata if form == "memory" else anndata.read_h5ad(write(adata, folder / "toy.h5ad"), backed="r")


def held(adata: anndata.AnnData, elem: str) -> np.ndarray:
    """What the object gives now, copied."""
    kind, _, name = elem.partition("/")
    if elem == "raw/X":
        return np.array(dense(adata.raw[:].X))
    value = adata.X if elem == "X" else getattr(adata, kind)[name]
    return np.array(value if isinstance(value, pd.DataFrame) else dense(value[:]))


def check_epochs(dataset: AnnDataset, now: Callable[[], np.ndarray], edit: Callable[[], Any], **options: Any) -> None:
    """Edits before the first epoch, between epochs and in the midst of one are those of the next."""
    loader = dataset.get_optimized_dataloader(2, seed=1, return_index=True, **options)

    def check(expected: np.ndarray, batches: Any) -> None:
        rows = 0
        for batch in batches:
            np.testing.assert_array_equal(batch["X"].numpy(), expected[batch["index"].numpy()])
            rows += len(batch["index"])
        assert rows == len(dataset)

    edit()
    check(now(), loader)
    edit()
    expected, batches = now(), iter(loader)
    first = next(batches)
    edit()
    check(expected, [first, *batches])
    check(now(), loader)
    np.testing.assert_array_equal(dataset[3]["X"].numpy(), now()[dataset.rows_at(np.array([3]))[0]])


def _another_raw(adata: anndata.AnnData) -> None:
    raw = adata.raw.to_adata()
    raw.X = raw.X[:] * 2
    adata.raw = raw


def _table_columns(adata: anndata.AnnData) -> None:
    adata.obsm["table"]["a"] = adata.obsm["table"]["a"].to_numpy() + 100


def _table_values(adata: anndata.AnnData) -> None:
    adata.obsm["table"].loc[adata.obs_names[5:], "b"] += 7


def _another_table(adata: anndata.AnnData) -> None:
    adata.obsm["table"] = adata.obsm["table"] * 3 + 1


def _another_array(adata: anndata.AnnData) -> None:
    adata.obsm["X_pca"] = np.array(adata.obsm["X_pca"]) + 1


def _another_layer(adata: anndata.AnnData) -> None:
    adata.layers["counts"] = adata.layers["counts"] * 2


def _layer_of_another_layout(adata: anndata.AnnData) -> None:
    matrix = adata.layers["counts"]
    adata.layers["counts"] = matrix.toarray() + 1 if hasattr(matrix, "toarray") else matrix * 3


EDITS = {
    "raw": ("raw/X", _another_raw),
    "columns of a table": ("obsm/table", _table_columns),
    "values of a table": ("obsm/table", _table_values),
    "another table": ("obsm/table", _another_table),
    "an array": ("obsm/X_pca", _another_array),
    "a layer": ("layers/counts", _another_layer),
    "a layer of another layout": ("layers/counts", _layer_of_another_layout),
}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("form", "edit"), [("memory", "raw"), *((form, edit) for form in FORMS for edit in EDITS if edit != "raw")]
)  # of a backed one, anndata lets nobody set another raw
def test_edits_of_each_element_are_for_the_next_epoch(form: str, edit: str, workers: int, tmp_path: Path) -> None:
    elem, change = EDITS[edit]
    adata = handed_over(form, tmp_path)
    dataset = AnnDataset(adata, elem=elem, obs_columns=[])
    check_epochs(dataset, lambda: held(adata, elem), lambda: change(adata), num_workers=workers)


def _without_raw(adata: anndata.AnnData) -> None:
    adata.raw = None


def _raw_of_other_genes(adata: anndata.AnnData) -> None:
    adata.raw = adata.raw.to_adata()[:, 1:]


GONE: dict[str, tuple[str, Callable[[Any], Any], type[Exception], str]] = {
    "raw": ("raw/X", _without_raw, UnknownNameError, "no 'raw/X'"),
    "raw of others": ("raw/X", _raw_of_other_genes, StaleDataError, "13 genes now; expected the 14"),
    "table": ("obsm/table", lambda adata: adata.obsm.pop("table"), UnknownNameError, "no 'obsm/table' any more"),
    "column of a table": ("obsm/table", lambda adata: adata.obsm["table"].pop("a"), StaleDataError, "columns"),
    "array": ("obsm/X_pca", lambda adata: adata.obsm.pop("X_pca"), UnknownNameError, "no obsm"),
    "layer": ("layers/counts", lambda adata: adata.layers.pop("counts"), UnknownNameError, "no layers"),
}


@pytest.mark.parametrize(
    ("form", "what"),
    [("memory", "raw of others"), *((f, what) for f in FORMS for what in GONE if "others" not in what)],
)
def test_what_is_gone_is_told_by_the_next_epoch(form: str, what: str, tmp_path: Path) -> None:
    elem, change, error, message = GONE[what]
    adata = handed_over(form, tmp_path)
    dataset = AnnDataset(adata, elem=elem, obs_columns=[])
    loader = dataset.get_optimized_dataloader(2, seed=1, return_index=True)
    expected, batches = held(adata, elem), iter(loader)
    first = next(batches)
    change(adata)
    for batch in [first, *batches]:
        np.testing.assert_array_equal(batch["X"].numpy(), expected[batch["index"].numpy()])
    for read in (lambda: next(iter(loader)), lambda: dataset[0]):
        with pytest.raises(error, match=message):
            read()


# --- parts of a dataset -----------------------------------------------------------------------------------------------


def _everything(adata: anndata.AnnData) -> None:
    if not adata.isbacked:
        adata.X = adata.X * 2
    adata.layers["counts"] = adata.layers["counts"] * 2
    adata.obs["row"] = adata.obs["row"].to_numpy() + 1000


PARTS: dict[str, Callable[[AnnDataset], AnnDataset]] = {
    "split": lambda dataset: dataset.split({"train": 0.75, "val": 0.25}, stratify="label")["train"],
    "subset": lambda dataset: dataset.subset([11, 3, 3, 0, 7, 9]),
    "subset of a part": lambda dataset: dataset.split({"a": 0.5, "b": 0.5})["b"].subset(slice(1, 10, 2)),
}


@pytest.mark.parametrize("made", ["obs_subset", "whole"])
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("form", FORMS)
def test_parts_made_before_an_edit_follow(form: str, part: str, made: str, tmp_path: Path) -> None:
    adata = handed_over(form, tmp_path)
    subset = np.arange(23, -1, -1) if made == "obs_subset" else None
    dataset = AnnDataset(
        adata, elem="layers/counts", obs_columns=["row"], obs_subset=subset, var_subset=["gene4", "gene0"]
    )
    some = PARTS[part](dataset)
    genes = [4, 0]
    check_epochs(some, lambda: held(adata, "layers/counts")[:, genes], lambda: _everything(adata))
    rows = some.rows_at(np.arange(len(some)))
    assert some.obs["row"].tolist() == adata.obs["row"].iloc[rows].tolist()
    assert [some[i]["obs_row"].item() for i in (0, 2)] == adata.obs["row"].iloc[rows[[0, 2]]].tolist()


@pytest.mark.parametrize("part", PARTS)
def test_parts_made_before_filtering_are_refused(part: str) -> None:
    adata = toy(24)
    some = PARTS[part](AnnDataset(adata, obs_columns=["row"]))
    adata._inplace_subset_obs(np.arange(24) != 5)
    for read in (lambda: next(iter(some.get_optimized_dataloader(2))), lambda: some[0], lambda: some.obs):
        with pytest.raises(StaleDataError, match="23 cells now; expected the 24"):
            read()


# --- a file that the AnnData writes to --------------------------------------------------------------------------------


def _x_in_place(adata: anndata.AnnData) -> None:
    adata.X[4:9] = adata.X[4:9] + 50


def _x_assigned(adata: anndata.AnnData) -> None:
    adata.X = np.asarray(dense(adata.X[:])) + 3


@pytest.mark.parametrize("edit", [_x_in_place, _x_assigned])
@pytest.mark.parametrize("written", [False, True])
def test_what_a_backed_anndata_writes_is_what_comes_next(
    edit: Callable[[Any], None], written: bool, tmp_path: Path
) -> None:
    whole = toy(24, kind="dense")
    del whole.raw  # of which anndata cannot write a backed one again
    adata = anndata.read_h5ad(write(whole, tmp_path / "toy.h5ad"), backed="r+")
    dataset = AnnDataset(adata, obs_columns=["row"])
    loader = dataset.get_optimized_dataloader(3, shuffle=False)
    for number in range(3):
        adata.obs["row"] = np.arange(24) + 100 * number
        edit(adata)
        if written and adata.isbacked:  # with anndata 0.13 another X takes it into memory
            adata.write()
        expected = np.array(adata.X[:])
        batches = list(loader)
        np.testing.assert_array_equal(np.concatenate([batch["X"].numpy() for batch in batches]), expected)
        assert np.concatenate([batch["obs_row"].numpy() for batch in batches]).tolist() == adata.obs["row"].tolist()
        np.testing.assert_array_equal(dataset[6]["X"].numpy(), expected[6])


def test_what_a_backed_anndata_writes_in_mid_epoch_is_not_mixed_in(tmp_path: Path) -> None:
    whole = toy(400, kind="dense")
    del whole.raw
    adata = anndata.read_h5ad(write(whole, tmp_path / "toy.h5ad"), backed="r+")
    dataset = AnnDataset(adata, obs_columns=["row"], window=4)
    loader = dataset.get_optimized_dataloader(4, seed=3, prefetch_batches=1)
    expected, batches = np.array(adata.X[:]), iter(loader)
    found = [next(batches)]
    _x_in_place(adata)
    adata.file._file.flush()
    with pytest.raises(OSError, match="was written to since it was opened"):
        found.extend(batches)  # those that come before the error stay
    assert len(found) < 100
    for batch in found:
        np.testing.assert_array_equal(batch["X"].numpy(), expected[batch["obs_row"].numpy()])
