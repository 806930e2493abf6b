"""scvi-tools' loader over data on disk: iterators, threads, workers, ranks."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import textwrap
import threading
import time
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("scvi.dataloaders", reason="scvi-tools is not installed")

from tests.scvi.loader_toys import N, order
from tests.support.processes import run_ranks
from tests.support.scvi_toys import assert_same, backed, cells, flat, manager, toy

from annfeed import AnnDataLoader

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
    with pytest.raises((ValueError, AssertionError), match=r"timeout|^$"):  # torch 2.6 says nothing
        list(AnnDataLoader(registered, timeout=3))


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_workers(registered: Any, method: str) -> None:
    arguments: dict[str, Any] = {"shuffle": True, "batch_size": 4, "window": 12}
    torch.manual_seed(0)
    expected = [list(AnnDataLoader(registered, **arguments)) for _ in range(2)]
    # A spawned worker takes seconds to start; so there is one of these.
    for n_workers in {"fork": (1, 2), "forkserver": (2,), "spawn": (2,)}[method]:
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
