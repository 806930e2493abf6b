"""`AnnDataset`: genes, dtypes and layouts of what comes out."""

from itertools import pairwise
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from tests.dataset.toys_at import KINDS, ROWS, batch_at
from tests.support.toys import FORMS, dense, flat, hand_over, rows_of, toy

import annfeed
from annfeed import AnnDataset, Transform

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
        ({"window": 0}, ValueError, "window is 0"),
        ({"window": 2.5}, TypeError, r"window is 2\.5"),
        ({"window": 6000, "chunk_size": 6}, ValueError, "window is 6000 and chunk_size is 6"),
        ({"window": 5, "chunk_size": 6}, ValueError, "window is 5 and chunk_size is 6, another name of it; pass one"),
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


def test_the_window_has_two_names() -> None:
    default, window, chunk_size = AnnDataset(toy()), AnnDataset(toy(), window=8), AnnDataset(toy(), chunk_size=8)
    assert (default.window, window.window, window.chunk_size, chunk_size.window) == (6000, 8, 8, 8)
    window.chunk_size = 12
    assert window.window == 12
    loaders = [data.get_optimized_dataloader(4, block_size=2, seed=1) for data in (window, chunk_size)]
    assert [flat(rows_of(loader)) for loader in loaders] == [
        flat(rows_of(AnnDataset(toy(), window=n).get_optimized_dataloader(4, block_size=2, seed=1))) for n in (12, 8)
    ]


def test_options_come_by_name_only() -> None:
    with pytest.raises(TypeError, match="positional"):
        AnnDataset(toy(), None)
