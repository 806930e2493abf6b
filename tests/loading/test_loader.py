"""The optimized loader, and plain torch loaders: which rows come in which order, once, whatever else is set."""

import gc
import inspect
import itertools
import random
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from tests.support.toys import FORMS, assert_same, dense, flat, hand_over, rows_of, toy
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

from annfeed import AnnDataset, Collate, Transform, WindowLoader
from annfeed._core import Block
from annfeed.batches.window import LoadedWindow
from annfeed.order.epoch import EpochPlan

#: Rows in no order, some of them twice, more than fit in one window of the tests.
UNSORTED = [17, 3, 39, 3, 0, 17, 17, 21, 38, 1, 20, 8, 9, 7, 30]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for files that many tests read and none writes to."""
    return tmp_path_factory.mktemp("shelf")


@pytest.fixture
def dataset(shelf: Path) -> AnnDataset:
    """40 rows in a file, in windows of 8 rows."""
    return AnnDataset(hand_over(toy(), "path", shelf), chunk_size=8)


def epoch(loader: DataLoader) -> list[list[int]]:
    """The rows of each batch of an epoch, X checked against obs."""
    return rows_of(loader)


def planned(n_rows: int = 40, **fields: Any) -> list[list[int]]:
    """The batches that the plan of an epoch foresees."""
    plan = EpochPlan(**{"n_rows": n_rows, "batch_size": 4, "window": 8, **fields})
    return [batch.tolist() for window in plan.windows() for batch in window.batches]


class Plus(Transform):
    """A user's transform: items, no batches."""

    def __call__(self, data_dict):
        data_dict["sum"] = data_dict["X"].sum() + data_dict["obs_row"]
        return data_dict


class FailAt(Transform):
    """Fails at one row."""

    def __init__(self, row: int) -> None:
        self.row = row

    def __call__(self, data_dict):
        if data_dict["obs_row"] == self.row:
            raise ZeroDivisionError(f"row {self.row}")
        return data_dict


# --- order -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("subset", [None, UNSORTED])
def test_without_shuffle_the_datasets_order(shelf: Path, form: str, subset, num_workers: int) -> None:
    dataset = AnnDataset(hand_over(toy(), form, shelf), obs_subset=subset, chunk_size=8)
    loader = dataset.get_optimized_dataloader(batch_size=4, shuffle=False, num_workers=num_workers)
    rows = list(range(40)) if subset is None else UNSORTED
    assert epoch(loader) == [rows[i : i + 4] for i in range(0, len(rows), 4)]


@pytest.mark.parametrize("output", ["dense", "csr"])
@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
@pytest.mark.parametrize("form", FORMS)
def test_rows_of_x_are_those_of_obs_in_the_planned_order(shelf: Path, form: str, kind: str, output: str) -> None:
    adata = toy(kind=kind)
    dataset = AnnDataset(hand_over(adata, form, shelf, kind), chunk_size=9, output=output)
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
    dataset = AnnDataset(hand_over(toy(), "path", shelf), chunk_size=8, threads=settings.pop("threads", None))
    loader = dataset.get_optimized_dataloader(batch_size=4, seed=7, block_size=block_size, **settings)
    for number in range(2):
        wanted = planned(seed=7, block_size=block_size, epoch=number)
        assert sorted(flat(wanted)) == list(range(40))
        assert epoch(loader) == wanted


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
        return [epoch(loader) for _ in range(3)]

    first = epochs()
    assert all(a != b for a, b in itertools.combinations(first, 2))
    assert all(sorted(flat(rows)) == list(range(40)) for rows in first)
    assert epochs() == first


def test_seeds_differ(dataset: AnnDataset) -> None:
    orders = [epoch(dataset.get_optimized_dataloader(batch_size=4, seed=seed)) for seed in (0, 1, 2)]
    assert all(a != b for a, b in itertools.combinations(orders, 2))


def test_set_epoch(dataset: AnnDataset) -> None:
    loader = dataset.get_optimized_dataloader(batch_size=4, seed=3)
    loader.sampler.set_epoch(5)
    assert [epoch(loader), epoch(loader)] == [planned(seed=3, epoch=5), planned(seed=3, epoch=6)]
    # Lightning calls iter before set_epoch.
    iterator = iter(loader)
    loader.sampler.set_epoch(2)
    assert rows_of(iterator) == planned(seed=3, epoch=2)


@pytest.mark.parametrize("block_size", [1, 3, 7, 40, 1000])
def test_block_size_gives_the_plans_runs(dataset: AnnDataset, block_size: int) -> None:
    loader = dataset.get_optimized_dataloader(batch_size=4, seed=1, block_size=block_size)
    found = epoch(loader)
    assert found == planned(seed=1, block_size=block_size)
    # Runs of k neighbours: a window of 8 rows touches few of them.
    blocks = [len({row // block_size for row in flat(found[i : i + 2])}) for i in range(0, 10, 2)]
    assert max(blocks) <= -(-8 // block_size) + 1 or block_size == 1


def test_block_size_of_numpy_counts(dataset: AnnDataset) -> None:
    loader = dataset.get_optimized_dataloader(batch_size=4, seed=1, block_size=np.int64(5))
    assert epoch(loader) == planned(seed=1, block_size=5)


def test_block_size_auto_delivers_each_row_once(dataset: AnnDataset) -> None:
    assert sorted(flat(epoch(dataset.get_optimized_dataloader(seed=1, block_size="auto")))) == list(range(40))


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
    found = [epoch(loader), epoch(loader)]
    assert states() == wanted
    torch.manual_seed(1)
    loader = dataset.get_optimized_dataloader(batch_size=4, shuffle=shuffle, num_workers=num_workers)
    assert [epoch(loader), epoch(loader)] == found
    assert (found[0] != found[1]) is shuffle
    torch.manual_seed(2)
    assert (epoch(loader) != found[0]) is shuffle


def test_a_generator_governs_and_no_other_is_touched(dataset: AnnDataset) -> None:
    def epochs() -> list[list[list[int]]]:
        generator = torch.Generator().manual_seed(4)
        loader = dataset.get_optimized_dataloader(batch_size=4, generator=generator)
        found = [epoch(loader), epoch(loader)]
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
        epoch(dataset.get_optimized_dataloader(batch_size=4, seed=5, num_workers=num_workers, **extra))
    assert states() == before
    assert generator is None or generator.get_state().equal(generators_state)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_nothing_is_drawn_or_read_before_the_first_next(
    shelf: Path, num_workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = AnnDataset(hand_over(toy(), "path", shelf), chunk_size=8)
    reads = count_reads(dataset, monkeypatch)
    torch.manual_seed(0)
    before, threads = states(), threading.active_count()
    loader = dataset.get_optimized_dataloader(batch_size=4, num_workers=num_workers)
    iterator = iter(loader)
    time.sleep(0.05)
    assert (states(), reads, threading.active_count()) == (before, [], threads)
    # What governs is what is set when reading begins.
    torch.manual_seed(1)
    first = rows_of(iterator)
    torch.manual_seed(1)
    assert epoch(loader) != first  # it is the loader's second epoch
    torch.manual_seed(1)
    assert epoch(dataset.get_optimized_dataloader(batch_size=4)) == first


# --- iterating -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 2])
def test_iterate_twice(dataset: AnnDataset, num_workers: int) -> None:
    loader = dataset.get_optimized_dataloader(batch_size=4, shuffle=False, num_workers=num_workers)
    assert epoch(loader) == epoch(loader) == planned(shuffle=False)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_two_iterators_at_once(dataset: AnnDataset, num_workers: int) -> None:
    loader = dataset.get_optimized_dataloader(batch_size=4, seed=0, num_workers=num_workers)
    pairs = list(zip(loader, loader, strict=True))
    assert rows_of(a for a, _ in pairs) == planned(seed=0, epoch=0)
    assert rows_of(b for _, b in pairs) == planned(seed=0, epoch=1)


@pytest.mark.parametrize("prefetch_batches", [0, 1, 4])
def test_early_break_leaves_no_thread_and_no_window(shelf: Path, prefetch_batches: int) -> None:
    dataset = AnnDataset(hand_over(toy(), "path", shelf), chunk_size=8)
    loader = dataset.get_optimized_dataloader(batch_size=4, seed=0, prefetch_batches=prefetch_batches)
    before = set(threading.enumerate())
    for batch in loader:
        assert batch["X"].shape == (4, 7)
        break
    assert set(threading.enumerate()) <= before
    gc.collect()
    assert [o for o in gc.get_objects() if type(o) in (LoadedWindow, Block)] == []
    iterator = iter(loader)
    next(iterator)
    assert (set(threading.enumerate()) <= before) is (prefetch_batches == 0)
    del iterator
    assert set(threading.enumerate()) <= before
    list(loader)
    assert set(threading.enumerate()) <= before


def test_early_break_leaves_no_worker(dataset: AnnDataset) -> None:
    for _ in dataset.get_optimized_dataloader(batch_size=4, seed=0, num_workers=2):
        break
    assert torch.multiprocessing.active_children() == []


def test_slow_consumer_loses_nothing(dataset: AnnDataset) -> None:
    for settings in ({"prefetch_batches": 1}, {"prefetch_batches": 4}, {"num_workers": 2, "prefetch_factor": 1}):
        found = []
        for batch in dataset.get_optimized_dataloader(batch_size=4, seed=0, **settings):
            # Longer than the read-ahead looks up from waiting.
            time.sleep(0.12 if len(found) < 2 else 0)
            found.append(batch)
        assert rows_of(found) == planned(seed=0)


@pytest.mark.parametrize("prefetch_batches", [0, 1, 4])
def test_error_of_a_transform_comes_after_the_batches_before_it(shelf: Path, prefetch_batches: int) -> None:
    dataset = AnnDataset(hand_over(toy(), "path", shelf), chunk_size=8, transform=FailAt(22))
    loader = dataset.get_optimized_dataloader(batch_size=4, shuffle=False, prefetch_batches=prefetch_batches)
    before = set(threading.enumerate())
    found = []
    with pytest.raises(ZeroDivisionError, match="row 22"):
        found.extend(rows_of([batch])[0] for batch in loader)
    assert flat(found) == list(range(20))
    assert set(threading.enumerate()) <= before


def test_error_of_a_transform_in_a_worker_comes_after_the_windows_before_it(shelf: Path) -> None:
    dataset = AnnDataset(hand_over(toy(), "path", shelf), chunk_size=8, transform=FailAt(22))
    loader = dataset.get_optimized_dataloader(batch_size=4, shuffle=False, num_workers=2)
    found = []
    with pytest.raises(ZeroDivisionError, match="row 22"):
        found.extend(rows_of([batch])[0] for batch in loader)
    assert flat(found) == list(range(16))


@pytest.mark.parametrize("settings", [{}, {"prefetch_batches": 0}, {"num_workers": 2}])
def test_corrupt_chunk_is_told_after_the_windows_before_it(tmp_path: Path, settings: dict) -> None:
    path = tmp_path / "corrupt.h5ad"
    toy(4000, 7, "dense").write_h5ad(path, compression="gzip")
    with h5py.File(path, "r+") as file:
        x = file["X"][...]
        del file["X"]
        stored = file.create_dataset("X", data=x, chunks=(500, 7), compression="gzip")
        stored.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        info = stored.id.get_chunk_info(6)
    with path.open("r+b") as file:
        file.seek(info.byte_offset)
        file.write(bytes([255] * info.size))
    loader = AnnDataset(path, chunk_size=500).get_optimized_dataloader(batch_size=100, shuffle=False, **settings)
    found = []
    with pytest.raises(ValueError, match=r"corrupt\.h5ad.*X"):
        found.extend(batch for batch in loader)
    assert flat(rows_of(found)) == list(range(3000))


def test_error_does_not_end_the_loader(shelf: Path) -> None:
    transform = FailAt(22)
    dataset = AnnDataset(hand_over(toy(), "path", shelf), chunk_size=8, transform=transform)
    loader = dataset.get_optimized_dataloader(batch_size=4, shuffle=False)
    with pytest.raises(ZeroDivisionError):
        list(loader)
    transform.row = -1
    assert flat(epoch(loader)) == list(range(40))


# --- how many --------------------------------------------------------------------------------------------------------

COUNTS = [
    (n, batch_size, drop_last, chunk_size)
    for n in (0, 1, 2, 7, 39, 40)
    for batch_size in (1, 2, 7, 40, 100)
    for drop_last in (False, True)
    for chunk_size in (1, 10, 6000)
]


@pytest.mark.parametrize("shuffle", [True, False])
def test_len_is_what_is_delivered(shelf: Path, shuffle: bool) -> None:
    path = hand_over(toy(), "path", shelf)
    for n, batch_size, drop_last, chunk_size in COUNTS:
        dataset = AnnDataset(path, obs_subset=range(n), chunk_size=chunk_size, obs_columns=["row", "text"])
        loader = dataset.get_optimized_dataloader(batch_size=batch_size, shuffle=shuffle, drop_last=drop_last)
        # The oracle is torch's own sampler.
        wanted = [len(batch) for batch in BatchSampler(range(n), batch_size, drop_last)]
        found = epoch(loader)
        assert (len(loader), [len(rows) for rows in found]) == (len(wanted), wanted), (n, batch_size, drop_last)
        delivered = flat(found)
        assert len(set(delivered)) == len(delivered) == sum(wanted)
        if not shuffle:
            assert delivered == list(range(sum(wanted)))


@pytest.mark.parametrize("num_workers", [1, 3])
@pytest.mark.parametrize(
    ("n", "batch_size", "drop_last", "chunk_size"),
    [(39, 7, False, 10), (39, 7, True, 14), (1, 4, False, 8), (0, 4, False, 8)],
)
def test_len_is_what_workers_deliver(
    shelf: Path, n: int, batch_size: int, drop_last: bool, chunk_size: int, num_workers: int
) -> None:
    dataset = AnnDataset(hand_over(toy(), "path", shelf), obs_subset=range(n), chunk_size=chunk_size)
    loader = dataset.get_optimized_dataloader(batch_size=batch_size, drop_last=drop_last, num_workers=num_workers)
    found = epoch(loader)
    wanted = [len(batch) for batch in BatchSampler(range(n), batch_size, drop_last)]
    assert len(loader) == len(wanted)
    # At most one short batch, and it is the last, also with several workers.
    assert [len(rows) for rows in found] == wanted


# --- chunk_size is the window ----------------------------------------------------------------------------------------


def count_reads(dataset: AnnDataset, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows of each read of the matrix's source, from now on."""
    source = dataset._matrices["X"].source
    reads: list[int] = []
    real = source.read

    def read(rows, threads):
        reads.append(len(rows))
        return real(rows, threads)

    monkeypatch.setattr(source, "read", read)
    return reads


@pytest.mark.parametrize(
    ("chunk_size", "batch_size", "reads"),
    [
        (8, 4, [8] * 5),
        (10, 4, [8] * 5),  # rounded down to whole batches
        (3, 4, [4] * 10),  # at least one batch
        (1, 1, [1] * 40),
        (40, 4, [40]),
        (6000, 32, [40]),
        (24, 8, [24, 16]),
    ],
)
def test_chunk_size_rows_are_read_together(
    shelf: Path, chunk_size: int, batch_size: int, reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = AnnDataset(hand_over(toy(), "path", shelf), chunk_size=chunk_size)
    found = count_reads(dataset, monkeypatch)
    assert len(flat(epoch(dataset.get_optimized_dataloader(batch_size=batch_size)))) == 40
    assert found == reads


def test_first_windows_are_small(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = AnnDataset(hand_over(toy(20_000, 3, "csr"), "path", shelf, "long"))
    found = count_reads(dataset, monkeypatch)
    assert sum(len(batch["X"]) for batch in dataset.get_optimized_dataloader(batch_size=100)) == 20_000
    # "1,024 rows, then double", up to the 6,000 of chunk_size, each rounded down to whole batches.
    assert found == [1000, 2000, 4000, 6000, 6000, 1000]


def test_an_early_break_reads_few_windows(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = AnnDataset(hand_over(toy(), "path", shelf), chunk_size=4)
    found = count_reads(dataset, monkeypatch)
    iterator = iter(dataset.get_optimized_dataloader(batch_size=4, prefetch_batches=1))
    next(iterator)
    time.sleep(0.3)
    # The one delivered, one made, one being made, one read, one being read.
    assert 1 <= len(found) <= 5


# --- keywords of torch's DataLoader ----------------------------------------------------------------------------------


def test_it_is_a_torch_loader_with_its_attributes(dataset: AnnDataset) -> None:
    loader = dataset.get_optimized_dataloader(batch_size=4, drop_last=True, seed=5, block_size=2, prefetch_batches=3)
    assert isinstance(loader, DataLoader)
    assert isinstance(loader, WindowLoader)
    assert loader.dataset is dataset
    assert (loader.batch_size, loader.drop_last, loader.num_workers, loader.pin_memory) == (4, True, 0, False)
    assert (loader.seed, loader.block_size, loader.prefetch_batches, loader.shuffle) == (5, 2, 3, True)
    assert loader.batch_sampler.batch_size == 4
    assert isinstance(loader.collate_fn, Collate)
    assert isinstance(loader.sampler, torch.utils.data.DistributedSampler)
    assert len(loader.sampler) == 40
    assert list(loader.sampler) == flat(planned(seed=5, block_size=2))


def test_defaults_are_the_contracts() -> None:
    loader = AnnDataset(toy()).get_optimized_dataloader()
    assert (loader.batch_size, loader.shuffle, loader.num_workers, loader.drop_last) == (32, True, 0, False)
    signature = inspect.signature(AnnDataset.get_optimized_dataloader)
    assert next(iter(signature.parameters.values())).name == "self"
    with pytest.raises(TypeError, match="positional"):
        AnnDataset(toy()).get_optimized_dataloader(32, True)


def test_each_parameter_is_an_attribute_so_that_lightning_can_make_it_again(dataset: AnnDataset) -> None:
    loader = dataset.get_optimized_dataloader(batch_size=4, seed=5, drop_last=True)
    names = [n for n, p in inspect.signature(WindowLoader.__init__).parameters.items() if p.kind is not p.VAR_KEYWORD]
    keywords = {name: getattr(loader, name) for name in names if name not in ("self", "batch_sampler")}
    assert epoch(WindowLoader(**keywords)) == planned(seed=5)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_sampler(dataset: AnnDataset, num_workers: int) -> None:
    loader = dataset.get_optimized_dataloader(batch_size=4, sampler=UNSORTED, num_workers=num_workers)
    wanted = [UNSORTED[i : i + 4] for i in range(0, 15, 4)]
    assert epoch(loader) == epoch(loader) == wanted
    assert len(loader) == 4
    dropping = dataset.get_optimized_dataloader(batch_size=4, sampler=UNSORTED, drop_last=True, num_workers=num_workers)
    assert epoch(dropping) == wanted[:3]
    assert len(dropping) == 3


def test_sampler_with_a_generator_of_its_own(dataset: AnnDataset) -> None:
    sampler = RandomSampler(dataset, generator=torch.Generator().manual_seed(1))
    wanted = list(RandomSampler(range(40), generator=torch.Generator().manual_seed(1)))
    assert flat(epoch(dataset.get_optimized_dataloader(batch_size=4, sampler=sampler))) == wanted


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batch_sampler(dataset: AnnDataset, num_workers: int) -> None:
    batches = [[3, 1], [39], [7, 7, 7, 0, 2, 11, 12, 13, 14], [5]]
    loader = dataset.get_optimized_dataloader(batch_sampler=batches, num_workers=num_workers)
    assert epoch(loader) == epoch(loader) == batches
    assert len(loader) == 4
    assert loader.batch_sampler is batches


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"sampler": [0, 40]}, IndexError, "40"),
        ({"sampler": [0, -1]}, IndexError, "-1"),
        ({"sampler": ["a"]}, TypeError, "integers"),
        ({"batch_sampler": [[0], [40]]}, IndexError, "40"),
        ({"batch_sampler": [[]]}, ValueError, "empty batch"),
        ({"batch_sampler": [1, 2]}, TypeError, "sequences"),
    ],
)
def test_sampler_that_gives_no_rows(dataset: AnnDataset, keywords: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        list(dataset.get_optimized_dataloader(**keywords))


def first_rows(items) -> tuple[int, list[int], list[str]]:
    return len(items), [int(item["obs_row"]) for item in items], [type(item["obs_text"]).__name__ for item in items]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_collate_fn_sees_items(dataset: AnnDataset, num_workers: int) -> None:
    loader = dataset.get_optimized_dataloader(
        batch_size=4, shuffle=False, collate_fn=first_rows, num_workers=num_workers
    )
    assert list(loader) == [(4, rows, ["str"] * 4) for rows in planned(shuffle=False)]
    assert loader.collate_fn.__wrapped__ is first_rows


def test_default_collate_equals_ours(shelf: Path) -> None:
    dataset = AnnDataset(hand_over(toy(), "path", shelf), chunk_size=8, transform=Plus())
    ours = list(dataset.get_optimized_dataloader(batch_size=3, shuffle=False))
    torchs = list(
        dataset.get_optimized_dataloader(batch_size=3, shuffle=False, collate_fn=torch.utils.data.default_collate)
    )
    assert len(ours) == len(torchs) == 14
    for found, wanted in zip(ours, torchs, strict=True):
        assert_same(found, wanted)
        assert "sum" in found


def note_worker(worker: int) -> None:
    torch.set_num_threads(worker + 3)


class Threads(Transform):
    """Tells what `note_worker` set."""

    def __call__(self, data_dict):
        return {**data_dict, "threads": torch.get_num_threads()}


def test_worker_init_fn(shelf: Path) -> None:
    dataset = AnnDataset(hand_over(toy(), "path", shelf), chunk_size=8, transform=Threads())
    loader = dataset.get_optimized_dataloader(batch_size=8, num_workers=2, worker_init_fn=note_worker, shuffle=False)
    # Worker w takes windows w, w + 2, …
    assert [batch["threads"].unique().tolist() for batch in loader] == [[3], [4], [3], [4], [3]]


class Slow(Transform):
    """Takes longer than anyone waits."""

    def __call__(self, data_dict):
        time.sleep(1.5)
        return data_dict


def test_timeout(shelf: Path) -> None:
    dataset = AnnDataset(hand_over(toy(), "path", shelf), obs_subset=[0], transform=Slow())
    loader = dataset.get_optimized_dataloader(batch_size=4, num_workers=1, timeout=0.5)
    with pytest.raises(RuntimeError, match="timed out"):
        list(loader)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_pin_memory(dataset: AnnDataset, num_workers: int) -> None:
    loader = dataset.get_optimized_dataloader(batch_size=4, shuffle=False, pin_memory=True, num_workers=num_workers)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pin_memory.*")  # torch's word where there is no accelerator
        batches = list(loader)
    assert rows_of(batches) == planned(shuffle=False)
    assert {batch["X"].is_pinned() for batch in batches} == {torch.cuda.is_available()}


@pytest.mark.parametrize("output", ["dense", "csr"])
def test_pinned_batches_are_made_in_pinned_memory(shelf: Path, monkeypatch: pytest.MonkeyPatch, output: str) -> None:
    """Where there is a GPU; here torch is only asked what it would have been asked for."""
    pinned: list[int] = []
    real_empty = torch.empty

    def empty(*size: Any, pin_memory: bool = False, **keywords: Any) -> torch.Tensor:
        pinned.extend([*size] if pin_memory else [])
        return real_empty(*size, **keywords)

    dataset = AnnDataset(hand_over(toy(), "path", shelf), output=output)
    loaders = [dataset.get_optimized_dataloader(batch_size=4, pin_memory=pin, seed=0) for pin in (True, False)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(torch.utils.data._utils.pin_memory, "pin_memory", lambda batch: batch)
    first = list(loaders[0])
    n_matrices = {"dense": 1, "csr": 3}[output]
    assert len(pinned) == n_matrices * len(first)
    assert rows_of(list(loaders[1])) == rows_of(first)
    assert len(pinned) == n_matrices * len(first), "the other loader's are not"


@pytest.mark.parametrize("in_order", [True, False])
def test_in_order(dataset: AnnDataset, in_order: bool) -> None:
    loader = dataset.get_optimized_dataloader(batch_size=4, shuffle=False, num_workers=2, in_order=in_order)
    found = epoch(loader)
    assert loader.in_order is in_order
    assert (found if in_order else sorted(found)) == planned(shuffle=False)


def test_multiprocessing_context_reaches_the_workers(dataset: AnnDataset) -> None:
    loader = dataset.get_optimized_dataloader(batch_size=4, num_workers=1, multiprocessing_context="fork")
    assert loader.multiprocessing_context.get_start_method() == "fork"
    assert sorted(flat(epoch(loader))) == list(range(40))


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"batch_size": None}, ValueError, "batch_size is None"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"batch_size": -3}, ValueError, "batch_size"),
        ({"batch_size": "4"}, TypeError, "batch_size"),
        ({"batch_size": 4.0}, TypeError, "batch_size"),
        ({"block_size": 0}, ValueError, "block_size"),
        ({"block_size": "best"}, ValueError, "block_size is 'best'; expected a positive integer or 'auto'"),
        ({"block_size": 2.5}, TypeError, "block_size"),
        ({"seed": -1}, ValueError, "seed"),
        ({"seed": 2**64}, ValueError, "seed"),
        ({"seed": "1"}, TypeError, "seed"),
        ({"prefetch_batches": -1}, ValueError, "prefetch_batches"),
        ({"prefetch_batches": 1.5}, (TypeError, ValueError), "prefetch_batches"),
        ({"num_workers": -1}, ValueError, "num_workers"),
        ({"timeout": -1}, ValueError, "timeout"),
        ({"prefetch_factor": 2}, ValueError, "prefetch_factor"),
        ({"persistent_workers": True}, ValueError, "persistent_workers"),
        ({"multiprocessing_context": "fork"}, ValueError, "multiprocessing_context"),
        ({"num_workers": 1, "multiprocessing_context": "thread"}, ValueError, "multiprocessing_context"),
        ({"sampler": [1], "batch_sampler": [[1]]}, ValueError, "batch_sampler"),
        ({"batch_sampler": [[1]], "drop_last": True}, ValueError, "batch_sampler"),
        ({"batch_sampler": [[1]], "batch_size": 5}, ValueError, "batch_sampler"),
        ({"batchsize": 4}, TypeError, "batchsize"),
        ({"dataset": None}, TypeError, "dataset"),
    ],
)
def test_keywords_that_are_refused(dataset: AnnDataset, keywords: dict, error, message: str) -> None:
    with pytest.raises(error, match=message):
        dataset.get_optimized_dataloader(**keywords)


def test_every_keyword_of_torchs_loader_is_known(dataset: AnnDataset) -> None:
    # A keyword that we pass on wrongly would be a TypeError here; the tests above see that each has its effect.
    known = inspect.signature(DataLoader.__init__).parameters
    for name, parameter in known.items():
        if name in ("self", "dataset", "batch_sampler", "pin_memory_device"):
            continue
        loader = dataset.get_optimized_dataloader(**{"batch_size": 4, "shuffle": False, name: parameter.default})
        if name not in ("batch_size", "shuffle"):
            assert flat(epoch(loader)) == list(range(40)), name


# --- plain torch loaders ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own_collate", [False, True])
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("form", FORMS)
def test_plain_dataloader(shelf: Path, form: str, num_workers: int, own_collate: bool) -> None:
    adata = toy()
    dataset = AnnDataset(hand_over(adata, form, shelf), transform=Plus())
    collate_fn = dataset.get_collate_fn() if own_collate else None
    loader = DataLoader(
        dataset,
        batch_size=7,
        shuffle=True,
        num_workers=num_workers,
        collate_fn=collate_fn,
        generator=torch.Generator().manual_seed(3),
    )
    batches = list(loader)
    assert len(batches) == len(loader) == 6
    # The same order as torch gives for any dataset of this length.
    indices = DataLoader(range(40), batch_size=7, shuffle=True, generator=torch.Generator().manual_seed(3))
    assert rows_of(batches) == [batch.tolist() for batch in indices]
    for batch in batches:
        x = dense(adata.X)[batch["obs_row"]]
        np.testing.assert_array_equal(batch["X"].numpy(), x)
        np.testing.assert_array_equal(batch["sum"].numpy(), x.sum(1) + batch["obs_row"].numpy())


def test_plain_dataloader_without_batches_gives_items(dataset: AnnDataset) -> None:
    items = list(DataLoader(dataset, batch_size=None))
    assert len(items) == 40
    assert_same(items[5], dataset[5])


def test_plain_dataloader_reads_a_batch_at_once(dataset: AnnDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = count_reads(dataset, monkeypatch)
    list(DataLoader(dataset, batch_size=8, shuffle=True))
    assert reads == [8] * 5


def test_subset_and_random_split_of_torch(dataset: AnnDataset) -> None:
    train, test = torch.utils.data.random_split(dataset, [30, 10], generator=torch.Generator().manual_seed(0))
    found = [flat(rows_of(DataLoader(part, batch_size=7))) for part in (train, test)]
    assert found == [list(train.indices), list(test.indices)]


# --- transforms ------------------------------------------------------------------------------------------------------


class WhichThread(Transform):
    """Notes the threads that it runs in."""

    def __init__(self) -> None:
        self.threads: set[str] = set()

    def __call__(self, data_dict):
        self.threads.add(threading.current_thread().name)
        return data_dict


def test_transforms_run_in_the_thread_that_calls_next(shelf: Path) -> None:
    transform = WhichThread()
    dataset = AnnDataset(hand_over(toy(), "path", shelf), chunk_size=8, transform=transform)
    list(dataset.get_optimized_dataloader(batch_size=4))
    assert transform.threads == {threading.current_thread().name}


class NoDict(Transform):
    """A forgotten return."""

    def __call__(self, data_dict):
        data_dict["X"] += 1


def test_transform_that_returns_no_dict(shelf: Path) -> None:
    dataset = AnnDataset(hand_over(toy(), "path", shelf), transform=NoDict())
    with pytest.raises(TypeError, match=r"NoDict.*returned None"):
        list(dataset.get_optimized_dataloader())
    with pytest.raises(TypeError, match=r"NoDict.*returned None"):
        dataset[0]


def test_obs_edited_between_epochs_is_what_the_next_delivers() -> None:
    adata = toy(6)
    loader = AnnDataset(adata, obs_columns=["label"]).get_optimized_dataloader(batch_size=6, shuffle=False)
    assert [batch["obs_label"][0] for batch in loader] == ["type 0"]
    adata.obs.loc["cell0", "label"] = "unused"
    assert [batch["obs_label"][0] for batch in loader] == ["unused"]
