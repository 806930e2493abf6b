"""`AnnDataset`: what may be handed over (files, AnnData of every kind, views, subsets of rows), and names."""

import os
import pickle
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from tests.dataset.toys_at import KINDS, ROWS, batch_at
from tests.support.toys import FORMS, dense, flat, hand_over, rows_of, toy

from annfeed import AnnDataset

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
