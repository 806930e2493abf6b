"""Torch worker processes, however they are started: the same rows, a file of their own, random numbers of their own."""

import contextlib
import gc
import multiprocessing
import os
import pickle
import random
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import torch
from tests.support.orders import planned
from tests.support.toys import FORMS, flat, hand_over, rows_of, toy
from torch.utils.data import ConcatDataset, DataLoader, default_collate, get_worker_info

from annfeed import AnnDataset, Transform
from annfeed.process.threads import reading_threads

METHODS = ("fork", "forkserver", "spawn")


# Transforms lie here, at the top of a module without `if __name__ == "__main__"`, where spawned workers find them.


class Draw(Transform):
    """Adds random numbers, from each generator that users draw from."""

    def __call__(self, data_dict):
        drawn = [torch.rand((), dtype=torch.float64).item(), np.random.rand(), random.random()]
        return {**data_dict, "drawn": torch.tensor(drawn, dtype=torch.float64), "worker": worker()}


class Report(Transform):
    """Adds what the process that reads looks like from inside."""

    dataset: AnnDataset

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __call__(self, data_dict):
        return {
            **data_dict,
            "worker": worker(),
            "pid": os.getpid(),
            "opens": self.dataset.stats()["opens"],
            "descriptors": open_files().count(self.path),
            "threads": reading_threads(self.dataset.threads),
        }


def worker() -> int:
    info = get_worker_info()
    return -1 if info is None else info.id


def open_files() -> list[str]:
    found = []
    if os.path.isdir("/proc/self/fd"):
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):  # the descriptor of the listing itself, gone by now
                found.append(os.readlink(f"/proc/self/fd/{number}"))
    return found


# --- rows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_data_that_the_parent_has_read_is_read_by_workers(shelf: Path, method: str) -> None:
    # pitfall 17: fork, forkserver and spawn, with the file open in the parent.
    datasets = [AnnDataset(hand_over(toy(), form, shelf), window=8) for form in FORMS]
    for dataset in datasets:
        list(dataset.get_optimized_dataloader(batch_size=40))
    # All three in one loader, because a spawned worker takes seconds to start; and one of these.
    loader = DataLoader(
        ConcatDataset(datasets),
        batch_size=8,
        num_workers=1 if method == "spawn" else 2,
        multiprocessing_context=method,
        collate_fn=default_collate,
    )
    for _ in range(2 if method == "fork" else 1):
        assert flat(rows_of(loader)) == list(range(40)) * 3
    for dataset in datasets:
        assert dataset[7]["obs_row"] == 7


@pytest.mark.parametrize("form", FORMS)
def test_forked_workers_after_and_between_reads_of_the_parent(shelf: Path, form: str) -> None:
    dataset = AnnDataset(hand_over(toy(), form, shelf), window=8)
    loader = dataset.get_optimized_dataloader(batch_size=4, seed=2, num_workers=2)
    found = []
    for batch in loader:
        found.append(batch)
        assert dataset[-1]["X"][0] == 39
    assert rows_of(found) == planned(seed=2)


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_obs_edited_in_memory_is_what_a_spawned_worker_delivers(tmp_path: Path, method: str) -> None:
    backed = hand_over(toy(), "backed", tmp_path, "own")
    dataset = AnnDataset(backed, window=8, transform=Report(tmp_path / "own.h5ad"))
    dataset.transform.dataset = dataset
    _ = dataset[0]
    backed.obs["text"] = [f"edited {i}" for i in range(40)]
    backed.obs["added"] = np.arange(40) * 2
    [*batches] = dataset.get_optimized_dataloader(
        batch_size=8, shuffle=False, num_workers=1, multiprocessing_context=method
    )
    assert [text for batch in batches for text in batch["obs_text"]] == [f"edited {i}" for i in range(40)]
    assert torch.cat([batch["obs_added"] for batch in batches]).tolist() == list(range(0, 80, 2))
    assert torch.cat([batch["X"][:, 0] for batch in batches]).tolist() == list(range(40))
    assert os.getpid() not in {pid for batch in batches for pid in batch["pid"].tolist()}
    check_report(batches)


def check_report(batches: list[dict]) -> None:
    """Each process opened the file once, has one descriptor of it, and reads with one thread."""
    assert {opens for batch in batches for opens in batch["opens"].tolist()} == {1}
    assert {threads for batch in batches for threads in batch["threads"].tolist()} == {1}
    if open_files():
        assert {n for batch in batches for n in batch["descriptors"].tolist()} == {1}


@pytest.mark.parametrize("persistent", [False, True])
def test_a_forked_worker_opens_the_file_once(tmp_path: Path, persistent: bool) -> None:
    dataset = AnnDataset(hand_over(toy(), "path", tmp_path, "own"), window=4, transform=Report(tmp_path / "own.h5ad"))
    dataset.transform.dataset = dataset
    _ = dataset[0]
    loader = dataset.get_optimized_dataloader(batch_size=4, seed=0, num_workers=2, persistent_workers=persistent)
    batches = [batch for _ in range(2) for batch in loader]
    pids = [tuple(batch["pid"].unique().tolist()) for batch in batches]
    assert len(set(pids)) == (2 if persistent else 4)
    check_report(batches)
    assert dataset.stats()["opens"] == 1


def test_workers_take_windows_in_turn(shelf: Path) -> None:
    dataset = AnnDataset(hand_over(toy(), "path", shelf), window=8, transform=Draw())
    loader = dataset.get_optimized_dataloader(batch_size=4, shuffle=False, num_workers=3)
    assert [set(batch["worker"].tolist()) for batch in loader] == [{w} for w in (0, 0, 1, 1, 2, 2, 0, 0, 1, 1)]


def test_workers_start_while_the_parent_reads_ahead(shelf: Path) -> None:
    dataset = AnnDataset(hand_over(toy(), "path", shelf), window=4)
    ahead = dataset.get_optimized_dataloader(batch_size=4, seed=1, prefetch_batches=1)
    first = iter(ahead)
    found = [next(first)]
    for _ in range(3):
        loader = dataset.get_optimized_dataloader(batch_size=4, seed=2, num_workers=2)
        assert rows_of(loader) == planned(seed=2, window=4)
    assert rows_of([*found, *first]) == planned(seed=1, window=4)


def test_persistent_workers_after_an_early_break(shelf: Path) -> None:
    dataset = AnnDataset(hand_over(toy(), "path", shelf), window=4)
    loader = dataset.get_optimized_dataloader(batch_size=4, seed=1, num_workers=2, persistent_workers=True)
    for epoch in range(3):
        iterator = iter(loader)
        assert rows_of([next(iterator)]) == planned(seed=1, window=4, epoch=2 * epoch)[:1]
        del iterator
        assert rows_of(loader) == planned(seed=1, window=4, epoch=2 * epoch + 1)


def test_persistent_workers_serve_two_iterators_at_once(shelf: Path) -> None:
    dataset = AnnDataset(hand_over(toy(), "path", shelf), window=4)
    loader = dataset.get_optimized_dataloader(batch_size=4, seed=1, num_workers=1, persistent_workers=True)
    pairs = list(zip(loader, loader, strict=True))
    assert rows_of(a for a, _ in pairs) == planned(seed=1, window=4, epoch=0)
    assert rows_of(b for _, b in pairs) == planned(seed=1, window=4, epoch=1)
    assert rows_of(loader) == planned(seed=1, window=4, epoch=2)


@pytest.mark.parametrize("settings", [{}, {"num_workers": 1}, {"num_workers": 1, "persistent_workers": True}])
def test_a_loader_pickles_with_its_place_in_the_epochs(shelf: Path, settings: dict) -> None:
    dataset = AnnDataset(hand_over(toy(), "path", shelf), window=8)
    loader = dataset.get_optimized_dataloader(batch_size=4, seed=1, **settings)
    assert rows_of(loader) == planned(seed=1, epoch=0)
    again = pickle.loads(pickle.dumps(loader))
    assert rows_of(again) == planned(seed=1, epoch=1)
    assert rows_of(loader) == planned(seed=1, epoch=1)
    assert again.sampler.dataset is again.dataset


def test_obs_edited_between_epochs_reaches_fresh_workers() -> None:
    adata = toy(8)
    loader = AnnDataset(adata).get_optimized_dataloader(batch_size=8, shuffle=False, num_workers=1)
    assert rows_of(loader) == [list(range(8))]
    adata.obs["score"] += 100
    [batch] = loader
    assert batch["obs_score"].tolist() == [100 + row / 4 for row in range(8)]


# --- random numbers --------------------------------------------------------------------------------------------------


def draws(shelf: Path, n_epochs: int = 2, **settings: Any) -> list[dict[tuple[int, int], list[float]]]:
    """By epoch: the numbers drawn, by worker and place in the epoch."""
    dataset = AnnDataset(hand_over(toy(), "path", shelf), window=8, transform=Draw(), obs_columns=["row"])
    loader = dataset.get_optimized_dataloader(**{"batch_size": 8, "num_workers": 2, **settings})
    found = []
    for _ in range(n_epochs):
        epoch = {}
        for place, batch in enumerate(loader):
            [number] = batch["worker"].unique().tolist()
            epoch[number, place] = batch["drawn"].flatten().tolist()
        found.append(epoch)
    return found


class Refuses(Transform):
    """Raises at the last row."""

    def __call__(self, data_dict):
        if data_dict["obs_row"] == 39:
            raise ValueError("the last row")
        return data_dict


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_end_by_themselves_after_an_error(
    shelf: Path, persistent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # torch waits five seconds for one that was not told, and then terminates it.
    terminated: list[Any] = []
    monkeypatch.setattr(BaseProcess, "terminate", lambda worker: [terminated.append(worker), worker.kill()])
    dataset = AnnDataset(hand_over(toy(), "path", shelf), window=8, transform=Refuses())
    loader = dataset.get_optimized_dataloader(batch_size=4, shuffle=False, num_workers=2, persistent_workers=persistent)
    before = set(multiprocessing.active_children())
    batches = iter(loader)
    next(batches)
    workers = set(multiprocessing.active_children()) - before
    with pytest.raises(ValueError, match="the last row"):
        list(batches)
    del loader, batches
    gc.collect()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert terminated == []


def drawn(epochs: list[dict[tuple[int, int], list[float]]]) -> list[float]:
    return [number for epoch in epochs for numbers in epoch.values() for number in numbers]


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_random_transforms_differ_everywhere_and_come_again(shelf: Path, persistent: bool, shuffle: bool) -> None:
    settings = {"persistent_workers": persistent, "shuffle": shuffle}
    first = draws(shelf, seed=5, **settings)
    assert {number for number, _ in first[0]} == {0, 1}
    # No two numbers are alike: not between torch, numpy and random, nor workers, batches, epochs.
    numbers = drawn(first)
    assert len(numbers) == 2 * 40 * 3
    assert len(set(numbers)) == len(numbers)
    assert draws(shelf, seed=5, **settings) == first
    assert set(drawn(draws(shelf, seed=6, **settings))).isdisjoint(numbers)


def test_random_transforms_follow_torchs_seed_without_one(shelf: Path) -> None:
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(draws(shelf, n_epochs=1, shuffle=False))
    assert found[0] == found[1]
    assert set(drawn(found[0])).isdisjoint(drawn(found[2]))


def test_random_transforms_differ_with_a_sampler(shelf: Path) -> None:
    first = draws(shelf, seed=5, sampler=range(40))
    assert len(set(drawn(first))) == len(drawn(first))
    assert draws(shelf, seed=5, sampler=range(40)) == first


def test_random_transforms_differ_between_ranks(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers: list[float] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        numbers += drawn(draws(shelf, n_epochs=1, seed=5))
    assert len(numbers) == 40 * 3
    assert len(set(numbers)) == len(numbers)


def test_seed_and_epoch_do_not_make_one_stream(shelf: Path) -> None:
    # Epoch 1 of seed 5 is not epoch 0 of seed 6.
    assert set(drawn(draws(shelf, seed=5)[1:])).isdisjoint(drawn(draws(shelf, n_epochs=1, seed=6)))


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_end_by_themselves_when_the_garbage_collector_takes_their_loader(
    shelf: Path, persistent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # torch would wait for each in vain, 5 s, and kill it.
    killed: list[Any] = []
    kill = BaseProcess.terminate
    monkeypatch.setattr(BaseProcess, "terminate", lambda worker: (killed.append(worker), kill(worker)))
    before = set(multiprocessing.active_children())
    loader = AnnDataset(hand_over(toy(), "path", shelf)).get_optimized_dataloader(
        batch_size=4, num_workers=2, persistent_workers=persistent
    )
    batches = iter(loader)
    next(batches)
    workers = set(multiprocessing.active_children()) - before
    circle = [loader, batches]
    circle.append(circle)
    del loader, batches, circle
    gc.collect()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert not killed


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_has_helpers_of_its_own(tmp_path: Path) -> None:
    # Batches of several MB are made by two threads, which a forked process has not got.
    x = np.random.default_rng(0).random((300, 4000), dtype=np.float32)
    anndata.AnnData(x).write_h5ad(tmp_path / "a.h5ad", compression="gzip")
    dataset = AnnDataset(tmp_path / "a.h5ad", threads=3)
    assert np.array_equal(dataset.__getitems__(range(300)).batch["X"], x)
    child = os.fork()
    if child == 0:
        again = all(np.array_equal(dataset.__getitems__(range(300)).batch["X"], x) for _ in range(3))
        os._exit(0 if again else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert np.array_equal(dataset.__getitems__(range(300)).batch["X"], x)
