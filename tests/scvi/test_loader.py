"""scvi-tools' loader over data on disk: which cells in which order, by which sampler."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

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

from tests.scvi.loader_toys import N, order
from tests.support.pages import check_shows_what_it_prints
from tests.support.scvi_toys import backed, cells, flat, manager, toy

from annfeed import AnnDataLoader
from annfeed.scvi.counts import StreamedCounts

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


def test_bytes_that_are_read_for_the_first_batch_are_counted(registered: Any) -> None:
    loader = AnnDataLoader(registered, batch_size=3)
    rows = loader.dataset.at_epoch()
    rows.load(np.arange(3))
    assert (rows.read_stats()["bytes_read"] > 0) is registered.adata.isbacked


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
        ({"sampler": [0], "batch_size": 0}, ValueError, "batch_size is 0; expected a positive integer"),
        ({"batch_size": 2.0}, ValueError, "batch_size is 2.0; expected a positive integer"),
        ({"sampler": [0], "batch_size": "2"}, ValueError, "batch_size is '2'"),
        ({"batch_size": True}, ValueError, "batch_size is True"),
        ({"threads": 2.0}, TypeError, "threads is 2.0; expected a positive integer or None"),
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


@pytest.mark.parametrize("sampler", [None, POSITIONS])
def test_integers_may_be_numpys(registered: Any, sampler: Any) -> None:
    ours, theirs = (
        AnnDataLoader(registered, sampler=sampler, batch_size=size, window=window, threads=threads)
        for size, window, threads in [(np.int64(7), np.uint16(20), np.int8(1)), (7, 20, 1)]
    )
    assert [cells(batch) for batch in ours] == [cells(batch) for batch in theirs]


def test_a_wrong_position_is_told_after_the_batches_before_it(tmp_path: Path) -> None:
    registered = manager(backed(toy(N), tmp_path))
    batches = iter(AnnDataLoader(registered, sampler=[[0], [1], [43]], window=1))
    assert [cells(next(batches)), cells(next(batches))] == [[0], [1]]
    with pytest.raises(IndexError, match="43"):
        next(batches)


@pytest.mark.parametrize(
    ("settings", "order", "batches"),
    [
        ({"batch_size": 4}, "that of the dataset", "11"),
        ({"batch_size": 4, "shuffle": True, "drop_last": True}, "shuffled", "10"),
        ({"batch_size": 4, "sampler": SequentialSampler(range(N))}, "that of a SequentialSampler", "unknown"),
    ],
)
def test_a_loader_says_what_it_is(tmp_path: Path, settings: dict[str, Any], order: str, batches: str) -> None:
    for place in ("disk", "memory"):
        adata = backed(toy(), tmp_path) if place == "disk" else toy()
        loader = AnnDataLoader(manager(adata), window=30, cache="2MiB", threads=2, **settings)
        before = torch.get_rng_state()
        text = str(loader)
        said = dict(line.strip().split(": ", 1) for line in text.splitlines()[1:])
        assert text.startswith("AnnDataLoader:")
        assert torch.equal(torch.get_rng_state(), before)
        keys = ", ".join(manager(adata).data_registry)
        assert said == {
            "dataset": f"{N} of {N} cells, registered as {keys}",
            "order": order,
            "batch size": "4",
            "batches": batches,
            "window": "30 rows" if place == "disk" else "none, as all is in memory",
            "cache": "2MiB",
            "threads": "2",
            "workers": "none, 4 batches made ahead by threads",
        }
        check_shows_what_it_prints(loader)
