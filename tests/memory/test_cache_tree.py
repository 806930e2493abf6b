"""``cache="auto"`` is one budget of the process tree: loaders, workers and datasets together hold no more of it."""

import gc
import multiprocessing
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch.utils.data import DataLoader

from annfeed import AnnDataset, Transform
from annfeed.memory import budget as cache
from annfeed.memory.budget import process_budget
from annfeed.memory.ledger import Ledger

N_ROWS, TOTAL = 3000, 400_000


class Tell(Transform):
    """Adds the process that makes a batch, and what it holds and may hold of the budget."""

    batched = True

    def __call__(self, data_dict):
        budget, n = process_budget("auto"), len(data_dict["X"])
        told = {"pid": os.getpid(), "held": budget.held, "limit": budget.limit, "total": cache._ledger_of_tree().total}
        return {**data_dict, **{name: torch.full((n,), value) for name, value in told.items()}}


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Two files whose decoded rows each take more than the whole budget."""
    found = []
    for name in ("train", "val"):
        m = sp.random(N_ROWS, 200, 0.3, format="csr", dtype=np.float32, random_state=np.random.default_rng(0))
        m.data = np.ceil(m.data * 200)
        anndata.AnnData(m).write_h5ad(tmp_path / f"{name}.h5ad", compression="gzip")
        found.append(tmp_path / f"{name}.h5ad")
    return found


@pytest.fixture(autouse=True)
def tree(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """A process tree with a budget of `TOTAL` bytes."""
    ledger = Ledger(TOTAL)
    monkeypatch.setattr(cache, "_ledger", ledger)
    monkeypatch.setattr(cache, "_auto", None)
    yield ledger
    gc.collect()


def told(loader: Any) -> tuple[dict[int, dict[str, int]], int]:
    """What each process told last, and the number of rows."""
    last: dict[int, dict[str, int]] = {}
    n_rows = 0
    for batch in loader:
        n_rows += len(batch["X"])
        last[int(batch["pid"][0])] = {name: int(batch[name][-1]) for name in ("held", "limit", "total")}
    return last, n_rows


# Processes that are spawned are those of test_processes_of_processes_share_it: here there are five.
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_two_loaders_with_workers_share_one_budget(paths: list[Path], tree: Ledger, method: str) -> None:
    """Training and validation, with workers that stay alive, and the main process that reads, too."""
    datasets = [AnnDataset(path, transform=Tell(), window=300) for path in paths]
    main, _ = told(datasets[0].subset(range(300)).get_optimized_dataloader(100, shuffle=False))
    options = {"num_workers": 2, "multiprocessing_context": method, "seed": 0}
    loaders = [dataset.get_optimized_dataloader(100, **options) for dataset in datasets]
    found = dict(main)
    for _ in range(2 if method == "fork" else 1):
        for loader in loaders:
            processes, n_rows = told(loader)
            assert n_rows == N_ROWS
            found |= processes
    assert len(found) == 5
    assert {one["total"] for one in found.values()} == {TOTAL}
    leased = tree.leased()
    assert set(leased) == set(found)
    assert sum(leased.values()) <= TOTAL
    assert sum(one["held"] for one in found.values()) <= TOTAL
    assert all(one["held"] <= one["limit"] for one in found.values())
    # It is used, not only kept to.
    assert sum(one["held"] for one in found.values()) > TOTAL / 2


def test_what_ended_workers_held_is_free_again(paths: list[Path], tree: Ledger) -> None:
    dataset = AnnDataset(paths[0], transform=Tell(), window=300)
    loader = dataset.get_optimized_dataloader(100, num_workers=2, seed=0, persistent_workers=False)
    for _ in range(3):
        found, _ = told(loader)
        assert len(found) == 2 and sum(one["held"] for one in found.values()) > TOTAL / 2
        assert sum(tree.leased().values()) <= TOTAL


def test_plain_loaders_share_it_too(paths: list[Path], tree: Ledger) -> None:
    datasets = [AnnDataset(path, transform=Tell()) for path in paths]
    options = {"num_workers": 1, "batch_size": 300, "persistent_workers": True, "multiprocessing_context": "fork"}
    loaders = [DataLoader(dataset, collate_fn=dataset.get_collate_fn(), **options) for dataset in datasets]
    found = {**told(loaders[0])[0], **told(loaders[1])[0]}
    assert len(found) == 2 and 0 < sum(one["held"] for one in found.values()) <= TOTAL
    assert sum(tree.leased().values()) <= TOTAL


def nested(dataset: AnnDataset, results: Any) -> None:
    own, _ = told(dataset.get_optimized_dataloader(100, seed=0))
    below, _ = told(dataset.get_optimized_dataloader(100, seed=1, num_workers=1))
    results.put({**own, **below})


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_of_processes_share_it(paths: list[Path], method: str) -> None:
    dataset = AnnDataset(paths[0], transform=Tell(), window=300)
    mine, _ = told(dataset.subset(range(600)).get_optimized_dataloader(100, shuffle=False))
    context: Any = multiprocessing.get_context(method)
    results = context.SimpleQueue()
    process = context.Process(target=nested, args=(dataset, results))
    process.start()
    found = {**mine, **results.get()}
    process.join()
    assert len(found) == 3 and process.exitcode == 0
    assert {one["total"] for one in found.values()} == {TOTAL}
    assert all(one["held"] > 0 for one in mine.values())
    assert sum(one["limit"] for one in found.values()) <= TOTAL


def test_what_a_closed_dataset_held_is_given_back(paths: list[Path], tree: Ledger) -> None:
    first = AnnDataset(paths[0], transform=Tell(), window=300)
    told(first.get_optimized_dataloader(100, seed=0))
    assert process_budget("auto").held > TOTAL / 2
    first.close()
    assert process_budget("auto").held == 0
    AnnDataset(paths[1]).__getitems__([0])
    assert sum(tree.leased().values()) < TOTAL


def test_a_number_is_not_of_the_tree(paths: list[Path], tree: Ledger) -> None:
    dataset = AnnDataset(paths[0], cache="1GiB", window=300)
    for _ in dataset.get_optimized_dataloader(100, seed=0):
        pass
    assert dataset.stats()["cache_bytes"] > TOTAL
    assert tree.leased() == {}


def test_one_file_with_a_number_and_with_auto(paths: list[Path]) -> None:
    """They share one cache, and the number of one does not enlarge the budget of all."""
    auto, number = AnnDataset(paths[0], window=300), AnnDataset(paths[0], cache="1GiB", window=300)
    for dataset in (auto, number):
        for _ in dataset.get_optimized_dataloader(100, seed=0):
            pass
    assert 0 < process_budget("auto").held <= process_budget("auto").limit <= TOTAL


# --- the ledger ------------------------------------------------------------------------------------------------------


def hammer(ledger: Ledger, seed: int, most: Any, all_here: Any) -> None:
    """Lease now more and now less, and keep the last until all have come so far, so that they are there together."""
    rng = np.random.default_rng(seed)
    all_here.wait(60)
    for wanted in rng.integers(0, 60, 200):
        ledger.lease(int(wanted))
        with most.get_lock():
            most.value = max(most.value, sum(ledger.leased().values()))
    all_here.wait(60)
    os._exit(0)


def test_processes_never_lease_more_than_there_is() -> None:
    ledger, context = Ledger(100), multiprocessing.get_context("fork")
    most, all_here = context.Value("q", 0), context.Barrier(4)
    processes = [context.Process(target=hammer, args=(ledger, seed, most, all_here)) for seed in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert 60 < most.value <= 100
    # They ended without a word, and what they had is free.
    assert ledger.lease(100) == 100


def test_a_ledger_stays_where_no_process_is_started() -> None:
    assert pickle.loads(pickle.dumps(Ledger(5))) is None
    budget = pickle.loads(pickle.dumps(cache.SharedBudget("auto")))
    assert budget.of_process() is process_budget("auto")
