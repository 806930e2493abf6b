"""The optimized loader: which rows come in which order, and which random numbers it draws."""

import itertools
import random
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.loading.steps_of_loaders import UNSORTED, count_reads
from tests.support.orders import planned
from tests.support.toys import FORMS, dense, flat, hand_over, rows_of, toy
from torch.utils.data import SequentialSampler

from annfeed import AnnDataset

# --- order -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("subset", [None, UNSORTED])
def test_without_shuffle_the_datasets_order(shelf: Path, form: str, subset, num_workers: int) -> None:
    dataset = AnnDataset(hand_over(toy(), form, shelf), obs_subset=subset, window=8)
    loader = dataset.get_optimized_dataloader(batch_size=4, shuffle=False, num_workers=num_workers)
    rows = list(range(40)) if subset is None else UNSORTED
    assert rows_of(loader) == [rows[i : i + 4] for i in range(0, len(rows), 4)]


@pytest.mark.parametrize("output", ["dense", "csr"])
@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
@pytest.mark.parametrize("form", FORMS)
def test_rows_of_x_are_those_of_obs_in_the_planned_order(shelf: Path, form: str, kind: str, output: str) -> None:
    adata = toy(kind=kind)
    dataset = AnnDataset(hand_over(adata, form, shelf, kind), window=9, output=output)
    batches = list(dataset.get_optimized_dataloader(batch_size=4, seed=11))
    assert rows_of(batches) == planned(seed=11)
    # pitfall 15: as wide as the matrix, whose last column is empty, as is row 3; pitfall 16: X, though there is a raw.
    for batch in batches:
        np.testing.assert_array_equal(dense(batch["X"]), dense(adata.X)[batch["obs_row"]])


SETTINGS = [
    {},
    {"threads": 1},
    {"threads": 3},
    {"prefetch_batches": 0},
    {"prefetch_batches": 1},
    {"prefetch_batches": 40},
    {"num_workers": 1},
    {"num_workers": 2},
    {"num_workers": 3},
    {"num_workers": 2, "prefetch_factor": 4},
    {"num_workers": 2, "persistent_workers": True},
]


@pytest.mark.parametrize(
    ("block_size", "settings"), [*((1, settings) for settings in SETTINGS), (5, {}), (5, {"num_workers": 2})]
)
def test_same_seed_same_batches_whatever_the_settings(shelf: Path, settings: dict, block_size: int) -> None:
    settings = dict(settings)
    dataset = AnnDataset(hand_over(toy(), "path", shelf), window=8, threads=settings.pop("threads", None))
    loader = dataset.get_optimized_dataloader(batch_size=4, seed=7, block_size=block_size, **settings)
    for number in range(2):
        wanted = planned(seed=7, block_size=block_size, epoch=number)
        assert sorted(flat(wanted)) == list(range(40))
        assert rows_of(loader) == wanted


@pytest.mark.parametrize(
    ("seed", "settings"),
    [
        (0, {}),
        (1, {}),
        (2**64 - 1, {}),
        (0, {"num_workers": 2}),
        (2**64 - 1, {"num_workers": 2, "persistent_workers": True}),
    ],
)
def test_epochs_differ_and_come_again(dataset: AnnDataset, seed: int, settings: dict) -> None:
    def epochs() -> list[list[list[int]]]:
        loader = dataset.get_optimized_dataloader(batch_size=4, seed=seed, **settings)
        return [rows_of(loader) for _ in range(3)]

    first = epochs()
    assert all(a != b for a, b in itertools.combinations(first, 2))
    assert all(sorted(flat(rows)) == list(range(40)) for rows in first)
    assert epochs() == first


def test_seeds_differ(dataset: AnnDataset) -> None:
    orders = [rows_of(dataset.get_optimized_dataloader(batch_size=4, seed=seed)) for seed in (0, 1, 2)]
    assert all(a != b for a, b in itertools.combinations(orders, 2))


def test_set_epoch(dataset: AnnDataset) -> None:
    loader = dataset.get_optimized_dataloader(batch_size=4, seed=3)
    loader.sampler.set_epoch(5)
    assert [rows_of(loader), rows_of(loader)] == [planned(seed=3, epoch=5), planned(seed=3, epoch=6)]
    # Lightning calls iter before set_epoch.
    iterator = iter(loader)
    loader.sampler.set_epoch(2)
    assert rows_of(iterator) == planned(seed=3, epoch=2)


@pytest.mark.parametrize("block_size", [1, 3, 7, 40, 1000])
def test_block_size_gives_the_plans_runs(dataset: AnnDataset, block_size: int) -> None:
    loader = dataset.get_optimized_dataloader(batch_size=4, seed=1, block_size=block_size)
    found = rows_of(loader)
    assert found == planned(seed=1, block_size=block_size)
    # Runs of k neighbours: a window of 8 rows touches few of them.
    blocks = [len({row // block_size for row in flat(found[i : i + 2])}) for i in range(0, 10, 2)]
    assert max(blocks) <= -(-8 // block_size) + 1 or block_size == 1


def test_block_size_of_numpy_counts(dataset: AnnDataset) -> None:
    loader = dataset.get_optimized_dataloader(batch_size=4, seed=1, block_size=np.int64(5))
    assert rows_of(loader) == planned(seed=1, block_size=5)


def test_block_size_auto_delivers_each_row_once(dataset: AnnDataset) -> None:
    assert sorted(flat(rows_of(dataset.get_optimized_dataloader(seed=1, block_size="auto")))) == list(range(40))


# --- random numbers --------------------------------------------------------------------------------------------------


def states() -> tuple[str, str, str]:
    return repr(torch.get_rng_state().tolist()), repr(np.random.get_state(legacy=False)), repr(random.getstate())


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("shuffle", [True, False])
def test_without_a_seed_one_draw_from_torch_an_epoch(dataset: AnnDataset, shuffle: bool, num_workers: int) -> None:
    loader = dataset.get_optimized_dataloader(batch_size=4, shuffle=shuffle, num_workers=num_workers)
    torch.manual_seed(1)
    for _ in range(2):
        torch.empty((), dtype=torch.int64).random_()
    wanted = states()
    torch.manual_seed(1)
    found = [rows_of(loader), rows_of(loader)]
    assert states() == wanted
    torch.manual_seed(1)
    loader = dataset.get_optimized_dataloader(batch_size=4, shuffle=shuffle, num_workers=num_workers)
    assert [rows_of(loader), rows_of(loader)] == found
    assert (found[0] != found[1]) is shuffle
    torch.manual_seed(2)
    assert (rows_of(loader) != found[0]) is shuffle


def test_a_generator_governs_and_no_other_is_touched(dataset: AnnDataset) -> None:
    def epochs() -> list[list[list[int]]]:
        generator = torch.Generator().manual_seed(4)
        loader = dataset.get_optimized_dataloader(batch_size=4, generator=generator)
        found = [rows_of(loader), rows_of(loader)]
        reference = torch.Generator().manual_seed(4)
        for _ in range(2):
            torch.empty((), dtype=torch.int64).random_(generator=reference)
        assert generator.get_state().equal(reference.get_state())
        return found

    torch.manual_seed(1)
    before = states()
    first = epochs()
    assert states() == before
    torch.manual_seed(2)
    assert epochs() == first
    assert first[0] != first[1]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(
    "extra", [{}, {"sampler": SequentialSampler(range(40))}, {"shuffle": False}, {"generator": torch.Generator()}]
)
def test_with_a_seed_no_generator_is_touched(dataset: AnnDataset, extra: dict, num_workers: int) -> None:
    # pitfall 26
    before = states()
    generator = extra.get("generator")
    generators_state = None if generator is None else generator.get_state()
    for _ in range(2):
        rows_of(dataset.get_optimized_dataloader(batch_size=4, seed=5, num_workers=num_workers, **extra))
    assert states() == before
    assert generator is None or generator.get_state().equal(generators_state)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_nothing_is_drawn_or_read_before_the_first_next(
    shelf: Path, num_workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = AnnDataset(hand_over(toy(), "path", shelf), window=8)
    reads = count_reads(dataset, monkeypatch)
    torch.manual_seed(0)
    before, threads = states(), threading.active_count()
    # Forked: what counts the reads does not pickle.
    workers = {"num_workers": num_workers, "multiprocessing_context": "fork"} if num_workers else {}
    loader = dataset.get_optimized_dataloader(batch_size=4, **workers)
    iterator = iter(loader)
    time.sleep(0.05)
    assert (states(), reads, threading.active_count()) == (before, [], threads)
    # What governs is what is set when reading begins.
    torch.manual_seed(1)
    first = rows_of(iterator)
    torch.manual_seed(1)
    assert rows_of(loader) != first  # it is the loader's second epoch
    torch.manual_seed(1)
    assert rows_of(dataset.get_optimized_dataloader(batch_size=4)) == first
