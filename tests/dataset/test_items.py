"""`AnnDataset`: what an item and a batch hold: types, columns of obs, matrices by ``elem``."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from tests.dataset.toys_at import KINDS, ROWS, batch_at
from tests.support.toys import FORMS, assert_same, dense, hand_over, toy

from annfeed import AnnDataset

# --- items and batches -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_item_is_as_the_contract_says(tmp_path: Path, form: str) -> None:
    adata = toy()
    wanted = {
        "X": torch.from_numpy(dense(adata.X)[5]),
        "obs_row": torch.tensor(5),
        "obs_score": torch.tensor(1.25),
        "obs_flag": torch.tensor(False),
        "obs_label": "type 2",
        "obs_text": "cell of row 5",
    }
    item = AnnDataset(hand_over(adata, form, tmp_path))[5]
    assert_same(item, wanted)
    assert item["X"].shape == (7,)
    assert item["obs_row"].shape == ()


@pytest.mark.parametrize("form", FORMS)
def test_batch_is_as_the_contract_says(tmp_path: Path, form: str) -> None:
    adata = toy()
    wanted = {
        "X": torch.from_numpy(dense(adata.X)[[5, 0]]),
        "obs_row": torch.tensor([5, 0]),
        "obs_score": torch.tensor([1.25, 0.0]),
        "obs_flag": torch.tensor([False, True]),
        "obs_label": ["type 2", "type 0"],
        "obs_text": ["cell of row 5", "cell of row 0"],
    }
    assert_same(batch_at(AnnDataset(hand_over(adata, form, tmp_path)), [5, 0]), wanted)


#: obs column, its values in a batch, and its codes with what they stand for.
OBS = [
    (pd.array([1, 2, 1], "int8"), torch.tensor([1, 2, 1]), None),
    (pd.array([1, 2, 2**40], "uint64"), torch.tensor([1, 2, 2**40]), None),
    (np.array([0.5, np.nan, 1], "float64"), torch.tensor([0.5, torch.nan, 1.0]), None),
    (np.array([0.5, 2, 1], "float16"), torch.tensor([0.5, 2, 1.0]), None),
    (np.array([True, False, True]), torch.tensor([True, False, True]), None),
    (pd.array([1, 2, 3], "Int32"), torch.tensor([1, 2, 3]), None),
    (pd.array([1, None, 3], "Int64"), torch.tensor([1, torch.nan, 3], dtype=torch.float64), None),
    (pd.array([True, None, False], "boolean"), torch.tensor([1, torch.nan, 0], dtype=torch.float64), None),
    (pd.Categorical(["b", None, "a"], ["z", "b", "a"]), ["b", "nan", "a"], ([1, -1, 2], ["z", "b", "a"])),
    (pd.Categorical([2, 1, 2]), ["2", "1", "2"], ([1, 0, 1], [1, 2])),
    (np.array(["y", "x", "y"], object), ["y", "x", "y"], ([1, 0, 1], ["x", "y"])),
    (pd.array(["y", None, "x"], "string"), ["y", "nan", "x"], ([1, -1, 0], ["x", "y"])),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("column", "values", "coded"), OBS)
def test_obs_column(tmp_path: Path, form: str, column, values, coded) -> None:
    adata = anndata.AnnData(np.eye(3, dtype="float32"), obs=pd.DataFrame({"c": column}, index=list("uvw")))
    with anndata.settings.override(allow_write_nullable_strings=True):
        given = hand_over(adata, form, tmp_path)
    found, order = AnnDataset(given), [0, 1, 2, 1]
    wanted = values[order] if isinstance(values, torch.Tensor) else [values[i] for i in order]
    assert_nan_same(batch_at(found, order)["obs_c"], wanted)
    assert_nan_same(found[1]["obs_c"], values[1])
    as_codes = AnnDataset(given, categories="code")
    if coded is None:
        assert_nan_same(batch_at(as_codes, order)["obs_c"], wanted)
        assert as_codes.categories == {}
    else:
        codes, categories = coded
        assert_same({"c": batch_at(as_codes, order)["obs_c"]}, {"c": torch.tensor(codes)[order]})
        assert as_codes[0]["obs_c"] == codes[0]
        assert as_codes.categories["c"].tolist() == categories


def assert_nan_same(found, wanted) -> None:
    assert type(found) is type(wanted)
    if isinstance(wanted, torch.Tensor):
        assert found.dtype is wanted.dtype
        torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)
    else:
        assert found == wanted


def test_floats_of_obs_have_torchs_default_dtype() -> None:
    dataset = AnnDataset(toy())
    torch.set_default_dtype(torch.float64)
    try:
        assert dataset[1]["obs_score"].dtype is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert dataset[1]["obs_score"].dtype is torch.float32


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("columns", "keys"),
    [
        (None, ["X", "obs_row", "obs_score", "obs_flag", "obs_label", "obs_text"]),
        ([], ["X"]),
        (["text", "row"], ["X", "obs_text", "obs_row"]),
        (("label",), ["X", "obs_label"]),
        (np.array(["flag"]), ["X", "obs_flag"]),
    ],
)
def test_obs_columns(shelf: Path, form: str, columns, keys: list[str]) -> None:
    dataset = AnnDataset(hand_over(toy(), form, shelf, "csr"), obs_columns=columns)
    assert list(dataset[0]) == keys
    assert [f"obs_{name}" for name in dataset.obs.columns] == keys[1:]


def test_codes_are_those_of_the_whole_column_for_any_subset(tmp_path: Path) -> None:
    # anndata drops unused categories when it slices; labels must not drift between train and test.
    path = hand_over(toy(), "path", tmp_path)
    codes = {"type 2": 0, "type 0": 1, "type 1": 3}
    for rows in ([0, 3], [1], [2, 4]):
        dataset = AnnDataset(path, obs_subset=rows, categories="code")
        assert dataset.categories["label"].tolist() == ["type 2", "type 0", "unused", "type 1"]
        assert batch_at(dataset, list(range(len(rows))))["obs_label"].tolist() == [codes[f"type {r % 3}"] for r in rows]


# --- elem ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", FORMS)
def test_elem(shelf: Path, form: str, kind: str) -> None:
    adata = toy(kind=kind)
    given = hand_over(adata, form, shelf, kind)
    oracle = {
        "X": adata.X,
        "raw/X": adata.raw.X,
        "layers/counts": adata.layers["counts"],
        "obsm/X_pca": adata.obsm["X_pca"],
    }
    for elem, matrix in oracle.items():
        dataset = AnnDataset(given, elem=elem)
        assert dataset.shape == matrix.shape
        np.testing.assert_array_equal(batch_at(dataset, ROWS)["X"].numpy(), dense(matrix)[ROWS], err_msg=elem)


@pytest.mark.parametrize("form", FORMS)
def test_several_elems_each_under_its_key(tmp_path: Path, form: str) -> None:
    adata = toy()
    elem = {"counts": "layers/counts", "pca": "obsm/X_pca", "all": "raw/X"}
    dataset = AnnDataset(hand_over(adata, form, tmp_path), elem=elem, obs_columns=["row"], var_subset=None)
    batch = batch_at(dataset, ROWS)
    assert list(batch) == ["counts", "pca", "all", "obs_row"]
    np.testing.assert_array_equal(batch["counts"].numpy(), dense(adata.layers["counts"])[ROWS])
    np.testing.assert_array_equal(batch["pca"].numpy(), adata.obsm["X_pca"][ROWS])
    np.testing.assert_array_equal(batch["all"].numpy(), dense(adata.raw.X)[ROWS])
    assert dataset.shape == (40, 7)
    assert [tuple(dataset[0][key].shape) for key in elem] == [(7,), (3,), (14,)]


def test_x_is_the_default_though_there_is_raw(tmp_path: Path) -> None:
    assert AnnDataset(hand_over(toy(), "path", tmp_path)).shape == (40, 7)


def test_dataframe_in_obsm() -> None:
    adata = toy()
    adata.obsm["frame"] = pd.DataFrame(np.arange(80.0).reshape(40, 2), index=adata.obs_names, columns=["a", "b"])
    assert AnnDataset(adata, elem="obsm/frame")[2]["X"].tolist() == [4, 5]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("elem", "error", "message"),
    [
        ("layers/count", KeyError, "counts"),
        ("obsm/X_umap", KeyError, "X_pca"),
        ("nowhere", KeyError, "layers/<name>"),
        ("mod/rna/X", KeyError, "mod/rna/X"),
        ({}, ValueError, "empty"),
        (3, TypeError, "elem is 3"),
        ({"X": None}, TypeError, "elem is None"),
    ],
)
def test_elem_that_is_not_there(shelf: Path, form: str, elem, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        AnnDataset(hand_over(toy(), form, shelf, "csr"), elem=elem)
