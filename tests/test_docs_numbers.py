"""Numbers in README and docs that no other test shows: memory, bytes, mixing, and what `dataset.obs` is."""

import json
import time
import weakref
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from anndata.io import write_elem

from annfeed import AnnDataset
from annfeed.batches.reader import RowReader
from annfeed.batches.window import LoadedWindow
from annfeed.loading.slices import slices
from annfeed.loading.weighting import find_weighting
from annfeed.order.weighted import WeightedStream
from annfeed.order.weights import Weighting
from tests.support.orders import epoch_plan
from tests.support.toys import FORMS, hand_over, toy


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
    assert dataset.reader.load(np.arange(500)).nbytes / n_values == pytest.approx(n_bytes, rel=0.05)
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
    plan = epoch_plan(n_rows=60_000, batch_size=100, window=6_000, block_size=16, seed=0, first_window=6_000)
    for window in plan.windows():
        places = np.unique(window.positions // 16)
        assert len(window.positions) == 6_000
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


@pytest.mark.parametrize("kind", ["dense", "csr"])
def test_a_batch_of_several_files_is_decoded_as_one_of_a_single_file(tmp_path: Path, kind: str) -> None:
    """many-files.md: as many bytes are decoded, and a window holds as many."""
    values = np.tile(np.arange(1, 17, dtype=np.float32), (96, 1))  # all rows alike, so chunks lie alike in both
    make: Any = np.asarray if kind == "dense" else sp.csr_matrix
    chunks = (8, 16) if kind == "dense" else (128,)
    whole, halves = tmp_path / "whole.h5ad", [tmp_path / "a.h5ad", tmp_path / "b.h5ad"]
    for path, part in zip([whole, *halves], [values, values[:48], values[48:]], strict=True):
        anndata.AnnData(make(part)).write_h5ad(path)
        with h5py.File(path, "r+") as file:
            for name in ["X"] if kind == "dense" else ["X/data", "X/indices"]:
                array, attrs = file[name][:], dict(file[name].attrs)
                del file[name]
                file.create_dataset(name, data=array, chunks=chunks, compression="gzip").attrs.update(attrs)
    rows = np.random.default_rng(0).permutation(96)[:24]
    found = {}
    for sources in (whole, halves):
        dataset = AnnDataset(sources, cache=0)
        loaded = dataset.reader.load(rows)
        found[str(sources)] = loaded.nbytes, dataset.stats()["bytes_decoded"]
    (one, one_decoded), (several, several_decoded) = found.values()
    assert one_decoded == several_decoded > 0
    assert several == pytest.approx(one, rel=0.2)


def kept(holder: object) -> int:
    return sum(value.nbytes for value in vars(holder).values() if isinstance(value, np.ndarray))


@pytest.mark.parametrize("powers", [0, 1, 3])
def test_bytes_of_weights(powers: int) -> None:
    """sampling.md: weights are not copied; 12 bytes for each run of 64 rows and power of two, 20 more in an epoch."""
    n_runs = 200
    weights = np.ones(64 * n_runs)
    for power in range(powers):
        weights[power::64] = 2.0**power * 1.5
    weighting = Weighting(weights, n_samples=int(weights.sum()))
    assert np.shares_memory(weighting._values, weights)
    assert kept(weighting) - weights.nbytes == pytest.approx(12 * n_runs * (1 + powers), abs=100)
    assert kept(WeightedStream(weighting, 1, 1)) == pytest.approx(20 * n_runs * (1 + powers), abs=100)


@pytest.mark.parametrize(("n_classes", "n_bytes"), [(3, 1), (128, 1), (129, 2), (500, 2)])
@pytest.mark.parametrize("as_text", [False, True])
def test_bytes_of_a_balance(n_classes: int, n_bytes: int, as_text: bool, tmp_path: Path) -> None:
    """sampling.md: for `balance` one byte a row, or two."""
    n = 6_400
    kind = [f"type {i % n_classes}" for i in range(n)]
    adata = anndata.AnnData(sp.csr_matrix((n, 1), dtype="float32"), obs=pd.DataFrame({"kind": kind}).astype("category"))
    adata.write_h5ad(tmp_path / "x.h5ad")
    if as_text:
        with h5py.File(tmp_path / "x.h5ad", "r+") as file:
            del file["obs/kind"]
            write_elem(file["obs"], "kind", np.array(kind, dtype=object))
    weighting = find_weighting(AnnDataset(tmp_path / "x.h5ad"), None, "kind", 1.0, True, None)
    assert weighting is not None
    assert weighting._codes.nbytes == n_bytes * n
    assert weighting._values.nbytes == 8 * n_classes


def test_what_an_order_is_a_function_of(tmp_path: Path) -> None:
    """reproducibility.md: not of compression or, without blocks, of `window`; with "auto" of the file's chunks."""
    x = np.random.default_rng(0).random((2_000, 200), dtype=np.float32)
    paths = [tmp_path / f"{i}.h5ad" for i in range(3)]
    chunks = [{}, {"compression": "gzip", "chunks": (32, 200)}, {"compression": "lzf", "chunks": (50, 200)}]
    for path, how in zip(paths, chunks, strict=True):
        anndata.AnnData(x[:, :1]).write_h5ad(path)
        with h5py.File(path, "r+") as file:
            attrs = dict(file["X"].attrs)
            del file["X"], file["var"]
            file.create_dataset("X", data=x, **how).attrs.update(attrs)
            write_elem(file, "var", pd.DataFrame(index=[f"g{i}" for i in range(200)]))

    def order(path: Path, block_size: Any, window: int = 500) -> list[int]:
        dataset = AnnDataset(path, window=window)
        loader = dataset.get_optimized_dataloader(50, seed=1, block_size=block_size, return_index=True)
        return torch.cat([batch["index"] for batch in loader]).tolist()

    for block_size in (1, 8):
        assert order(paths[0], block_size) == order(paths[1], block_size) == order(paths[2], block_size)
    assert order(paths[0], 1) == order(paths[0], 1, window=100)
    assert order(paths[0], 8) != order(paths[0], 8, window=100)
    assert order(paths[1], "auto", 6_000) != order(paths[2], "auto", 6_000)


@pytest.mark.parametrize("output", ["dense", "csr"])
def test_windows_and_batches_that_are_held(tmp_path: Path, output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """how-it-works.md, Memory: about two windows of decoded rows and `prefetch_batches` + 1 batches."""
    windows: weakref.WeakSet[Any] = weakref.WeakSet()
    load, batch = RowReader.load, LoadedWindow.batch
    batches: weakref.WeakSet[Any] = weakref.WeakSet()

    def loaded(reader: RowReader, positions: Any) -> Any:
        windows.add(found := load(reader, positions))
        return found

    def made(window: LoadedWindow, start: int, stop: int) -> Any:
        batches.add((found := batch(window, start, stop))["X"])
        return found

    monkeypatch.setattr(RowReader, "load", loaded)
    monkeypatch.setattr(LoadedWindow, "batch", made)
    path = sparse(tmp_path / "x.h5ad", [1, 2, 3], n_values=5, n_rows=3_000)
    dataset = AnnDataset(path, window=100, output=output, cache=0)
    most_windows = most_batches = 0
    for _held in dataset.get_optimized_dataloader(20, seed=0, prefetch_batches=3):
        time.sleep(0.001)  # all that is made ahead is made
        most_windows, most_batches = max(most_windows, len(windows)), max(most_batches, len(batches))
    assert 1 <= most_windows <= 3  # one is let go of while the next two are there
    assert 1 <= most_batches <= 3 + 2


def test_parts_of_a_window_that_workers_send() -> None:
    """how-it-works.md: a window is cut into parts of at most 128 MiB of batches, whole ones."""
    plan = epoch_plan(n_rows=40_000, batch_size=256, window=16_384, seed=0)
    for window in plan.windows():
        cut = list(slices(window, row_bytes=4 * 30_000))
        assert np.array_equal(np.concatenate([part.positions for part in cut]), window.positions)
        assert all(len(part.positions) * 4 * 30_000 <= 128 << 20 for part in cut)
        assert [len(b) for part in cut for b in part.batches] == [len(b) for b in window.batches]
        assert len(cut) == -(-len(window.positions) // (1024))  # 1,118 rows are 128 MiB: four batches


def test_shares_of_balance_are_those_of_when_the_loader_was_made() -> None:
    """how-it-works.md, Data that changes."""
    adata = toy()
    adata.obs["kind"] = pd.Categorical(["a"] * 10 + ["b"] * 30)
    dataset = AnnDataset(adata, obs_columns=["row"])

    def shares(loader: Any) -> float:
        rows = torch.cat([batch["obs_row"] for batch in loader])
        return (rows < 10).float().mean().item()

    before = dataset.get_optimized_dataloader(4, seed=0, balance="kind")
    adata.obs["kind"] = pd.Categorical(["a"] * 39 + ["b"])
    assert shares(before) == 0.5
    assert shares(dataset.get_optimized_dataloader(4, seed=0, balance="kind")) < 0.3


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
