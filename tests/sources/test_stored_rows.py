"""Rows that a dense batch can take as they lie in the file: right in every order, and never held in a window."""

import os
import pickle

import anndata
import h5py
import numpy as np
import pytest
import scipy.sparse as sp
import torch

from annfeed import AnnDataset, Log1p, StaleFileError
from annfeed._core import Reader

N, WIDTH = 300, 37
SAME = {"<f4": torch.float32, "<f8": torch.float64, "<i4": torch.int32, "<i8": torch.int64, "|u1": torch.uint8}


@pytest.fixture
def stored(tmp_path):
    """Write an uncompressed dense file of a dtype; give its path and the array that h5py reads from it."""

    def write(dtype="<f4"):
        path = tmp_path / "dense.h5ad"
        anndata.AnnData(np.zeros((N, WIDTH), np.float32)).write_h5ad(path)
        values = np.random.default_rng(0).integers(0, 200, (N, WIDTH)).astype(dtype)
        with h5py.File(path, "r+") as file:
            attributes = dict(file["X"].attrs)
            del file["X"]
            file.create_dataset("X", data=values).attrs.update(attributes)
        with h5py.File(path) as file:
            return path, file["X"][...]

    return write


def window_bytes(dataset):
    return dataset.reader.load(np.arange(len(dataset))).nbytes


@pytest.mark.parametrize(("stored_as", "wanted"), SAME.items())
@pytest.mark.parametrize("settings", [{"shuffle": False}, {"block_size": 16}, {}, {"num_workers": 2}])
def test_rows_are_those_of_h5py(stored, stored_as, wanted, settings):
    path, expected = stored(stored_as)
    dataset = AnnDataset(path, dtype=wanted, window=64)
    assert window_bytes(dataset) < expected.nbytes / 4, "the rows stay in the file"
    loader = dataset.get_optimized_dataloader(batch_size=7, seed=3, return_index=True, **settings)
    seen = []
    for batch in loader:
        assert batch["X"].dtype == wanted
        np.testing.assert_array_equal(batch["X"].numpy(), expected[batch["index"].numpy()])
        seen += batch["index"].tolist()
    assert sorted(seen) == list(range(N))
    assert settings == {"shuffle": False} or seen != list(range(N))


@pytest.mark.parametrize(
    ("stored_as", "options"),
    [
        (">f4", {}),
        ("<f8", {}),
        ("<i2", {}),
        ("<f4", {"dtype": torch.float64}),
        ("<f4", {"output": "csr"}),
        ("<f4", {"var_subset": [5, 0, 36]}),
        ("<f4", {"transform": Log1p()}),
    ],
)
def test_anything_but_a_copy_goes_through_a_window(stored, stored_as, options):
    path, values = stored(stored_as)
    dataset = AnnDataset(path, **options)
    assert window_bytes(dataset) > values[:, : dataset.shape[1]].size
    rows = np.random.default_rng(1).permutation(N)[:50]
    batch = dataset.reader.load(rows).batch(0, 50)
    expected = values[rows][:, options.get("var_subset", slice(None))]
    if "transform" in options:
        expected = np.log1p(expected)
        batch = dataset.reader.postprocess(batch)
    np.testing.assert_allclose(batch["X"].to_dense().numpy(), expected, rtol=1e-6)


def test_repeats_subsets_and_single_items(stored):
    path, expected = stored()
    subset = np.array([7, 7, 0, 299, 12, 11, 13, 7])
    dataset = AnnDataset(path, obs_subset=subset)
    batch = dataset.reader.load(np.array([3, 0, 1, 1, 7, 4])).batch(1, 6)
    np.testing.assert_array_equal(batch["X"].numpy(), expected[subset[[0, 1, 1, 7, 4]]])
    np.testing.assert_array_equal(dataset[3]["X"].numpy(), expected[299])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(dataset))[2]["X"].numpy(), expected[0])


def test_a_batch_that_is_kept_stays_as_it_was(stored):
    path, expected = stored()
    dataset = AnnDataset(path, window=50)
    kept = list(dataset.get_optimized_dataloader(batch_size=50, shuffle=False))
    np.testing.assert_array_equal(torch.cat([batch["X"] for batch in kept]).numpy(), expected)


def test_a_file_that_changes_within_a_window_is_stale(stored):
    path, _ = stored()
    dataset = AnnDataset(path)
    window = dataset.reader.load(np.arange(N))
    window.batch(0, 10)
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) - 4000)
    with pytest.raises(StaleFileError, match=str(path)):
        window.batch(10, 20)


def test_wide_batches_are_read_by_several_threads(tmp_path):
    values = np.random.default_rng(0).random((64, 40_000), dtype=np.float32)
    anndata.AnnData(values).write_h5ad(tmp_path / "wide.h5ad")
    order = np.random.default_rng(1).permutation(64)
    for threads in (1, 2, 5):
        batch = AnnDataset(tmp_path / "wide.h5ad", threads=threads).reader.load(order).batch(0, 64)
        np.testing.assert_array_equal(batch["X"].numpy(), values[order])


@pytest.mark.parametrize("stored_as", ["<f4", ">f4", "|u1"])
def test_a_reader_says_before_it_is_asked_which_rows_need_no_decoding(stored, stored_as, tmp_path):
    path, _ = stored(stored_as)
    with h5py.File(path) as file:
        as_it_lies = file["X"].dtype.isnative and file["X"].chunks is None
        name = file["X"].dtype.name
    rows = np.array([0, 5])
    whole = Reader(path, "X")
    assert whole.direct_dtype == (name if as_it_lies else None)
    some = Reader(path, "X", columns=np.array([2, 1]))
    anndata.AnnData(sp.eye(9, format="csr", dtype="float32")).write_h5ad(tmp_path / "sparse.h5ad")
    for reader in (some, Reader(tmp_path / "sparse.h5ad", "X"), *([] if as_it_lies else [whole])):
        assert reader.direct_dtype is None
        with pytest.raises(ValueError, match="expected a matrix with a direct_dtype"):
            reader.direct(rows)
