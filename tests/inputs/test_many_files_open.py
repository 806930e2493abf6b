"""How many files of a collection are open at one time: descriptors, and the limits of the process."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from tests.inputs.shards import FDS, ROWS, SHARDS, n_open, rows_of
from tests.support.toys import hand_over, toy

from annfeed import AnnDataset, Transform
from annfeed.h5ad.open_files import OpenFiles

pytestmark = [pytest.mark.filterwarnings("ignore:obs columns that not all"), pytest.mark.usefixtures("nothing_is_left")]


def open_shards(folder: Path | None = None) -> int:
    """How many shards this process has open, of all folders or of one."""
    links = []
    for fd in FDS.iterdir():
        try:
            links.append(os.readlink(fd))
        except OSError:
            continue
    return sum(link.endswith(".h5ad") and (folder is None or Path(link).parent == folder) for link in links)


def stored_bytes(path: Path) -> int:
    """Bytes that the values of X and their columns take in a file."""
    with h5py.File(path) as file:
        return sum(file["X"][name].id.get_storage_size() for name in ("data", "indices"))


# --- descriptors ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not FDS.is_dir(), reason="only Linux lists a process's descriptors")
@pytest.mark.parametrize("limit", [1, 3, 100])
def test_no_more_files_are_open_than_allowed(shards: list[Path], limit: int) -> None:
    before = open_shards()
    dataset = AnnDataset(shards, max_open_files=limit, window=40, cache=0)
    assert open_shards() == before
    assert dataset.stats()["opens"] == 0
    dataset[30]
    assert open_shards() == before + 1
    counts = []
    for batch in dataset.get_optimized_dataloader(batch_size=10, seed=0, prefetch_batches=0):
        rows_of([batch])
        counts.append(open_shards() - before)
    assert max(counts) == min(limit, SHARDS)
    stats = dataset.stats()
    assert stats["opens"] == SHARDS if limit == 100 else stats["opens"] > SHARDS
    # Bytes of files that were closed meanwhile are counted, too.
    assert stats["bytes_read"] >= sum(stored_bytes(path) for path in shards)
    dataset.close()
    assert open_shards() == before
    with pytest.raises(ValueError, match="closed"):
        dataset[0]


def test_two_threads_with_one_file_open(shards: list[Path]) -> None:
    dataset = AnnDataset(shards, max_open_files=1, cache=0)
    wrong = []

    def read(seed: int) -> None:
        rows = np.random.default_rng(seed).permutation(SHARDS * ROWS)
        for row in rows.tolist():
            if int(dataset[row]["X"][0]) != row:
                wrong.append(row)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert dataset.stats()["opens"] > SHARDS


@pytest.mark.parametrize(("limit", "error"), [(0, ValueError), (-1, ValueError), (True, TypeError), ("3", TypeError)])
def test_limits_that_are_none(shards: list[Path], limit: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"max_open_files is .* positive integer"):
        AnnDataset(shards, max_open_files=limit)


def test_the_limit_follows_the_process() -> None:
    import resource

    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert OpenFiles().limit == (4096 if soft in (resource.RLIM_INFINITY, -1) else min(soft // 2, 4096))


class Open(Transform):
    """Adds how many files the process has open that makes a batch."""

    batched = True

    def __call__(self, data_dict: dict[str, Any]) -> dict[str, Any]:
        return {**data_dict, "open": [n_open()] * len(data_dict["X"])}


def several(folder: Path, limits: list[Any], ulimit: int, num_workers: int) -> int:
    """The largest number of open files, in a process of its own, which may open few."""
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (ulimit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    # A process that a fork server started would start its workers like that.
    workers = {"num_workers": num_workers, "multiprocessing_context": "fork"} if num_workers else {}
    kept: list[AnnDataset] = []
    counts: list[int] = []
    for limit in limits:
        if limit == "files":  # datasets on one file each
            kept += [AnnDataset(path, transform=Open()) for path in sorted(folder.iterdir())]
        else:
            kept.append(AnnDataset(f"{folder}/*.h5ad", max_open_files=limit, transform=Open(), window=40))
        for dataset in kept:
            loader = dataset.get_optimized_dataloader(batch_size=10, seed=0, prefetch_batches=0, **workers)
            for batch in loader:
                counts += batch["open"]
        counts.append(n_open())
    return max(counts)


@pytest.mark.skipif(not FDS.is_dir(), reason="only Linux lists a process's descriptors")
@pytest.mark.parametrize(
    ("limits", "ulimit", "num_workers", "most"),
    [
        ([4, 4], 256, 0, 4),
        ([7, 3, None], 256, 0, 7),  # 7 until the one of 3 is made
        ([None, None, None], 40, 0, 20),
        ([None, "files"], 40, 0, 20),
        ([4, 4], 256, 1, 4),
    ],
    ids=str,
)
def test_limits_are_of_the_process(tmp_path: Path, limits: list[Any], ulimit: int, num_workers: int, most: int) -> None:
    """Several collections in one process, training and validation: their files together are no more than allowed."""
    first = hand_over(toy(20), "path", tmp_path, "000")
    for number in range(1, 24):
        shutil.copy(first, tmp_path / f"{number:03d}.h5ad")
    with ProcessPoolExecutor(1, multiprocessing.get_context("forkserver")) as process:
        assert process.submit(several, tmp_path, limits, ulimit, num_workers).result(timeout=200) == most


def test_the_smallest_limit_of_the_collections_alive_holds(shards: list[Path]) -> None:
    folder = shards[0].parent
    large = AnnDataset(shards, max_open_files=5, cache=0)
    for row in range(0, SHARDS * ROWS, ROWS):
        large[row]
    assert open_shards(folder) == min(5, SHARDS)
    small = AnnDataset(shards, max_open_files=2, cache=0)
    assert open_shards(folder) == 2
    large[0]
    small[ROWS]
    large[2 * ROWS]
    assert open_shards(folder) == 2
    del small
    for row in range(0, SHARDS * ROWS, ROWS):
        large[row]
    assert open_shards(folder) == min(5, SHARDS)
