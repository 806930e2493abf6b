"""Blocks cut at chunk borders: where the cuts are, that no chunk is decoded twice, and what is said about it."""

import logging
from pathlib import Path

import anndata
import numpy as np
import pytest
import scipy.sparse as sp

from annfeed import AnnDataset
from annfeed.order.auto_blocks import LEAST_BLOCKS, LEAST_ROWS, auto_blocks, units_of_positions


@pytest.mark.parametrize(
    ("unit_starts", "n_rows", "window", "expected"),
    [
        ([], 0, 1000, []),
        ([0], 5, 1000, [0]),
        ([0, 26, 52], 70, 16384, [0, 26, 52]),
        ([0, 4, 8, 12, 16, 20, 24, 28], 32, 16384, [0, 16]),  # four units of 4 rows make one run of 16
        ([0, 50], 100, 1600, [0, 25, 50, 75]),  # 64 blocks in a window of 1,600 rows: 25 rows each
        ([0, 33], 40, 1024, [0, 11, 22, 33]),  # never below 16 rows, but evenly cut
    ],
)
def test_where_the_cuts_are(unit_starts: list[int], n_rows: int, window: int, expected: list[int]) -> None:
    assert auto_blocks(np.array(unit_starts, dtype=np.int64), n_rows, window).tolist() == expected


@pytest.mark.parametrize("seed", range(20))
def test_blocks_are_borders_in_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, rng.integers(2, 400), rng.integers(1, 50))
    starts, n_rows = np.append(0, np.cumsum(lengths)[:-1]), int(lengths.sum())
    window = int(rng.integers(1, 20000))
    blocks = auto_blocks(starts, n_rows, window)
    assert blocks[0] == 0
    assert (np.diff(np.append(blocks, n_rows)) > 0).all()
    sizes = np.diff(np.append(blocks, n_rows))
    assert sizes.max() <= max(
        LEAST_ROWS * 2, window // LEAST_BLOCKS, lengths.max() if lengths.max() < LEAST_ROWS else 0
    )


def test_positions_enter_units() -> None:
    assert units_of_positions(np.array([0, 10]), np.array([11, 12, 3, 15])).tolist() == [0, 2, 3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    m = sp.random(6000, 2000, 0.25, format="csr", dtype=np.float32, random_state=np.random.default_rng(0))
    anndata.AnnData(m).write_h5ad(tmp_path / "a.h5ad", compression="gzip")
    return tmp_path / "a.h5ad"


def decoded(path: Path, **order: object) -> int:
    with AnnDataset(path, window=2000, cache=0) as dataset:
        seen = np.concatenate(
            [b["X"].numpy().sum(1) for b in dataset.get_optimized_dataloader(50, seed=0, **order)]  # type: ignore[arg-type]
        )
        assert len(seen) == 6000
        return dataset.stats()["bytes_decoded"]


def test_auto_decodes_each_chunk_about_once(path: Path) -> None:
    in_order = decoded(path, shuffle=False)
    # A block's last row reaches into the next chunk, of which only the beginning is decoded; windows cut a block each.
    assert decoded(path, block_size="auto") < 1.25 * in_order
    assert decoded(path, block_size=1) > 2 * in_order


def test_auto_says_what_it_chose(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "annfeed"):
        loader = AnnDataset(path).get_optimized_dataloader(50, block_size="auto")
    assert "blocks of" in caplog.text
    assert loader.sampler.blocks in caplog.text


def test_auto_covers_a_subset_exactly_once(path: Path) -> None:
    subset = np.random.default_rng(1).permutation(6000)[:2500]
    for rows in (subset, np.sort(subset)):
        dataset = AnnDataset(path, obs_subset=rows, window=500, cache=0)
        got = [b for b in dataset.get_optimized_dataloader(64, block_size="auto", seed=3).sampler]
        assert sorted(got) == list(range(2500))


def test_auto_on_a_matrix_in_memory_is_exact_random() -> None:
    dataset = AnnDataset(anndata.AnnData(np.eye(10, dtype=np.float32)))
    loader = dataset.get_optimized_dataloader(5, block_size="auto", seed=0)
    plain = dataset.get_optimized_dataloader(5, seed=0)
    assert [b["X"].argmax(1).tolist() for b in loader] == [b["X"].argmax(1).tolist() for b in plain]
