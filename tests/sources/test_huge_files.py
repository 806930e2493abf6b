"""Sizes beyond 31 and 32 bits, and 100 million rows in 14 files, in files that are nearly empty on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from tests.support.huge_files import row_of, write_huge

from annfeed import AnnDataset

PER_ROW = 1500
BORDERS = (2**31, 2**32)
N_ROWS = 2**32 // PER_ROW + 20_000


@pytest.fixture(scope="module", params=[True, False], ids=["gzip", "no filter"])
def huge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A matrix of more than 2³² values; those near both borders, at the beginning and at the end are no fill values."""
    path = tmp_path_factory.mktemp("huge") / "huge.h5ad"
    write_huge(path, N_ROWS, PER_ROW, filled=(0, *BORDERS, N_ROWS * PER_ROW - 1), gzip=request.param)
    assert path.stat().st_size < 50e6
    with h5py.File(path) as file:
        assert file["X/indptr"][-1] == N_ROWS * PER_ROW > 2**32
    return path


def near_borders() -> np.ndarray:
    """Rows on both sides of each border, that at it, the ends, and some in nobody's land."""
    near = [border // PER_ROW + step for border in BORDERS for step in (-30, -1, 0, 1, 2, 30)]
    return np.array([*near, 0, 1, N_ROWS - 1, N_ROWS - 2, N_ROWS // 3])


def test_offsets_beyond_31_and_32_bits_pitfall_13(huge: Path) -> None:
    # Row 13: int32 overflow of indptr or row offsets.
    rows = np.random.default_rng(0).permutation(near_borders())
    for output in ("dense", "csr"):
        batch = AnnDataset(huge, obs_columns=[], output=output).__getitems__(rows.tolist()).batch
        for row, values in zip(rows.tolist(), batch["X"].to_dense().numpy(), strict=True):
            np.testing.assert_array_equal(values, row_of(huge, row), err_msg=f"row {row}")
    assert all(row_of(huge, row).any() for row in rows if row != N_ROWS // 3)


def test_offsets_beyond_32_bits_in_many_files_pitfall_13(huge: Path) -> None:
    # Two of them have more than 2³² values before and after the border between them.
    dataset = AnnDataset(
        [huge, huge], obs_columns=[], label="file", categories="code", var_subset=["gene7", "gene1400"]
    )
    assert len(dataset) == 2 * N_ROWS
    rows = np.concatenate([near_borders(), near_borders() + N_ROWS])
    rows = np.random.default_rng(1).permutation(rows)
    batch = dataset.__getitems__(rows.tolist()).batch
    assert batch["obs_file"].tolist() == (rows // N_ROWS).tolist()
    for row, values in zip(rows.tolist(), batch["X"].numpy(), strict=True):
        np.testing.assert_array_equal(values, row_of(huge, row % N_ROWS)[[7, 1400]], err_msg=f"row {row}")


SCALE = """
import json, resource, sys, time
import anndata, torch  # what a training script has anyway
from annfeed import AnnDataset

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

AnnDataset(sys.argv[2], obs_columns=[])[0]
before, found = peak(), {}
start = time.perf_counter()
dataset = AnnDataset(sys.argv[1], obs_columns=[], label="file")
found["open"] = time.perf_counter() - start
for block_size in (1, 16):
    start = time.perf_counter()
    plan = dataset.get_optimized_dataloader(batch_size=128, block_size=block_size, seed=0).sampler.begin()
    windows = plan.windows()
    rows = [next(windows).positions for _ in range(3)]
    found[f"plan {block_size}"] = time.perf_counter() - start
found["planned"] = peak() - before
start = time.perf_counter()
dataset.__getitems__([part.start for part in dataset.source_rows])
found["first rows of all files"] = time.perf_counter() - start
print(json.dumps({"rows": len(dataset), "peak": peak() - before, **found}))
"""


def test_many_rows_in_14_files(tmp_path: Path) -> None:
    # At full size with ANNFEED_ROWS=100000000; what that took is in docs/many-files.md.
    n_rows = int(os.environ.get("ANNFEED_ROWS", 7_000_000)) // 14
    for i in range(14):
        write_huge(tmp_path / f"{i:02}.h5ad", n_rows, 1000)
    write_huge(tmp_path / "small.hdf5", 100, 1000)
    done = subprocess.run(
        [sys.executable, "-c", SCALE, str(tmp_path / "*.h5ad"), str(tmp_path / "small.hdf5")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    import json

    found = json.loads(done.stdout)
    print(found)
    assert found["rows"] == 14 * n_rows
    # Row pointers are 4 bytes a row; nothing else may be held for each row. 60 MB: parsing and decoding of one file.
    assert found["planned"] < 20e6
    assert found["peak"] < 4 * found["rows"] + 60e6 + 16 * n_rows
