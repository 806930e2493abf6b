"""A read in another thread ends when its reader is no longer wanted: no signal reaches it there."""

import itertools
import threading
from pathlib import Path

import anndata
import numpy as np
import pytest
import scipy.sparse as sp

from annfeed import AnnDataset
from annfeed._core import Cancel, Reader
from annfeed.sources.cancel import cancelled_by, current

ROWS = np.arange(2000, dtype=np.int64)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    m = sp.random(2000, 100, 0.2, format="csr", dtype=np.float32, random_state=np.random.default_rng(0))
    anndata.AnnData(m).write_h5ad(tmp_path / "a.h5ad", compression="gzip")
    return tmp_path / "a.h5ad"


@pytest.mark.parametrize("threads", [1, 2])
def test_a_set_wish_ends_the_read(path: Path, threads: int) -> None:
    reader, cancel = Reader(str(path), "X"), Cancel()
    assert reader.read(ROWS, threads, cancel).shape == (2000, 100)
    cancel.set()
    with pytest.raises(KeyboardInterrupt):
        reader.read(ROWS, threads, cancel)
    assert reader.read(ROWS, threads).shape == (2000, 100), "the reader itself goes on"


def test_a_dataset_looks_for_the_wish_of_its_thread(path: Path) -> None:
    dataset, cancel = AnnDataset(path), Cancel()
    cancel.set()
    with cancelled_by(cancel), pytest.raises(KeyboardInterrupt):
        dataset.reader.load(ROWS)
    assert current() is None
    assert len(dataset.__getitems__(ROWS)) == 2000


def test_the_wish_is_of_one_thread(path: Path) -> None:
    seen = []
    with cancelled_by(Cancel()):
        thread = threading.Thread(target=lambda: seen.append(current()))
        thread.start()
        thread.join()
    assert seen == [None]


def test_leaving_early_ends_reads_that_are_under_way(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled = threading.Event()
    began = threading.Event()
    windows = itertools.count(1)
    dataset = AnnDataset(path, window=200, cache=0)  # rows that are held take no time
    load = dataset.reader.load

    def slow_load(positions: np.ndarray) -> object:
        loaded = load(positions)
        if next(windows) < 3:
            return loaded
        began.set()
        # As a long read does between its jobs: look, until the wish is there.
        for _ in range(10_000):
            try:
                dataset.reader.matrices["X"].source.read(ROWS[:1], 1)
            except KeyboardInterrupt:
                cancelled.set()
                raise
        return loaded

    monkeypatch.setattr(dataset.reader, "load", slow_load)
    iterator = iter(dataset.get_optimized_dataloader(100, seed=0))
    next(iterator)
    for _ in range(2):  # make room for another window
        next(iterator)
    assert began.wait(10)
    iterator.close()
    assert cancelled.is_set()
    assert not [t for t in threading.enumerate() if t.name == "annfeed-read-ahead"]
