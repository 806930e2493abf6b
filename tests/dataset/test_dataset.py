"""`AnnDataset`: what goes in (files, AnnData of every kind, subsets) and what comes out (items, batches, types)."""

import os
import pickle
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from tests.support.toys import FORMS, assert_same, dense, flat, hand_over, rows_of, toy
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

import annfeed
from annfeed import AnnDataset, Transform
from annfeed.sources.base import STATS

KINDS = ("csr", "csc", "dense")
#: Positions in no order, with repeats, the first and the last row among them.
ROWS = [17, 3, 39, 3, 0, 17, 17, 21]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for files that many tests read and none writes to: toy() in each kind and dtype, under that name."""
    return tmp_path_factory.mktemp("shelf")


def batch_at(dataset: AnnDataset, rows: list[int]) -> dict:
    """A batch through the public way: torch's DataLoader with our collate."""
    loader = torch.utils.data.DataLoader(dataset, batch_sampler=[rows], collate_fn=dataset.get_collate_fn())
    [batch] = loader
    return batch


# --- what may be handed over -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint16", "bool"])
def test_rows_equal_the_annotated_data(shelf: Path, form: str, kind: str, dtype: str) -> None:
    adata = toy(kind=kind, dtype=dtype)
    dataset = AnnDataset(hand_over(adata, form, shelf, kind + dtype))
    wanted = dense(adata.X).astype("float32")[ROWS]
    batch = batch_at(dataset, ROWS)
    assert batch["X"].dtype is torch.float32
    np.testing.assert_array_equal(batch["X"].numpy(), wanted)
    np.testing.assert_array_equal(torch.stack([dataset[row]["X"] for row in ROWS]).numpy(), wanted)
    assert batch["obs_row"].tolist() == ROWS


@pytest.mark.parametrize("form", FORMS)
def test_length_and_shape(tmp_path: Path, form: str) -> None:
    dataset = AnnDataset(hand_over(toy(40, 7), form, tmp_path))
    assert len(dataset) == 40
    assert dataset.shape == (40, 7)
    assert isinstance(dataset, torch.utils.data.Dataset)


@pytest.mark.parametrize("as_path", [str, Path, os.fspath, lambda path: os.path.relpath(path)])
def test_path_of_every_kind(tmp_path: Path, as_path) -> None:
    path = hand_over(toy(), "path", tmp_path)
    assert flat(rows_of([batch_at(AnnDataset(as_path(path)), ROWS)])) == ROWS


def test_path_in_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(hand_over(toy(), "path", tmp_path).parent))
    assert len(AnnDataset("~/toy.h5ad")) == 40


def test_relative_path_outlives_a_change_of_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hand_over(toy(), "path", tmp_path)
    monkeypatch.chdir(tmp_path)
    dataset = AnnDataset("toy.h5ad")
    pickled = pickle.dumps(dataset)
    monkeypatch.chdir("/")
    assert dataset[3]["obs_row"] == 3
    assert pickle.loads(pickled)[3]["obs_row"] == 3


@pytest.mark.parametrize("wrong", [None, 3, np.eye(3), sp.eye(3), pd.DataFrame()])
def test_anything_else_is_refused(wrong) -> None:
    with pytest.raises(TypeError, match=r"AnnData or the path of an \.h5ad"):
        AnnDataset(wrong)


VIEWS = [
    (slice(5, 30), slice(None)),
    ([31, 4, 4, 9], slice(None)),
    (slice(None, None, -3), ["gene0", "gene4", "gene1"]),
    (slice(None), [0, 5, 2]),
    ([3, 2, 30], slice(0, 4)),
    (np.arange(40) % 7 == 1, np.arange(7) != 3),
    (["cell7", "cell0"], slice(None)),
    ([], slice(None)),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["memory", "backed"])
@pytest.mark.parametrize(("rows", "genes"), VIEWS)
def test_view_gives_its_own_rows_and_genes(shelf: Path, form: str, kind: str, rows, genes) -> None:
    adata = toy(kind=kind)
    # The oracle is anndata's view of data in memory.
    wanted = adata[rows, genes]
    dataset = AnnDataset(hand_over(adata, form, shelf, kind)[rows, genes])
    assert dataset.shape == wanted.shape
    assert dataset.obs_names.tolist() == wanted.obs_names.tolist()
    assert dataset.var_names.tolist() == wanted.var_names.tolist()
    if not wanted.n_obs:
        return
    batch = next(iter(dataset.get_optimized_dataloader(batch_size=100, shuffle=False)))
    np.testing.assert_array_equal(batch["X"].numpy(), dense(wanted.X))
    assert batch["obs_row"].tolist() == wanted.obs["row"].tolist()
    assert batch["obs_label"] == wanted.obs["label"].astype(str).tolist()


@pytest.mark.parametrize("elem", ["X", "raw/X", "layers/counts", "obsm/X_pca"])
@pytest.mark.parametrize("form", ["memory", "backed"])
def test_every_matrix_of_a_view_has_the_views_rows(shelf: Path, form: str, elem: str) -> None:
    adata = toy()
    view, wanted = hand_over(adata, form, shelf, "csr")[[30, 2, 2, 11], [4, 1, 0]], adata[[30, 2, 2, 11], [4, 1, 0]]
    oracle = {
        "X": (wanted.X, wanted.var_names),
        "raw/X": (wanted.raw.X, wanted.raw.var_names),
        "layers/counts": (wanted.layers["counts"], wanted.var_names),
        "obsm/X_pca": (wanted.obsm["X_pca"], ["0", "1", "2"]),
    }
    matrix, names = oracle[elem]
    dataset = AnnDataset(view, elem=elem)
    np.testing.assert_array_equal(batch_at(dataset, [0, 1, 2, 3])["X"].numpy(), dense(matrix))
    assert dataset.var_names.tolist() == list(names)


def test_view_of_a_view_in_memory() -> None:
    adata = toy()
    dataset = AnnDataset(adata[5:30][[3, 2, 2]][:, ["gene2", "gene0"]][::-1])
    np.testing.assert_array_equal(batch_at(dataset, [0, 1, 2])["X"].numpy(), dense(adata.X)[[7, 7, 8]][:, [2, 0]])


@pytest.mark.parametrize("form", ["memory", "backed"])
def test_subsets_of_a_view_count_within_it(tmp_path: Path, form: str) -> None:
    view = hand_over(toy(), form, tmp_path)[10:30, ["gene5", "gene2", "gene0"]]
    dataset = AnnDataset(view, obs_subset=[19, 0, 0], var_subset=["gene0", "gene2"])
    assert dataset.shape == (3, 2)
    assert dataset.var_names.tolist() == ["gene0", "gene2"]
    assert dataset.obs_names.tolist() == ["cell29", "cell10", "cell10"]
    np.testing.assert_array_equal(batch_at(dataset, [0, 1, 2])["X"].numpy(), dense(toy().X)[[29, 10, 10]][:, [0, 2]])


def test_backed_data_stays_on_disk_while_obs_is_the_objects(tmp_path: Path) -> None:
    backed = hand_over(toy(), "backed", tmp_path)
    backed.obs["row"] = 100 + np.arange(40)
    backed.obs["new"] = "n"
    dataset = AnnDataset(backed)
    assert dataset[4]["obs_row"] == 104
    assert dataset[4]["obs_new"] == "n"
    assert dataset[4]["X"][0] == 4
    assert dataset.stats()["opens"] == 1


def test_backed_data_with_a_matrix_added_in_memory(tmp_path: Path) -> None:
    backed = hand_over(toy(), "backed", tmp_path)
    backed.obsm["extra"] = np.arange(80.0).reshape(40, 2)
    assert AnnDataset(backed, elem="obsm/extra")[3]["X"].tolist() == [6, 7]


# --- indexing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("index", "row"),
    [
        (0, 0),
        (39, 39),
        (-1, 39),
        (-40, 0),
        (np.int64(5), 5),
        (np.uint8(5), 5),
        (np.int32(-2), 38),
        (torch.tensor(7), 7),
        (np.array(7), 7),
    ],
)
def test_index(shelf: Path, form: str, index, row: int) -> None:
    item = AnnDataset(hand_over(toy(), form, shelf, "csr"))[index]
    assert item["obs_row"] == row
    assert item["X"][0] == row


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        (40, IndexError, "index 40 is out of range for a dataset of 40 rows"),
        (-41, IndexError, "index -41 is out of range for a dataset of 40 rows"),
        (1.0, TypeError, "float64"),
        (np.float64(1), TypeError, "float64"),
        ("1", TypeError, "integers"),
        ("cell1", TypeError, "integers"),
        (True, TypeError, "bool"),
        (None, TypeError, "integers"),
        ([0, 40], IndexError, "index 40 is out of range"),
        ([0, 1.5], TypeError, "float64"),
        ([[0, 1]], TypeError, "axes"),
        (["cell1"], TypeError, "integers"),
        ({0, 1}, TypeError, "a set"),
        ([True] * 39, ValueError, "mask of length 39, but there are 40 rows"),
        ((slice(0, 3), 1), TypeError, "object"),
    ],
)
def test_index_that_is_none(index, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        AnnDataset(toy())[index]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("output", ["dense", "csr"])
@pytest.mark.parametrize(
    ("index", "rows"),
    [
        ([3, 1, 3], [3, 1, 3]),
        ((3, -1), [3, 39]),
        (np.array([2, 0], "int16"), [2, 0]),
        (torch.tensor([2, 0]), [2, 0]),
        (range(4, 0, -2), [4, 2]),
        (slice(2, 5), [2, 3, 4]),
        (slice(None, -3, -1), [39, 38]),
        (np.arange(40) % 13 == 1, [1, 14, 27]),
        (pd.Series(np.arange(40) % 13 == 1, index=[f"cell{i}" for i in range(40)])[::-1], [1, 14, 27]),
        ([], []),
    ],
    ids=str,
)
def test_several_items(shelf: Path, form: str, output: str, index: Any, rows: list[int]) -> None:
    dataset = AnnDataset(hand_over(toy(), form, shelf), output=output)
    items = dataset[index]
    assert len(items) == len(rows)
    for found, row in zip(items, rows, strict=True):
        assert_same(found, dataset[row])


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("with_ours", [False, True])
def test_a_batch_sampler_as_sampler(shelf: Path, with_ours: bool, num_workers: int) -> None:
    # As torch documents it for datasets that read several items at once.
    dataset = AnnDataset(hand_over(toy(), "path", shelf))
    sampler = BatchSampler(SequentialSampler(range(40)), 16, drop_last=False)
    collate = dataset.get_collate_fn() if with_ours else None
    loader = DataLoader(dataset, sampler=sampler, batch_size=None, collate_fn=collate, num_workers=num_workers)
    assert rows_of(loader) == rows_of(DataLoader(dataset, batch_size=16, collate_fn=dataset.get_collate_fn()))
    ours = dataset.get_optimized_dataloader(sampler=sampler, batch_size=None, num_workers=num_workers)
    assert rows_of(ours) == [[*range(16)], [*range(16, 32)], [*range(32, 40)]]


KEYS = {"obs_row": "the obs column 'row'", "index": "the rows' numbers", "is_padding": "the mark of repeated rows"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key", KEYS)
def test_a_matrix_key_that_is_taken(shelf: Path, form: str, key: str) -> None:
    source = hand_over(toy(), form, shelf)
    for sources in (source, [source, source]):
        with pytest.raises(ValueError, match=f"the key {key!r}.*{KEYS[key]}"):
            AnnDataset(sources, elem={"X": "X", key: "layers/counts"})
    if key == "obs_row":
        item = AnnDataset(source, elem={key: "X"}, obs_columns=["score"])[3]
        assert list(item) == ["obs_row", "obs_score"]


def test_a_matrix_key_that_a_new_column_takes() -> None:
    adata = toy()
    dataset = AnnDataset(adata, elem={"obs_new": "X"})
    adata.obs["new"] = 1
    with pytest.raises(ValueError, match="the key 'obs_new'"):
        dataset[0]


def test_iteration_ends(tmp_path: Path) -> None:
    assert [int(item["obs_row"]) for item in AnnDataset(hand_over(toy(5), "path", tmp_path))] == [0, 1, 2, 3, 4]


def test_many_indices_at_once_are_checked_too() -> None:
    dataset = AnnDataset(toy())
    assert [int(item["obs_row"]) for item in dataset.__getitems__([2, -1, 2])] == [2, 39, 2]
    with pytest.raises(IndexError, match="index 40"):
        dataset.__getitems__([0, 40])


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


# --- genes -----------------------------------------------------------------------------------------------------------

GENES = [
    (["gene5", "gene0", "gene2"], [5, 0, 2]),
    (pd.Index(["gene1"]), [1]),
    (np.array(["gene6", "gene1"]), [6, 1]),
    ([4, 1, 2], [4, 1, 2]),
    ([-1, 0], [6, 0]),
    (np.array([3, 2], "uint8"), [3, 2]),
    (torch.tensor([3, 2]), [3, 2]),
    (range(6, 0, -2), [6, 4, 2]),
    ([True, False, True, False, False, False, True], [0, 2, 6]),
    (np.arange(7) > 4, [5, 6]),
    (pd.Series(np.arange(7) > 4), [5, 6]),
    (torch.arange(7) > 4, [5, 6]),
    ([], []),
]


@pytest.mark.parametrize("output", ["dense", "csr"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("genes", "columns"), GENES)
def test_var_subset(shelf: Path, form: str, kind: str, genes, columns: list[int], output: str) -> None:
    adata = toy(kind=kind)
    dataset = AnnDataset(hand_over(adata, form, shelf, kind), var_subset=genes, output=output)
    assert dataset.shape == (40, len(columns))
    assert dataset.var_names.tolist() == [f"gene{j}" for j in columns]
    np.testing.assert_array_equal(dense(batch_at(dataset, ROWS)["X"]), dense(adata.X)[ROWS][:, columns])


@pytest.mark.parametrize("form", FORMS)
def test_var_subset_concerns_every_matrix_over_genes_only(tmp_path: Path, form: str) -> None:
    adata = toy()
    elem = {"X": "X", "counts": "layers/counts", "pca": "obsm/X_pca"}
    dataset = AnnDataset(hand_over(adata, form, tmp_path), elem=elem, var_subset=["gene4", "gene1"])
    batch = batch_at(dataset, ROWS)
    for key, matrix in {"X": adata.X, "counts": adata.layers["counts"]}.items():
        np.testing.assert_array_equal(batch[key].numpy(), dense(matrix)[ROWS][:, [4, 1]])
    np.testing.assert_array_equal(batch["pca"].numpy(), adata.obsm["X_pca"][ROWS])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("genes", "error", "message"),
    [
        (["gene1", "GENE2"], KeyError, "gene2"),
        ([0, 7], IndexError, "var_subset holds 7"),
        ([-8], IndexError, "-8"),
        ([True], ValueError, "length 1"),
        (["gene1", "gene1"], ValueError, "twice"),
        ("gene1", TypeError, "text"),
        ([1.5], TypeError, "float64"),
    ],
)
def test_genes_that_are_not_there(shelf: Path, form: str, genes, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        AnnDataset(hand_over(toy(), form, shelf, "csr"), var_subset=genes)


# --- dtype and output ------------------------------------------------------------------------------------------------

DTYPES = [
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
]


@pytest.mark.parametrize("output", ["dense", "csr"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype(shelf: Path, dtype: torch.dtype, kind: str, output: str) -> None:
    adata = toy(kind=kind, dtype="int32")
    for form in ("memory", "path"):
        x = batch_at(AnnDataset(hand_over(adata, form, shelf, kind + "int32"), dtype=dtype, output=output), ROWS)["X"]
        assert x.dtype is dtype
        # Whole numbers below 100 are exact in each of them; torch converts as the oracle.
        torch.testing.assert_close(x.to_dense(), torch.from_numpy(dense(adata.X)[ROWS]).to(dtype), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bool, torch.complex64, torch.uint16, np.float32, "float32", float, None])
def test_dtype_that_is_none(dtype) -> None:
    with pytest.raises(TypeError, match=r"torch\.float32"):
        AnnDataset(toy(), dtype=dtype)


@pytest.mark.parametrize("output", ["dense", "csr"])
def test_integers_that_do_not_fit_are_an_error(tmp_path: Path, output: str) -> None:
    adata = anndata.AnnData(sp.csr_matrix(np.array([[1, 300], [2, 3]], "int64")))
    for form in FORMS:
        dataset = AnnDataset(hand_over(adata, form, tmp_path), dtype=torch.uint8, output=output)
        assert dense(dataset[1]["X"]).tolist() in ([2, 3], [[2, 3]])
        with pytest.raises(ValueError, match="300"):
            dataset[0]


@pytest.mark.parametrize("form", FORMS)
def test_counts_that_float32_rounds_are_told_once(tmp_path: Path, form: str) -> None:
    adata = anndata.AnnData(sp.csr_matrix(np.array([[1, 2**24 + 1], [2**24 + 3, 0], [2**24, 5]], "int64")))
    dataset = AnnDataset(hand_over(adata, form, tmp_path))
    assert dataset[2]["X"].tolist() == [2**24, 5]
    with pytest.warns(annfeed.AnnfeedWarning, match=r"16777217.*column 1.*float64"):
        batch_at(dataset, [0, 1])
    batch_at(dataset, [0, 1])  # a second warning would be an error here
    whole = AnnDataset(hand_over(adata, form, tmp_path), dtype=torch.int64)
    assert whole[0]["X"].tolist() == [1, 2**24 + 1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("genes", [None, [6, 0, 3]])
def test_sparse_batches_are_valid_csr_of_full_width(shelf: Path, form: str, kind: str, genes) -> None:
    adata = toy(kind=kind)
    dataset = AnnDataset(hand_over(adata, form, shelf, kind), output="csr", var_subset=genes)
    wanted = sp.csr_matrix(dense(adata.X)[:, genes or slice(None)])
    # Row 3 is nearly and row 0 quite empty, the last column is.
    for rows in (ROWS, [3], [0], [0, 0]):
        x = batch_at(dataset, rows)["X"]
        assert x.layout is torch.sparse_csr
        assert x.shape == (len(rows), wanted.shape[1])
        parts = x.crow_indices(), x.col_indices(), x.values()
        torch.sparse_csr_tensor(*parts, size=x.shape, check_invariants=True)
        crow, columns = x.crow_indices().tolist(), x.col_indices().tolist()
        for start, stop in pairwise(crow):
            assert columns[start:stop] == sorted(set(columns[start:stop]))
        np.testing.assert_array_equal(dense(x), wanted[rows].toarray())
    assert dataset[5]["X"].shape == (1, wanted.shape[1])


def test_unsorted_and_repeated_columns_are_summed_as_scipy_does(tmp_path: Path) -> None:
    data, indices, indptr = np.array([1, 2, 4, 8, 16], "float32"), np.array([2, 0, 2, 1, 1]), np.array([0, 3, 3, 5])
    matrix = sp.csr_matrix((data, indices, indptr), shape=(3, 4))
    with h5py.File(hand_over(toy(3, 4), "path", tmp_path), "r+") as file:
        del file["X"]
        anndata.io.write_elem(file, "X", matrix)
        assert file["X/indices"][:].tolist() == indices.tolist()
    for given in (tmp_path / "toy.h5ad", anndata.AnnData(matrix)):
        for output in ("dense", "csr"):
            x = batch_at(AnnDataset(given, output=output), [2, 1, 0])["X"]
            assert dense(x).tolist() == [[0, 24, 0, 0], [0, 0, 0, 0], [2, 0, 5, 0]]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"output": "coo"}, ValueError, "output is 'coo'"),
        ({"categories": "onehot"}, ValueError, "categories is 'onehot'"),
        ({"chunk_size": 0}, ValueError, "chunk_size is 0"),
        ({"chunk_size": -5}, ValueError, "chunk_size is -5"),
        ({"chunk_size": 2.5}, TypeError, r"chunk_size is 2\.5"),
        ({"chunk_size": True}, TypeError, "chunk_size is True"),
        ({"threads": 0}, ValueError, "threads is 0"),
        ({"threads": "2"}, TypeError, "threads is '2'"),
        ({"cache": -1}, ValueError, "cache is -1"),
        ({"cache": "lots"}, ValueError, "cache is 'lots'"),
        ({"cache": None}, TypeError, "cache is None"),
        ({"transform": len}, TypeError, "Transform"),
        ({"transform": Transform}, TypeError, "Transform"),
        ({"obs_columns": "row"}, TypeError, r"\['row'\]"),
        ({"obs_columns": ["rows"]}, KeyError, "row"),
        ({"unknown": 1}, TypeError, "unknown"),
    ],
)
def test_arguments_that_are_refused(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        AnnDataset(toy(), **arguments)


def test_options_come_by_name_only() -> None:
    with pytest.raises(TypeError, match="positional"):
        AnnDataset(toy(), None)


# --- rows ------------------------------------------------------------------------------------------------------------

MASK = np.arange(40) % 9 == 2
SUBSETS = [
    (None, list(range(40))),
    ([17, 3, 3, 39, 0], [17, 3, 3, 39, 0]),
    (np.array([5, 4], "uint16"), [5, 4]),
    (torch.tensor([5, 4, 4]), [5, 4, 4]),
    (pd.Series([5, 4], index=["a", "b"]), [5, 4]),
    (range(10, 0, -3), [10, 7, 4, 1]),
    ((2,), [2]),
    (MASK, [2, 11, 20, 29, 38]),
    (MASK.tolist(), [2, 11, 20, 29, 38]),
    (pd.Series(MASK), [2, 11, 20, 29, 38]),
    (torch.from_numpy(MASK), [2, 11, 20, 29, 38]),
    ([], []),
    (np.zeros(40, bool), []),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("subset", "rows"), SUBSETS)
def test_obs_subset(shelf: Path, form: str, subset, rows: list[int]) -> None:
    dataset = AnnDataset(hand_over(toy(), form, shelf, "csr"), obs_subset=subset)
    assert len(dataset) == len(rows)
    assert dataset.shape == (len(rows), 7)
    assert dataset.obs_names.tolist() == [f"cell{row}" for row in rows]
    assert dataset.obs["row"].tolist() == rows
    assert flat(rows_of(dataset.get_optimized_dataloader(batch_size=3, shuffle=False))) == rows
    assert sorted(flat(rows_of(dataset.get_optimized_dataloader(batch_size=3, seed=1)))) == sorted(rows)
    if rows:
        assert (dataset[0]["obs_row"], dataset[-1]["obs_row"]) == (rows[0], rows[-1])


@pytest.mark.parametrize(
    ("subset", "error", "message"),
    [
        ([0, 40], IndexError, "40"),
        ([3, -1], IndexError, "-1"),
        ([True, False], ValueError, "length 2"),
        ([1.0, 2.0], TypeError, "float64"),
        (["cell1"], TypeError, "get_indexer"),
        ("cell1", TypeError, "text"),
        ([[1, 2]], TypeError, "axes"),
    ],
)
def test_obs_subset_that_is_refused(subset, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        AnnDataset(toy(), obs_subset=subset)


def test_train_and_test_split_share_no_row(tmp_path: Path) -> None:
    path = hand_over(toy(), "path", tmp_path)
    order = np.random.default_rng(0).permutation(40)
    train, test = AnnDataset(path, obs_subset=order[:30]), AnnDataset(path, obs_subset=order[30:])
    found = [flat(rows_of(d.get_optimized_dataloader(batch_size=7, seed=0))) for d in (train, test)]
    assert set(found[0]) == set(order[:30].tolist())
    assert set(found[1]) == set(order[30:].tolist())


# --- names and obs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_obs_and_names_are_anndatas(tmp_path: Path, form: str) -> None:
    adata = toy()
    dataset = AnnDataset(hand_over(adata, form, tmp_path), obs_subset=[4, 4, 1], var_subset=[5, 1])
    wanted = adata.obs.iloc[[4, 4, 1]]
    pd.testing.assert_frame_equal(dataset.obs, wanted, check_dtype=False)
    assert list(dataset.obs["label"].cat.categories) == list(adata.obs["label"].cat.categories)
    assert dataset.obs_names.tolist() == ["cell4", "cell4", "cell1"]
    assert dataset.var_names.tolist() == ["gene5", "gene1"]
    assert AnnDataset(hand_over(adata, form, tmp_path), elem="raw/X").var_names.tolist() == adata.raw.var_names.tolist()


# --- nothing and next to nothing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("output", ["dense", "csr"])
@pytest.mark.parametrize(("n_obs", "n_vars"), [(0, 5), (5, 0), (0, 0), (1, 1)])
def test_empty_and_tiny(tmp_path: Path, form: str, kind: str, output: str, n_obs: int, n_vars: int) -> None:
    dataset = AnnDataset(hand_over(toy(n_obs, n_vars, kind), form, tmp_path), output=output)
    assert len(dataset) == n_obs
    assert dataset.shape == (n_obs, n_vars)
    loader = dataset.get_optimized_dataloader(batch_size=2)
    batches = list(loader)
    assert len(batches) == len(loader) == -(-n_obs // 2)
    assert sum(len(batch["obs_row"]) for batch in batches) == n_obs
    assert all(batch["X"].shape == (len(batch["obs_row"]), n_vars) for batch in batches)
    with pytest.raises(IndexError):
        dataset[n_obs]


def test_empty_rows_are_rows(tmp_path: Path) -> None:
    adata = anndata.AnnData(sp.csr_matrix((6, 4), dtype="float32"))
    for form in FORMS:
        batch = batch_at(AnnDataset(hand_over(adata, form, tmp_path)), [5, 0, 5])
        assert batch["X"].tolist() == [[0] * 4] * 3


# --- a file and its life ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_pickle_round_trip(tmp_path: Path, form: str) -> None:
    dataset = AnnDataset(
        hand_over(toy(), form, tmp_path),
        obs_subset=[9, 2, 2],
        var_subset=["gene0", "gene4"],
        obs_columns=["row", "text"],
        dtype=torch.float64,
        chunk_size=10,
    )
    before = dataset[0]  # with everything read and open
    again = pickle.loads(pickle.dumps(dataset))
    assert_same(again[0], before)
    assert again.shape == dataset.shape
    assert again.chunk_size == 10
    assert again.var_names.tolist() == ["gene0", "gene4"]
    assert again.obs_names.tolist() == ["cell9", "cell2", "cell2"]
    pd.testing.assert_frame_equal(again.obs, dataset.obs, check_dtype=False)


@pytest.mark.parametrize("form", ["backed", "path"])
def test_a_pickle_holds_no_matrix(tmp_path: Path, form: str) -> None:
    adata = toy(500, 300, kind="dense")
    dataset = AnnDataset(hand_over(adata, form, tmp_path), obs_columns=["row"])
    _ = dataset[0]
    assert len(pickle.dumps(dataset)) < adata.X.nbytes / 10


def test_a_pickle_of_data_in_memory_holds_only_what_it_delivers() -> None:
    adata = toy(500, 20, kind="dense")
    adata.layers["big"] = np.random.default_rng(0).random((500, 20))
    adata.obsm["bigger"] = np.random.default_rng(0).random((500, 2000))
    small = len(pickle.dumps(AnnDataset(adata, elem="layers/counts", obs_columns=["row"])))
    assert small < adata.layers["counts"].nbytes + adata.obsm["bigger"].nbytes / 10


def rewrite(path: Path) -> None:
    toy(41, 7).write_h5ad(path)


def touch(path: Path) -> None:
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 10**9))


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def replace(path: Path) -> None:
    shutil.copy2(path, path.with_suffix(".copy"))
    path.with_suffix(".copy").replace(path)


@pytest.mark.parametrize("change", [rewrite, touch, append, replace])
@pytest.mark.parametrize("where", ["here", "after pickling"])
def test_a_file_that_changed_is_an_error(tmp_path: Path, change, where: str) -> None:
    path = hand_over(toy(), "path", tmp_path)
    dataset = AnnDataset(path)
    _ = dataset[0]
    pickled = pickle.dumps(dataset)
    change(path)
    with pytest.raises(annfeed.StaleFileError, match=r"toy\.h5ad"):
        (dataset if where == "here" else pickle.loads(pickled))[1]
    assert AnnDataset(path)[1]["obs_row"] == 1


def test_close(tmp_path: Path) -> None:
    path = hand_over(toy(), "path", tmp_path)
    with AnnDataset(path) as dataset:
        assert dataset[1]["obs_row"] == 1
    for _ in range(2):
        dataset.close()
    with pytest.raises(ValueError, match="closed"):
        dataset[1]
    with AnnDataset(toy()) as in_memory:
        assert in_memory[1]["obs_row"] == 1


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc/self/fd")
def test_close_lets_go_of_the_file(tmp_path: Path) -> None:
    path = hand_over(toy(), "path", tmp_path)

    def n_open() -> int:
        return sum(os.path.realpath(link) == str(path) for link in Path("/proc/self/fd").iterdir())

    dataset = AnnDataset(path)
    _ = dataset[1]
    assert n_open() == 1
    dataset.close()
    assert n_open() == 0


def test_repr_names_shape_and_place(tmp_path: Path) -> None:
    path = hand_over(toy(), "path", tmp_path)
    text = repr(AnnDataset(path, elem={"X": "X", "pca": "obsm/X_pca"}, obs_subset=[1, 2]))
    assert text == f"AnnDataset(2 x 7, X={path}: 'X', pca={path}: 'obsm/X_pca')"
    assert repr(AnnDataset(toy())) == "AnnDataset(40 x 7, X=AnnData: 'X')"


@pytest.mark.parametrize("kind", KINDS)
def test_one_open_for_any_number_of_batches(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = AnnDataset(hand_over(toy(kind=kind), "path", tmp_path), chunk_size=4)
    _ = dataset[0]
    opened: list[object] = []
    real_open = h5py.File.__init__

    def note(self: h5py.File, *args: object, **kwargs: object) -> None:
        opened.append(args)
        real_open(self, *args, **kwargs)

    monkeypatch.setattr(h5py.File, "__init__", note)
    for epoch in range(3):
        assert len(list(dataset.get_optimized_dataloader(batch_size=2, seed=epoch))) == 20
    for row in range(20):
        _ = dataset[row]
    assert opened == []
    assert dataset.stats()["opens"] == 1


def test_stats_count_the_bytes(tmp_path: Path) -> None:
    path = hand_over(toy(2000, 30, "dense"), "path", tmp_path)
    dataset = AnnDataset(path, obs_columns=[], cache=0)
    assert dataset.stats() == dict.fromkeys(STATS, 0) | {"opens": 1}
    list(dataset.get_optimized_dataloader(batch_size=100, shuffle=False))
    # Each row at least once, and nothing like once per batch: anndata writes this matrix as float32 without a filter.
    stored = 2000 * 30 * 4
    assert stored <= dataset.stats()["bytes_read"] < 3 * stored


#: Numbers of genes: with the second, a batch of 16 rows has more than 1 MiB, and its memory is recycled.
WIDTHS = (7, 20_000)


@pytest.mark.parametrize("n_vars", WIDTHS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("output", ["dense", "csr"])
def test_a_batch_is_the_users_own(shelf: Path, form: str, output: str, n_vars: int) -> None:
    # A cache, or the user's own matrix, must not be handed out as a tensor that can be written to.
    adata = toy(n_vars=n_vars)
    dataset = AnnDataset(hand_over(adata, form, shelf, f"own{n_vars}"), output=output)
    wanted = dense(adata.X).copy()
    for _ in range(2):
        batches = list(dataset.get_optimized_dataloader(batch_size=16, shuffle=False))
        np.testing.assert_array_equal(np.concatenate([dense(batch["X"]) for batch in batches]), wanted)
        for batch in batches:
            values = batch["X"].values() if output == "csr" else batch["X"]
            values.fill_(-7)
            batch["obs_row"].fill_(-7)
            batch["obs_text"][:] = ["gone"] * len(batch["obs_text"])
        item = dataset[5]
        (item["X"].values() if output == "csr" else item["X"]).fill_(-7)
        assert flat(rows_of(dataset.get_optimized_dataloader(batch_size=16, shuffle=False))) == list(range(40))
    np.testing.assert_array_equal(dense(adata.X), wanted)


@pytest.mark.parametrize("n_vars", WIDTHS)
@pytest.mark.parametrize("output", ["dense", "csr"])
def test_what_is_kept_of_a_batch_outlives_the_batch(shelf: Path, output: str, n_vars: int) -> None:
    # Memory may be used again only when nothing of the batch is left: no item, no view, no numpy array.
    adata = toy(200, n_vars)
    dataset = AnnDataset(hand_over(adata, "path", shelf, f"kept{n_vars}"), chunk_size=32, output=output)
    wanted, kept = dense(adata.X), []
    for batch in dataset.get_optimized_dataloader(batch_size=16, seed=0):
        rows, x = batch["obs_row"], batch["X"].values() if output == "csr" else batch["X"]
        kept.append((rows.tolist(), x[1:].numpy() if output == "csr" else x[2:].t().numpy()))
        del batch, x
    for rows, part in kept:
        if output == "csr":
            np.testing.assert_array_equal(part, sp.csr_matrix(wanted[rows]).data[1:])
        else:
            np.testing.assert_array_equal(part, wanted[rows[2:]].T)


MEMORY = """
import sys
from annfeed import AnnDataset

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

for path in sys.argv[1:]:
    dataset = AnnDataset(path, obs_columns=["small"])
    for _ in dataset.get_optimized_dataloader(batch_size=64, seed=0):
        pass
    print(peak())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc/self/status")
def test_memory_stays_flat_beside_a_large_unused_matrix(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"small": np.arange(2000)}, index=[f"c{i}" for i in range(2000)])
    adata = anndata.AnnData(rng.random((2000, 20), dtype="float32"), obs=obs)
    adata.write_h5ad(tmp_path / "small.h5ad")
    adata.obsm["unused"] = rng.random((2000, 10_000), dtype="float32")
    adata.obs["large"] = [f"{'text' * 1000}{i}" for i in range(2000)]
    adata.write_h5ad(tmp_path / "large.h5ad")
    paths = [str(tmp_path / name) for name in ("small.h5ad", "large.h5ad")]
    done = subprocess.run([sys.executable, "-c", MEMORY, *paths], capture_output=True, text=True, check=True)
    small, large = map(int, done.stdout.split())
    # The matrix that nobody asks for has 80 MB.
    assert large < small + 40e6
