"""`AnnDataset` and its file: pickles, changes, closing, statistics, memory."""

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from tests.dataset.toys_at import KINDS
from tests.support.toys import FORMS, assert_same, dense, flat, hand_over, rows_of, toy

import annfeed
from annfeed import AnnDataset
from annfeed.sources.base import STATS

# --- a file and its life ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_pickle_round_trip(tmp_path: Path, form: str) -> None:
    dataset = AnnDataset(
        hand_over(toy(), form, tmp_path),
        obs_subset=[9, 2, 2],
        var_subset=["gene0", "gene4"],
        obs_columns=["row", "text"],
        dtype=torch.float64,
        window=10,
    )
    before = dataset[0]  # with everything read and open
    again = pickle.loads(pickle.dumps(dataset))
    assert_same(again[0], before)
    assert again.shape == dataset.shape
    assert again.window == 10
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
    text = repr(AnnDataset(path, elem={"X": "X", "pca": "obsm/X_pca"}, obs_subset=[1, 2])).splitlines()[0]
    assert text == f"AnnDataset(2 x 7, X={path}: 'X', pca={path}: 'obsm/X_pca')"
    assert repr(AnnDataset(toy())).startswith("AnnDataset(40 x 7, X=AnnData: 'X')\n")


@pytest.mark.parametrize("kind", KINDS)
def test_one_open_for_any_number_of_batches(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = AnnDataset(hand_over(toy(kind=kind), "path", tmp_path), window=4)
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
    assert dataset.stats() == dict.fromkeys(STATS, 0) | {"opens": 1, "fallback_controls": 0}
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
    dataset = AnnDataset(hand_over(adata, "path", shelf, f"kept{n_vars}"), window=32, output=output)
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
