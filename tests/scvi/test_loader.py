"""What our loader does where the stock class fails: order, masks, samplers, files, workers, ranks, errors."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

pytest.importorskip("scvi.dataloaders", reason="scvi-tools is not installed")

from tests.support.processes import run_ranks
from tests.support.scvi_toys import assert_same, backed, cells, manager, toy

from annfeed import AnnDataLoader, StaleFileError
from annfeed.scvi.counts import StreamedCounts

N = 43
FORMS = ("memory", "backed")


@pytest.fixture(params=FORMS)
def registered(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A manager of 43 cells, in memory and backed."""
    return manager(toy(N) if request.param == "memory" else backed(toy(N), tmp_path))


def order(loader: Any) -> list[list[int]]:
    return [cells(batch) for batch in loader]


def flat(loader: Any) -> list[int]:
    return [cell for batch in loader for cell in cells(batch)]


# --- which cells, in which order --------------------------------------------------------------------------------------

MASK = np.arange(N) % 4 == 1
CELLS = np.flatnonzero(MASK).tolist()
SELECTIONS: dict[str, tuple[Any, list[int]]] = {
    "unsorted": ([9, 2, 30], [9, 2, 30]),
    "repeated": ([5, 5, 1, 5], [5, 5, 1, 5]),
    "negative": ([-1, 0, -43], [42, 0, 0]),
    "mask": (MASK, CELLS),
    "list of bool": (MASK.tolist(), CELLS),
    "list of numpy bool": (list(MASK), CELLS),
    "pandas mask": (pd.Series(MASK, index=[f"cell{i}" for i in range(N)]), CELLS),
    "pandas mask in another order": (pd.Series(MASK, index=[f"cell{i}" for i in range(N)]).sort_index(), CELLS),
    "nullable pandas mask": (pd.Series(MASK, dtype="boolean"), CELLS),
    "torch mask": (torch.from_numpy(MASK), CELLS),
    "torch positions": (torch.tensor([4, 1]), [4, 1]),
    "pandas positions": (pd.Index([4, 1]), [4, 1]),
    "range": (range(40, 30, -3), [40, 37, 34, 31]),
    "slice": (slice(3), [0, 1, 2]),
    "an empty mask": (np.zeros(N, dtype=bool), []),
    "nothing": ([], []),
}


@pytest.mark.parametrize("name", SELECTIONS)
def test_order_asked_for_is_the_order_delivered(registered: Any, name: str) -> None:
    indices, expected = SELECTIONS[name]
    loader = AnnDataLoader(registered, indices=indices, batch_size=3, window=4)
    assert flat(loader) == expected
    assert loader.indices.tolist() == expected
    assert loader.indices.dtype == np.int64
    assert len(loader) == -(-len(expected) // 3)
    assert cells(loader.dataset.dataset[indices]) == expected


def test_all_keys_are_of_the_same_cells(registered: Any) -> None:
    for batch in AnnDataLoader(registered, indices=[40, 3, 3, 17, 0], batch_size=2):
        rows = cells(batch)
        obs = registered.adata.obs.iloc[rows]
        np.testing.assert_array_equal(batch["batch"].ravel(), obs["_scvi_batch"])
        np.testing.assert_array_equal(batch["labels"].ravel(), obs["_scvi_labels"])
        np.testing.assert_allclose(batch["size_factor"].ravel(), obs["depth"], rtol=1e-6)
        np.testing.assert_allclose(batch["extra_continuous_covs"], obs[["age", "mito"]], rtol=1e-6)


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        (MASK[:-1], ValueError, "length 42, but there are 43"),
        (MASK[:-1].tolist(), ValueError, "length 42, but there are 43"),
        ([True] * 44, ValueError, "length 44, but there are 43"),
        (torch.ones(3, dtype=torch.bool), ValueError, "length 3, but there are 43"),
        (pd.Series(MASK, index=[f"x{i}" for i in range(N)]), ValueError, "whose index .* is not adata.obs_names"),
        ([0, 43], IndexError, "index 43 is out of range for a dataset of 43 rows"),
        ([-44], IndexError, "index -44 is out of range for a dataset of 43 rows"),
        (["cell1"], TypeError, "adata.obs_names.get_indexer"),
        ([0.5], TypeError, "float64"),
        ([[0, 1]], TypeError, "2 axes"),
        ("cell1", TypeError, "text"),
    ],
)
def test_indices_that_cannot_be_meant(registered: Any, indices: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        AnnDataLoader(registered, indices=indices)
    with pytest.raises(error, match=message):
        AnnDataLoader(registered).dataset.dataset[indices]


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_statistics_of_counts_on_disk(kind: str, tmp_path: Path) -> None:
    adata = toy(kind=kind)
    x = np.asarray(adata.X if kind == "dense" else adata.X.toarray(), np.float64)
    on_disk = StreamedCounts(manager(backed(adata, tmp_path)), "X", 10)
    for axis in (0, 1, None):
        np.testing.assert_allclose(np.ravel(on_disk.sum(axis=axis)), np.ravel(x.sum(axis=axis)))
    np.testing.assert_allclose(on_disk.sum(), x.sum())
    np.testing.assert_allclose(on_disk[[3, 1]].mean(axis=0), x[[3, 1]].mean(axis=0))
    with pytest.warns(RuntimeWarning):  # as numpy's, of no rows
        np.testing.assert_array_equal(on_disk[[]][:, [0, 2]].mean(axis=0), [np.nan, np.nan])
    assert on_disk[[]].shape == (0, 6)


@pytest.mark.parametrize("window", [1, 7, 10, 1000])
def test_windows_do_not_change_the_order(window: int, tmp_path: Path) -> None:
    registered = manager(backed(toy(N), tmp_path))
    torch.manual_seed(0)
    expected = order(AnnDataLoader(registered, shuffle=True, batch_size=5))
    torch.manual_seed(0)
    assert order(AnnDataLoader(registered, shuffle=True, batch_size=5, window=window, threads=1)) == expected
    assert sorted(chain(*expected)) == list(range(N))


@pytest.mark.parametrize("cache", [0, "1MiB", "auto"])
def test_the_cache_does_not_change_batches(cache: Any, tmp_path: Path) -> None:
    registered = manager(backed(toy(N), tmp_path))
    loader = AnnDataLoader(registered, batch_size=5, window=10, cache=cache)
    assert flat(loader) == flat(loader) == list(range(N))


# --- shuffling and generators -----------------------------------------------------------------------------------------


def test_each_epoch_has_an_order_of_its_own_and_a_seed_repeats_it(registered: Any) -> None:
    loader = AnnDataLoader(registered, shuffle=True, batch_size=5)
    torch.manual_seed(1)
    first, second = flat(loader), flat(loader)
    assert first != second
    assert sorted(first) == sorted(second) == list(range(N))
    torch.manual_seed(1)
    assert [flat(loader), flat(loader)] == [first, second]


def test_generator_governs_the_shuffle(registered: Any) -> None:
    def run(seed: int) -> list[int]:
        return flat(AnnDataLoader(registered, shuffle=True, generator=torch.Generator().manual_seed(seed)))

    before = torch.get_rng_state()
    first = run(1)
    assert first == run(1)
    assert first != run(2)
    assert torch.equal(before, torch.get_rng_state()), "with generator=, the global one is not touched"


def test_the_seed_of_workers_is_drawn_at_iter_and_the_order_at_next(registered: Any) -> None:
    """As torch does it: what a model draws between the two is the same."""
    loader = AnnDataLoader(registered, shuffle=True)
    torch.manual_seed(5)
    expected = [int(torch.empty((), dtype=torch.int64).random_()) for _ in range(3)]
    torch.manual_seed(5)
    batches = iter(loader)
    assert int(torch.empty((), dtype=torch.int64).random_()) == expected[1]
    next(batches)
    after = torch.Generator()
    after.set_state(torch.get_rng_state())
    torch.manual_seed(5)
    for _ in range(3):
        torch.empty((), dtype=torch.int64).random_()
    assert torch.equal(torch.get_rng_state(), after.get_state())


class Lazy(Sampler[int]):
    """Draws from torch's global generator whenever a position is wanted."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __iter__(self) -> Iterator[int]:
        return (int(torch.randint(0, self.n, ())) for _ in range(self.n))

    def __len__(self) -> int:
        return self.n


def test_a_sampler_draws_in_the_caller_s_thread_whatever_the_speed(tmp_path: Path) -> None:
    registered = manager(backed(toy(N), tmp_path))

    def run(pause: float) -> list[Any]:
        torch.manual_seed(2)
        seen: list[Any] = []
        for batch in AnnDataLoader(registered, sampler=Lazy(N), batch_size=2, window=2):
            time.sleep(pause)
            seen.append((cells(batch), float(torch.rand(()))))
        return seen

    assert run(0.0) == run(0.01)


# --- samplers ---------------------------------------------------------------------------------------------------------


class Plain:
    """An iterable with a length, of whatever it is given."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items
        self.epochs: list[int] = []

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)


BATCHES = [[4, 0, 4], [1], [9, 8]]
POSITIONS = [4, 0, 4, 1, 9]
SAMPLERS: dict[str, tuple[Any, list[list[int]]]] = {
    "batches": (Plain(BATCHES), BATCHES),
    "a list of batches": (BATCHES, BATCHES),
    "batches as arrays": (Plain([np.array(b) for b in BATCHES]), BATCHES),
    "batches as tensors": (Plain([torch.tensor(b) for b in BATCHES]), BATCHES),
    "batches of one": (Plain([[3], [1]]), [[3], [1]]),
    "positions": (Plain(POSITIONS), [[4, 0], [4, 1], [9]]),
    "a list of positions": (POSITIONS, [[4, 0], [4, 1], [9]]),
    "an array": (np.array(POSITIONS), [[4, 0], [4, 1], [9]]),
    "a tensor": (torch.tensor(POSITIONS), [[4, 0], [4, 1], [9]]),
    "negative positions": (Plain([-1, 0, -2]), [[-1, 0], [-2]]),
    "torch's batches": (BatchSampler(SequentialSampler(range(5)), 3, False), [[0, 1, 2], [3, 4]]),
    "torch's full batches": (BatchSampler(SequentialSampler(range(5)), 3, True), [[0, 1, 2]]),
    "torch's positions": (SequentialSampler(range(5)), [[0, 1], [2, 3], [4]]),
    "nothing": (Plain([]), []),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_of_batches_and_of_positions_give_2d_batches(registered: Any, name: str) -> None:
    sampler, expected = SAMPLERS[name]
    indices = np.arange(N)[::-1][:20]  # positions are of the indices, not of the AnnData
    loader = AnnDataLoader(registered, indices=indices, sampler=sampler, batch_size=2)
    for _ in range(2):
        assert len(loader) == len(expected)
        assert order(loader) == [[int(indices[i]) for i in batch] for batch in expected]
    for batch in loader:
        assert {value.ndim for value in batch.values()} == {2}


def test_drop_last_is_for_samplers_of_positions(registered: Any) -> None:
    loader = AnnDataLoader(registered, sampler=Plain(POSITIONS), batch_size=2, drop_last=True)
    assert len(loader) == 2
    assert order(loader) == [[4, 0], [4, 1]]
    assert order(AnnDataLoader(registered, sampler=Plain(BATCHES), batch_size=2, drop_last=True)) == BATCHES


def test_random_samplers(registered: Any) -> None:
    loader = AnnDataLoader(registered, sampler=SubsetRandomSampler([5, 6, 7]), batch_size=2)
    assert sorted(flat(loader)) == [5, 6, 7]
    draws = WeightedRandomSampler([0.0] * 5 + [1.0] * 2 + [0.0] * (N - 7), 100)
    assert set(flat(AnnDataLoader(registered, sampler=draws))) == {5, 6}
    seeded = RandomSampler(range(N), generator=torch.Generator().manual_seed(0))
    assert sorted(flat(AnnDataLoader(registered, sampler=seeded))) == list(range(N))


def test_len_of_a_random_sampler_draws_nothing(registered: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    for sampler in (RandomSampler(range(N)), RandomSampler(range(N), generator=generator), Lazy(N)):
        states = torch.get_rng_state(), generator.get_state()
        assert len(AnnDataLoader(registered, sampler=sampler, batch_size=10)) == 5
        assert torch.equal(states[0], torch.get_rng_state())
        assert torch.equal(states[1], generator.get_state())


def test_epochs_reach_a_user_s_sampler(registered: Any) -> None:
    sampler = Plain(POSITIONS)
    AnnDataLoader(registered, sampler=sampler).sampler.set_epoch(3)
    AnnDataLoader(registered, sampler=BatchSampler(sampler, 2, False)).sampler.set_epoch(4)
    assert sampler.epochs == [3, 4]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"sampler": [0], "shuffle": True}, ValueError, "sampler and shuffle=True"),
        ({"sampler": [0], "distributed_sampler": True}, ValueError, "sampler and distributed_sampler=True"),
        ({"sampler": [0], "batch_size": 0}, ValueError, "batch_size"),
        ({"window": 0}, ValueError, "window is 0"),
        ({"window": 2.5}, TypeError, "window is 2.5"),
        ({"threads": 0}, ValueError, "threads is 0"),
        ({"cache": "lots"}, ValueError, "cache is 'lots'"),
        ({"cache": None}, TypeError, "cache is None"),
    ],
)
def test_arguments_that_exclude_each_other_or_are_out_of_range(
    registered: Any, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        AnnDataLoader(registered, **arguments)


def test_a_wrong_position_is_told_after_the_batches_before_it(tmp_path: Path) -> None:
    registered = manager(backed(toy(N), tmp_path))
    batches = iter(AnnDataLoader(registered, sampler=[[0], [1], [43]], window=1))
    assert [cells(next(batches)), cells(next(batches))] == [[0], [1]]
    with pytest.raises(IndexError, match="43"):
        next(batches)


# --- what lies on disk ------------------------------------------------------------------------------------------------


def test_the_matrix_is_streamed_and_the_anndata_stays_backed(tmp_path: Path) -> None:
    registered = manager(backed(toy(N), tmp_path))
    loader = AnnDataLoader(registered)
    assert loader.dataset.dataset.streamed
    assert flat(loader) == list(range(N))
    assert registered.adata.isbacked
    assert isinstance(registered.adata.X, anndata.abc.CSRDataset)


def test_a_layer_left_on_disk_is_streamed(tmp_path: Path) -> None:
    adata = backed(toy(N), tmp_path)
    with h5py.File(tmp_path / "toy.h5ad") as file:
        adata.layers["counts"] = anndata.io.sparse_dataset(file["layers/counts"])
        loader = AnnDataLoader(manager(adata, layer="counts"), indices=[5, 2])
        assert loader.dataset.dataset.streamed
        assert [cells(batch) for batch in loader] == [[15, 6]]


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_a_layer_edited_in_memory_is_the_one_delivered(kind: str, tmp_path: Path) -> None:
    adata = backed(toy(N, kind=kind), tmp_path)
    assert not AnnDataLoader(manager(adata, layer="counts")).dataset.dataset.streamed, "anndata has loaded it"
    adata.layers["counts"] = adata.layers["counts"] * 10
    adata.layers["new"] = adata.layers["counts"]
    for layer in ("counts", "new"):
        loader = AnnDataLoader(manager(adata, layer=layer), indices=[5, 2])
        assert [cells(batch) for batch in loader] == [[150, 60]]


def test_a_layer_in_zarr(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    adata = toy(N)
    adata.write_zarr(tmp_path / "toy.zarr")
    adata.layers["counts"] = anndata.io.sparse_dataset(zarr.open(tmp_path / "toy.zarr", mode="r")["layers/counts"])
    loader = AnnDataLoader(manager(adata, layer="counts"), indices=[5, 2, 5])
    assert loader.dataset.dataset.streamed
    assert [cells(batch) for batch in loader] == [[15, 6, 15]]


@pytest.mark.parametrize("form", FORMS)
def test_modalities_of_a_mudata(form: str, tmp_path: Path) -> None:
    import mudata
    from scvi.dataloaders import AnnDataLoader as Stock
    from scvi.model import TOTALVI

    def setup(mdata: Any) -> Any:
        TOTALVI.setup_mudata(
            mdata,
            rna_layer=None,
            protein_layer=None,
            batch_key="donor",
            modalities={"rna_layer": "rna", "protein_layer": "protein", "batch_key": "rna"},
        )
        return TOTALVI._get_most_recent_anndata_manager(mdata, required=True)

    # From mudata 0.4 on there is no such option: it is how it works.
    options = getattr(mudata, "set_options", nullcontext)
    with options(**{} if options is nullcontext else {"pull_on_update": False}):
        in_memory = mudata.MuData({"rna": toy(N), "protein": toy(N, 4, "dense", seed=1)})
        in_memory.write(tmp_path / "toy.h5mu")
        mdata = in_memory if form == "memory" else mudata.read_h5mu(tmp_path / "toy.h5mu", backed=True)
        registered, expected = setup(mdata), setup(in_memory)
    loader = AnnDataLoader(registered, indices=[9, 2, 30, 2], batch_size=3)
    assert loader.dataset.dataset.streamed == (form == "backed")
    for mine, theirs in zip(loader, Stock(expected, indices=[9, 2, 30, 2], batch_size=3), strict=True):
        assert_same(mine, theirs)


def test_sparse_tensors_hold_torch_s_invariants(registered: Any) -> None:
    with torch.sparse.check_sparse_tensor_invariants():
        for batch in AnnDataLoader(registered, load_sparse_tensor=True, batch_size=8):
            x = batch["X"]
            assert x.layout is torch.sparse_csr
            torch.sparse_csr_tensor(x.crow_indices(), x.col_indices(), x.values(), size=x.shape)


def test_unsorted_repeated_columns_in_memory_are_summed() -> None:
    import scipy.sparse as sp

    adata = toy(2, 3)
    adata.X = sp.csr_matrix((np.float32([1, 2, 3, 4]), np.int32([2, 0, 2, 1]), np.int32([0, 3, 4])), shape=(2, 3))
    (batch,) = AnnDataLoader(manager(adata), load_sparse_tensor=True)
    with torch.sparse.check_sparse_tensor_invariants():
        x = torch.sparse_csr_tensor(*(getattr(batch["X"], n)() for n in ("crow_indices", "col_indices", "values")))
    assert x.to_dense().tolist() == [[2, 0, 4], [0, 4, 0]]


def test_a_file_that_changed_is_an_error(tmp_path: Path) -> None:
    loader = AnnDataLoader(manager(backed(toy(N), tmp_path)))
    assert len(list(loader)) == 1
    os.utime(tmp_path / "toy.h5ad", ns=(1, 1))
    with pytest.raises(StaleFileError, match=r"toy\.h5ad"):
        list(loader)


def test_a_damaged_file_is_an_error_where_the_batch_is_asked_for(tmp_path: Path) -> None:
    adata = toy(N)
    path = tmp_path / "toy.h5ad"
    adata.write_h5ad(path, compression="gzip")
    with h5py.File(path) as file:
        chunk = file["X/data"].id.get_chunk_info(0)
    loader = AnnDataLoader(manager(anndata.read_h5ad(path, backed="r")))
    stamp = path.stat().st_mtime_ns
    with path.open("r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(b"\xff" * chunk.size)
    os.utime(path, ns=(stamp, stamp))
    with pytest.raises(ValueError, match=r"toy\.h5ad"):
        next(iter(loader))


# --- iteration, threads and workers -----------------------------------------------------------------------------------


def test_iterators_are_independent_and_a_break_leaves_no_thread(tmp_path: Path) -> None:
    loader = AnnDataLoader(manager(backed(toy(N), tmp_path)), batch_size=2, window=4)
    n_threads = threading.active_count()
    for batch in loader:
        assert cells(batch) == [0, 1]
        break
    a, b = iter(loader), iter(loader)
    assert [cells(next(a)), cells(next(a)), cells(next(b))] == [[0, 1], [2, 3], [0, 1]]
    del a, b
    assert flat(loader) == list(range(N))
    assert threading.active_count() == n_threads


def test_iter_starts_nothing(tmp_path: Path) -> None:
    loader = AnnDataLoader(manager(backed(toy(N), tmp_path)))
    n_threads = threading.active_count()
    batches = iter(loader)
    assert threading.active_count() == n_threads
    next(batches)


def test_a_batch_is_the_user_s(registered: Any) -> None:
    loader = AnnDataLoader(registered, batch_size=8)
    first = [{key: value.clone() for key, value in batch.items()} for batch in loader]
    for batch in loader:
        for value in batch.values():
            value.zero_()
    for a, b in zip(first, loader, strict=True):
        assert_same(a, b)


def test_timeout_needs_workers(registered: Any) -> None:
    with pytest.raises((ValueError, AssertionError), match="timeout"):
        list(AnnDataLoader(registered, timeout=3))


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_workers(registered: Any, method: str) -> None:
    arguments: dict[str, Any] = {"shuffle": True, "batch_size": 4, "window": 12}
    torch.manual_seed(0)
    expected = [list(AnnDataLoader(registered, **arguments)) for _ in range(2)]
    # A spawned worker takes seconds to start; so there is one of these.
    for n_workers in {"fork": (1, 2), "forkserver": (2,), "spawn": (1,)}[method]:
        torch.manual_seed(0)
        for epoch in range(2):
            loader = AnnDataLoader(registered, num_workers=n_workers, multiprocessing_context=method, **arguments)
            batches = list(loader)
            assert len(batches) == len(loader)
            for a, b in zip(batches, expected[epoch], strict=True):
                assert_same(a, b)


@pytest.mark.parametrize("extra", [{}, {"iter_ndarray": True}, {"load_sparse_tensor": True}, {"in_order": False}])
def test_workers_with_other_options(registered: Any, extra: dict[str, Any]) -> None:
    loader = AnnDataLoader(registered, batch_size=4, window=8, num_workers=2, persistent_workers=True, **extra)
    alone = AnnDataLoader(registered, batch_size=4, **{k: v for k, v in extra.items() if k != "in_order"})
    for _ in range(2):
        batches = list(loader)
        if "in_order" in extra:
            batches.sort(key=lambda batch: cells(batch)[0])
        for a, b in zip(batches, alone, strict=True):
            assert_same(a, b)


@pytest.mark.parametrize("persistent", [False, True])
def test_after_a_worker_was_killed_the_next_epoch_is_whole(registered: Any, persistent: bool) -> None:
    loader = AnnDataLoader(registered, batch_size=2, window=4, num_workers=2, persistent_workers=persistent)

    def killed() -> str:
        before = set(multiprocessing.active_children())
        batches = iter(loader)
        next(batches)
        worker = next(iter(set(multiprocessing.active_children()) - before))
        # torch tells it in the main thread, whatever that is doing, and again whenever a process ends, for as long as
        # somebody holds the iterator: as the error does.
        try:
            os.kill(worker.pid or 0, signal.SIGKILL)
            for _ in range(50):
                time.sleep(0.01)
            list(batches)
        except RuntimeError as error:
            return str(error)
        return "no error"

    assert "DataLoader worker (pid" in killed()
    for _ in range(2):
        assert flat(loader) == list(range(N))


def test_iter_ndarray_pickles(registered: Any) -> None:
    loader = AnnDataLoader(registered, iter_ndarray=True, batch_size=8)
    assert pickle.loads(pickle.dumps(loader.collate_fn)) is loader.collate_fn
    for batch in loader:
        assert {type(value) for value in batch.values()} == {np.ndarray}
        assert_same(pickle.loads(pickle.dumps(batch)), batch)


def test_a_loader_pickles(registered: Any) -> None:
    for n_workers in (0, 1):
        loader = AnnDataLoader(registered, indices=[5, 2, 9], batch_size=2, num_workers=n_workers)
        assert order(loader) == [[5, 2], [9]]
        assert order(pickle.loads(pickle.dumps(loader))) == [[5, 2], [9]]


def test_the_dataset_pickles_without_the_anndata(registered: Any) -> None:
    dataset = AnnDataLoader(registered, indices=[5, 2]).dataset
    assert_same(pickle.loads(pickle.dumps(dataset))[[0, 1]], dataset[[0, 1]])


# --- ranks ------------------------------------------------------------------------------------------------------------

#: Positions that each rank gets of 21, in batches of 4: (drop_last, drop_dataset_tail) -> [rank 0, rank 1].
RANKS = {
    (False, False): [
        [[0, 2, 4, 6], [8, 10, 12, 14], [16, 18, 20]],
        [[1, 3, 5, 7], [9, 11, 13, 15], [17, 19, 0]],
    ],
    (False, True): [[[0, 2, 4, 6], [8, 10, 12, 14], [16, 18]], [[1, 3, 5, 7], [9, 11, 13, 15], [17, 19]]],
    (True, False): [[[0, 2, 4, 6], [8, 10, 12, 14]], [[1, 3, 5, 7], [9, 11, 13, 15]]],
    (True, True): [[[0, 2, 4, 6], [8, 10, 12, 14]], [[1, 3, 5, 7], [9, 11, 13, 15]]],
}
RANK = """
import json, sys
import anndata, torch
import torch.distributed as dist
from annfeed import AnnDataLoader

path = sys.argv[1]
dist.init_process_group("gloo")

class Manager:
    adata = anndata.read_h5ad(path, backed="r")
    data_registry = {"X": {"attr_name": "X", "attr_key": None}}
    def get_from_registry(self, key):
        return self.adata.X

def run(**arguments):
    loader = AnnDataLoader(Manager(), batch_size=4, distributed_sampler=True, window=8, **arguments)
    return loader, lambda: [batch["X"][:, 0].int().tolist() for batch in loader]

result = {"table": []}
for drop_last in (False, True):
    for tail in (False, True):
        loader, epoch = run(drop_last=drop_last, drop_dataset_tail=tail)
        result["table"].append([len(loader), epoch()])
loader, epoch = run(shuffle=True)
first = epoch()
loader.sampler.set_epoch(1)
second = epoch()
loader.sampler.set_epoch(0)
result["shuffled"] = [first, second, epoch()]
print(json.dumps(result))
dist.destroy_process_group()
"""


def test_ranks_get_equal_shares(tmp_path: Path) -> None:
    import json

    toy(21).write_h5ad(tmp_path / "toy.h5ad")
    (tmp_path / "rank.py").write_text(textwrap.dedent(RANK))
    ranks = run_ranks(2, tmp_path / "rank.py", tmp_path / "toy.h5ad")
    assert [rank.returncode for rank in ranks] == [0, 0], ranks
    results = [json.loads(rank.stdout.splitlines()[-1]) for rank in ranks]
    for case, expected in enumerate(RANKS.values()):
        for rank in range(2):
            length, batches = results[rank]["table"][case]
            assert batches == expected[rank]
            assert length == len(batches)
    for a, b in zip(results[0]["shuffled"], results[1]["shuffled"], strict=True):
        assert len(a) == len(b) == 3
        assert set(chain(*a, *b)) == set(range(21))
    first, second, again = results[0]["shuffled"]
    assert first == again != second
