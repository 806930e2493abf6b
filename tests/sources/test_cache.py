"""The cache of decoded rows: what it saves, what it may hold, and that its rows are the file's."""

from pathlib import Path

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
import torch

from annfeed import AnnDataset

N_ROWS, N_VARS = 4000, 300


@pytest.fixture(scope="module")
def matrix() -> sp.csr_matrix:
    rng = np.random.default_rng(0)
    m = sp.random(N_ROWS, N_VARS, 0.2, format="csr", dtype=np.float32, random_state=rng)
    m.data = rng.integers(1, 300, m.nnz).astype(np.float32)
    return m


@pytest.fixture(params=["csr", "dense"])
def path(request: pytest.FixtureRequest, matrix: sp.csr_matrix, tmp_path: Path) -> Path:
    adata = anndata.AnnData(matrix if request.param == "csr" else matrix.toarray())
    adata.write_h5ad(tmp_path / "atlas.h5ad", compression="gzip")
    return tmp_path / "atlas.h5ad"


def epoch(dataset: AnnDataset, seed: int) -> int:
    """Bytes that an epoch in exact random order decoded."""
    before = dataset.stats()["bytes_decoded"]
    rows = sum(len(b["X"]) for b in dataset.get_optimized_dataloader(100, seed=seed))
    assert rows == len(dataset)
    return dataset.stats()["bytes_decoded"] - before


def whole(path: Path) -> int:
    """Bytes that all rows take in the cache."""
    with AnnDataset(path, window=500, cache="1GiB") as dataset:
        epoch(dataset, 0)
        return dataset.stats()["cache_bytes"]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 2.0])
def test_rows_are_the_files_whatever_is_held(path: Path, matrix: sp.csr_matrix, share: float) -> None:
    dense = matrix.toarray()
    dataset = AnnDataset(path, window=500, cache=int(share * whole(path)), threads=2)
    rng = np.random.default_rng(1)
    for _ in range(6):
        rows = rng.integers(0, N_ROWS, 700)
        batch = dataset.__getitems__(rows).batch["X"]
        np.testing.assert_array_equal(batch.numpy(), dense[rows])


def test_what_fits_is_decoded_once(path: Path) -> None:
    with AnnDataset(path, window=500, cache=0) as uncached:
        once = epoch(uncached, 0)
    dataset = AnnDataset(path, window=500, cache="1GiB")
    assert 0 < epoch(dataset, 0) < once
    held = dataset.stats()
    assert epoch(dataset, 1) == 0
    assert dataset.stats()["cache_hits"] == held["cache_hits"] + N_ROWS
    assert dataset.stats()["cache_misses"] == held["cache_misses"] <= N_ROWS


def test_half_the_budget_saves_almost_half(path: Path) -> None:
    with AnnDataset(path, window=500, cache=0) as uncached:
        without = epoch(uncached, 3)
    dataset = AnnDataset(path, window=500, cache=whole(path) // 2)
    first, later = epoch(dataset, 3), epoch(dataset, 4)
    assert later <= 0.6 * without
    assert first <= 0.8 * without  # it has to fill first; on a large file that is little beside the rest
    assert dataset.stats()["cache_bytes"] <= whole(path) // 2


def test_the_budget_is_kept(path: Path) -> None:
    budget = whole(path) // 3
    dataset = AnnDataset(path, window=500, cache=budget)
    for seed in range(2):
        epoch(dataset, seed)
        assert 0 < dataset.stats()["cache_bytes"] <= budget


def test_train_and_test_are_views_of_one_cache(path: Path) -> None:
    train = AnnDataset(path, obs_subset=np.arange(0, N_ROWS, 2), window=500, cache="1GiB")
    test = AnnDataset(path, obs_subset=np.arange(1, N_ROWS, 2), window=500, cache="1GiB")
    epoch(train, 0)
    assert epoch(test, 0) == 0
    assert test.stats()["cache_bytes"] == train.stats()["cache_bytes"]


def test_other_columns_are_another_cache(path: Path, matrix: sp.csr_matrix) -> None:
    every = AnnDataset(path, window=500, cache="1GiB")
    some = AnnDataset(path, window=500, cache="1GiB", var_subset=[7, 3])
    epoch(every, 0)
    assert epoch(some, 0) > 0
    rows = [5, 3999, 0]
    np.testing.assert_array_equal(some.__getitems__(rows).batch["X"].numpy(), matrix.toarray()[rows][:, [7, 3]])


def test_a_cache_ends_with_its_last_dataset(path: Path) -> None:
    first = AnnDataset(path, window=500, cache="1GiB")
    epoch(first, 0)
    second = AnnDataset(path, window=500, cache="1GiB")
    first.close()
    assert second.stats()["cache_bytes"] > 0
    second.close()
    third = AnnDataset(path, window=500, cache="1GiB")
    assert third.stats()["cache_bytes"] == 0


def test_a_batch_that_was_changed_does_not_change_the_cache(path: Path, matrix: sp.csr_matrix) -> None:
    dataset = AnnDataset(path, window=500, cache="1GiB")
    rows = np.arange(50)
    for _ in range(2):
        batch = dataset.__getitems__(rows).batch["X"]
        np.testing.assert_array_equal(batch.numpy(), matrix[rows].toarray())
        batch.fill_(-1)


def test_kept_batches_are_not_written_over(path: Path, matrix: sp.csr_matrix) -> None:
    # 1,000 x 300 float32 are large enough to come from recycled memory.
    dataset = AnnDataset(path, window=2000, cache="1GiB")
    dense = matrix.toarray()
    kept = [b["X"] for b in dataset.get_optimized_dataloader(1000, shuffle=False)]
    for _ in range(3):
        for _ in dataset.get_optimized_dataloader(1000, seed=0):
            pass
    np.testing.assert_array_equal(torch.cat(kept).numpy(), dense)


def test_unfiltered_rows_are_not_kept(matrix: sp.csr_matrix, tmp_path: Path) -> None:
    anndata.AnnData(matrix).write_h5ad(tmp_path / "plain.h5ad")
    dataset = AnnDataset(tmp_path / "plain.h5ad", window=500, cache="1GiB")
    assert epoch(dataset, 0) == 0
    assert dataset.stats()["cache_bytes"] == 0
