"""annfeed beside anndata backed and in-memory scipy, as pytest-benchmark groups: `pytest benches --benchmark-only`.

Each benchmark delivers the same shuffled rows as dense batches of 128. Rows are compared with h5py and scipy first. The
file is 20,000 x 5,000, or what SIZE says (`SIZE=20k`: 20,000 x 30,000). `run.py` is the full comparison.
"""

from __future__ import annotations

import os

import anndata
import numpy as np
import pytest
from make_atlas import SIZES, make_atlas
from oracle import file_rows

from annfeed import AnnDataset

BATCH = 128
WINDOW = 6_000
#: Rows of a timed run of anndata's per-batch reading, which takes as long for them as ours for all.
ROWS_BACKED = 4 * BATCH


@pytest.fixture(scope="module")
def path():
    return make_atlas(SIZES[os.environ.get("SIZE", "small")])


@pytest.fixture(scope="module")
def order(path):
    rows = np.random.default_rng(0).permutation(len(AnnDataset(path, obs_columns=[])))
    check = rows[:BATCH]
    dense = AnnDataset(path, obs_columns=[], cache=0).__getitems__(check).batch["X"].numpy()
    assert np.array_equal(dense, file_rows(path, check).toarray())
    assert np.array_equal(anndata.read_h5ad(path, backed="r").X[np.sort(check)].toarray(), dense[np.argsort(check)])
    return rows


def consume(batches, benchmark, rows):
    """Time one pass; cells/s is what the table of results calls ``cells_per_s``."""

    def run():
        assert sum(len(x) for x in batches()) == rows

    benchmark.pedantic(run, rounds=3, warmup_rounds=1)
    if benchmark.stats is not None:
        benchmark.extra_info["cells_per_s"] = round(rows / benchmark.stats.stats.median)


@pytest.mark.benchmark(group="shuffled windows of 6,000")
def test_annfeed_window(path, order, benchmark):
    dataset = AnnDataset(path, obs_subset=order, obs_columns=[], window=WINDOW, cache=0)
    loader = dataset.get_optimized_dataloader(BATCH, shuffle=False)
    consume(lambda: (batch["X"] for batch in loader), benchmark, len(order))


@pytest.mark.benchmark(group="shuffled windows of 6,000")
def test_anndata_backed_per_batch(path, order, benchmark):
    x = anndata.read_h5ad(path, backed="r").X
    starts = range(0, ROWS_BACKED, BATCH)
    consume(lambda: (x[np.sort(order[s : s + BATCH])].toarray() for s in starts), benchmark, ROWS_BACKED)


@pytest.mark.benchmark(group="in memory")
def test_annfeed_cached(path, order, benchmark):
    dataset = AnnDataset(path, obs_subset=order, obs_columns=[], window=WINDOW, cache="2GiB")
    loader = dataset.get_optimized_dataloader(BATCH, shuffle=False)
    consume(lambda: (batch["X"] for batch in loader), benchmark, len(order))


@pytest.mark.benchmark(group="in memory")
def test_scipy_in_memory(path, order, benchmark):
    x = anndata.read_h5ad(path).X
    starts = range(0, len(order), BATCH)
    consume(lambda: (x[order[s : s + BATCH]].toarray() for s in starts), benchmark, len(order))


def test_windows_beat_anndata_per_batch(path, order, benchmark):
    """The first promise: shuffled windows of 6,000 at 5 times the rate of ``X[sorted]`` per batch, or more."""
    import time

    x = anndata.read_h5ad(path, backed="r").X
    dataset = AnnDataset(path, obs_subset=order, obs_columns=[], window=WINDOW, cache=0)
    loader = dataset.get_optimized_dataloader(BATCH, shuffle=False)

    def rate(batches):
        began = time.perf_counter()
        return sum(len(x) for x in batches) / (time.perf_counter() - began)

    def once():
        backed = rate(x[np.sort(order[s : s + BATCH])].toarray() for s in range(0, 2 * BATCH, BATCH))
        return rate(batch["X"] for batch in loader) / backed

    ratios = []
    benchmark.pedantic(lambda: ratios.append(once()), rounds=3)
    benchmark.extra_info["ratio"] = round(float(np.median(ratios)), 1)
    assert np.median(ratios) >= 5 if len(order) * x.shape[1] >= 6e8 else np.median(ratios) > 1
