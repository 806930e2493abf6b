"""The optimized loader: iterating, ending, failing; how many batches; how many rows are read together."""

import gc
import threading
import time
from pathlib import Path

import h5py
import pytest
import torch
from tests.loading.steps_of_loaders import count_reads
from tests.support.orders import planned
from tests.support.toys import flat, hand_over, rows_of, toy
from torch.utils.data import BatchSampler

from annfeed import AnnDataset, Transform
from annfeed._core import DecodedRows
from annfeed.batches.window import LoadedWindow


class FailAt(Transform):
    """Fails at one row."""

    def __init__(self, row: int) -> None:
        self.row = row

    def __call__(self, data_dict):
        if data_dict["obs_row"] == self.row:
            raise ZeroDivisionError(f"row {self.row}")
        return data_dict


# --- iterating -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 2])
def test_iterate_twice(dataset: AnnDataset, num_workers: int) -> None:
    loader = dataset.get_optimized_dataloader(batch_size=4, shuffle=False, num_workers=num_workers)
    assert rows_of(loader) == rows_of(loader) == planned(shuffle=False)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_two_iterators_at_once(dataset: AnnDataset, num_workers: int) -> None:
    loader = dataset.get_optimized_dataloader(batch_size=4, seed=0, num_workers=num_workers)
    pairs = list(zip(loader, loader, strict=True))
    assert rows_of(a for a, _ in pairs) == planned(seed=0, epoch=0)
    assert rows_of(b for _, b in pairs) == planned(seed=0, epoch=1)


@pytest.mark.parametrize("prefetch_batches", [0, 1, 4])
def test_early_break_leaves_no_thread_and_no_window(shelf: Path, prefetch_batches: int) -> None:
    dataset = AnnDataset(hand_over(toy(), "path", shelf), window=8)
    loader = dataset.get_optimized_dataloader(batch_size=4, seed=0, prefetch_batches=prefetch_batches)
    before = set(threading.enumerate())
    for batch in loader:
        assert batch["X"].shape == (4, 7)
        break
    assert set(threading.enumerate()) <= before
    gc.collect()
    assert [o for o in gc.get_objects() if type(o) in (LoadedWindow, DecodedRows)] == []
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
    dataset = AnnDataset(hand_over(toy(), "path", shelf), window=8, transform=FailAt(22))
    loader = dataset.get_optimized_dataloader(batch_size=4, shuffle=False, prefetch_batches=prefetch_batches)
    before = set(threading.enumerate())
    found = []
    with pytest.raises(ZeroDivisionError, match="row 22"):
        found.extend(rows_of([batch])[0] for batch in loader)
    assert flat(found) == list(range(20))
    assert set(threading.enumerate()) <= before


def test_error_of_a_transform_in_a_worker_comes_after_the_windows_before_it(shelf: Path) -> None:
    dataset = AnnDataset(hand_over(toy(), "path", shelf), window=8, transform=FailAt(22))
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
    loader = AnnDataset(path, window=500).get_optimized_dataloader(batch_size=100, shuffle=False, **settings)
    found = []
    with pytest.raises(ValueError, match=r"corrupt\.h5ad.*X"):
        found.extend(batch for batch in loader)
    assert flat(rows_of(found)) == list(range(3000))


def test_error_does_not_end_the_loader(shelf: Path) -> None:
    transform = FailAt(22)
    dataset = AnnDataset(hand_over(toy(), "path", shelf), window=8, transform=transform)
    loader = dataset.get_optimized_dataloader(batch_size=4, shuffle=False)
    with pytest.raises(ZeroDivisionError):
        list(loader)
    transform.row = -1
    assert flat(rows_of(loader)) == list(range(40))


# --- how many --------------------------------------------------------------------------------------------------------


COUNTS = [
    (n, batch_size, drop_last, window)
    for n in (0, 1, 2, 7, 39, 40)
    for batch_size in (1, 2, 7, 40, 100)
    for drop_last in (False, True)
    for window in (1, 10, 6000)
]


@pytest.mark.parametrize("shuffle", [True, False])
def test_len_is_what_is_delivered(shelf: Path, shuffle: bool) -> None:
    path = hand_over(toy(), "path", shelf)
    for n, batch_size, drop_last, window in COUNTS:
        dataset = AnnDataset(path, obs_subset=range(n), window=window, obs_columns=["row", "text"])
        loader = dataset.get_optimized_dataloader(batch_size=batch_size, shuffle=shuffle, drop_last=drop_last)
        # The oracle is torch's own sampler.
        wanted = [len(batch) for batch in BatchSampler(range(n), batch_size, drop_last)]
        found = rows_of(loader)
        assert (len(loader), [len(rows) for rows in found]) == (len(wanted), wanted), (n, batch_size, drop_last)
        delivered = flat(found)
        assert len(set(delivered)) == len(delivered) == sum(wanted)
        if not shuffle:
            assert delivered == list(range(sum(wanted)))


@pytest.mark.parametrize("num_workers", [1, 3])
@pytest.mark.parametrize(
    ("n", "batch_size", "drop_last", "window"),
    [(39, 7, False, 10), (39, 7, True, 14), (1, 4, False, 8), (0, 4, False, 8)],
)
def test_len_is_what_workers_deliver(
    shelf: Path, n: int, batch_size: int, drop_last: bool, window: int, num_workers: int
) -> None:
    dataset = AnnDataset(hand_over(toy(), "path", shelf), obs_subset=range(n), window=window)
    loader = dataset.get_optimized_dataloader(batch_size=batch_size, drop_last=drop_last, num_workers=num_workers)
    found = rows_of(loader)
    wanted = [len(batch) for batch in BatchSampler(range(n), batch_size, drop_last)]
    assert len(loader) == len(wanted)
    # At most one short batch, and it is the last, also with several workers.
    assert [len(rows) for rows in found] == wanted


@pytest.mark.parametrize(
    ("window", "batch_size", "reads"),
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
    shelf: Path, window: int, batch_size: int, reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = AnnDataset(hand_over(toy(), "path", shelf), window=window)
    found = count_reads(dataset, monkeypatch)
    assert len(flat(rows_of(dataset.get_optimized_dataloader(batch_size=batch_size)))) == 40
    assert found == reads


def test_first_windows_are_small(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = AnnDataset(hand_over(toy(20_000, 3, "csr"), "path", shelf, "long"))
    found = count_reads(dataset, monkeypatch)
    assert sum(len(batch["X"]) for batch in dataset.get_optimized_dataloader(batch_size=100)) == 20_000
    # "1,024 rows, then double", up to the 6,000 of window, each rounded down to whole batches.
    assert found == [1000, 2000, 4000, 6000, 6000, 1000]


def test_an_early_break_reads_few_windows(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = AnnDataset(hand_over(toy(), "path", shelf), window=4)
    found = count_reads(dataset, monkeypatch)
    iterator = iter(dataset.get_optimized_dataloader(batch_size=4, prefetch_batches=1))
    next(iterator)
    time.sleep(0.3)
    # The one delivered, one made, one being made, one read, one being read.
    assert 1 <= len(found) <= 5
