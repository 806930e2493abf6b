"""Numbers in README and docs that no other test shows: memory, bytes, mixing, and what `dataset.obs` is."""

import json
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from toys import FORMS, hand_over, toy

from annfeed import AnnDataset
from annfeed.epoch import EpochPlan


def sparse(path: Path, values: Any, n_values: int = 160, n_rows: int = 500) -> Path:
    """A file of 30,000 columns, with ``n_values`` values in each row."""
    rng = np.random.default_rng(0)
    columns = np.concatenate([np.sort(rng.choice(30_000, n_values, replace=False)) for _ in range(n_rows)])
    stored = np.resize(np.asarray(values, np.float32), n_rows * n_values)
    x = sp.csr_matrix((stored, columns, np.arange(n_rows + 1) * n_values), shape=(n_rows, 30_000))
    anndata.AnnData(x).write_h5ad(path, compression="gzip")
    return path


@pytest.mark.parametrize(("values", "n_bytes"), [([1, 2, 255], 3), ([1, 2, 256], 4), ([0.1, 0.3], 6)])
def test_bytes_of_a_decoded_value(tmp_path: Path, values: list[float], n_bytes: int) -> None:
    """how-it-works.md, Memory: 3 or 4 bytes a stored value for counts, 6 for other float32 values."""
    dataset = AnnDataset(sparse(tmp_path / "x.h5ad", values), cache="1GiB")
    n_values = 500 * 160
    assert dataset.load(np.arange(500)).nbytes / n_values == pytest.approx(n_bytes, rel=0.05)
    # The cache holds them as narrow.
    for _ in dataset.get_optimized_dataloader(batch_size=100):
        pass
    assert dataset.stats()["cache_bytes"] / n_values == pytest.approx(n_bytes, rel=0.15)


def test_bytes_of_a_csr_batch(tmp_path: Path) -> None:
    """how-it-works.md: CSR sends 8 bytes a stored value, a dense batch 4 a column."""
    path = sparse(tmp_path / "x.h5ad", [1, 2], n_values=1_600, n_rows=20)
    batches = [next(iter(AnnDataset(path, output=output).get_optimized_dataloader(20))) for output in ("csr", "dense")]
    x = batches[0]["X"]
    sent = x.col_indices().nbytes + x.values().nbytes
    assert sent == 8 * 1_600 * 20
    assert batches[1]["X"].nbytes == 4 * 30_000 * 20
    assert 9 < batches[1]["X"].nbytes / sent < 10


def test_places_of_the_file_that_a_window_mixes() -> None:
    """how-it-works.md: a window of 6,000 rows with blocks of 16 mixes 375 places of the file."""
    plan = EpochPlan(n_rows=60_000, batch_size=100, window=6_000, block_size=16, seed=0, first_window=6_000)
    for window in plan.windows():
        places = np.unique(window.rows // 16)
        assert len(window.rows) == 6_000
        assert 375 <= len(places) <= 376  # a window's first and last block may be cut
        assert (np.diff(places) > 1).mean() > 0.85  # a tenth of all blocks, chosen at random


def test_rows_that_torchs_weighted_sampler_leaves_out() -> None:
    """sampling.md: rows that are due once come once; independent draws leave out a third of them."""
    n_rows = 3_000
    dataset = AnnDataset(anndata.AnnData(np.zeros((n_rows, 1), np.float32)))
    ours = dataset.get_optimized_dataloader(100, weights=np.full(n_rows, 0.7), seed=0)
    theirs = torch.utils.data.WeightedRandomSampler([0.7] * n_rows, n_rows, generator=torch.Generator().manual_seed(0))
    assert len(set(ours.sampler)) == n_rows
    assert 0.3 < 1 - len(set(theirs)) / n_rows < 0.4


@pytest.mark.parametrize("options", [{}, {"block_size": 5}, {"weights": np.arange(1, 41)}, {"balance": "label"}])
def test_a_state_is_small(options: dict[str, Any]) -> None:
    """resuming.md: a dict of numbers and texts, under 2 KB, which json takes."""
    loader = AnnDataset(toy(), obs_subset=range(40)).get_optimized_dataloader(4, seed=0, **options)
    batches = iter(loader)
    next(batches)
    text = json.dumps(loader.state_dict())
    assert len(text) < 2_000
    assert json.loads(text) == loader.state_dict()


# --- dataset.obs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_obs_is_what_anndata_has_at_the_rows(tmp_path: Path, form: str) -> None:
    rows = [17, 3, 39, 3]
    source = hand_over(toy(), form, tmp_path)
    (tmp_path / "oracle").mkdir()
    wanted = anndata.read_h5ad(hand_over(toy(), "path", tmp_path / "oracle")).obs
    dataset = AnnDataset(source, obs_subset=rows, obs_columns=["label", "row"])
    pd.testing.assert_frame_equal(dataset.obs, wanted.iloc[rows][["label", "row"]], check_dtype=False)
    assert dataset.obs.index.tolist() == dataset.obs_names.tolist()
    assert len(AnnDataset(source, obs_columns=[]).obs.columns) == 0


@pytest.mark.parametrize("form", FORMS)
def test_obs_is_a_new_frame_at_each_access(tmp_path: Path, form: str) -> None:
    source = hand_over(toy(), form, tmp_path)
    dataset = AnnDataset(source)
    frame = dataset.obs
    frame["row"] = -1
    assert dataset.obs["row"].tolist() == list(range(40))
    assert int(dataset[3]["obs_row"]) == 3
    if form != "path":
        assert source.obs["row"].tolist() == list(range(40))
        source.obs["row"] = np.arange(40) + 100  # what the object holds now
        assert dataset.obs["row"].tolist() == list(range(100, 140))


def test_only_the_columns_asked_for_are_read(tmp_path: Path) -> None:
    path = hand_over(toy(), "path", tmp_path)
    with h5py.File(path, "r+") as file:  # a column that nobody can read
        del file["obs/text"]
        file["obs/text"] = np.zeros(3)
        file["obs/text"].attrs["encoding-type"] = "unheard of"
    assert AnnDataset(path, obs_columns=["row"]).obs["row"].tolist() == list(range(40))
