"""A worker that dies, also while it starts, is one error within seconds; the next epoch of the loader is whole."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from io import BytesIO
from multiprocessing.context import set_spawning_popen
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

from annfeed import AnnDataset, Scale, Transform

N = 240


class Dies(Transform):
    """Ends the process that runs it, once."""

    batched = True

    def __init__(self, how: str, mark: Path) -> None:
        self.how, self.mark = how, mark

    def __call__(self, batch: Any) -> Any:
        if self.how and not self.mark.exists() and 100 in batch["X"][:, 0]:
            self.mark.touch()
            if self.how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            os._exit(1 if self.how == "failed" else 0)
        return batch


@pytest.fixture
def path(tmp_path: Path) -> Path:
    rows = np.arange(N, dtype="float32")
    anndata.AnnData(np.stack([rows, rows], axis=1)).write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


def rows_of(batches: Any) -> list[int]:
    return [int(row) for batch in batches for row in batch["X"][:, 0]]


@pytest.mark.parametrize(
    ("how", "persistent"),
    [("killed", False), ("killed", True), ("failed", False), ("failed", True), ("gone", True)],
)
def test_a_worker_that_dies_is_one_error_and_the_next_epoch_is_whole(path: Path, how: str, persistent: bool) -> None:
    dataset = AnnDataset(path, window=8, transform=Dies(how, path.with_name("died")))
    loader = dataset.get_optimized_dataloader(8, shuffle=False, num_workers=2, persistent_workers=persistent)
    for _ in range(1 if how == "gone" else 2):  # torch looks every 5 seconds only
        path.with_name("died").unlink(missing_ok=True)
        with pytest.raises(RuntimeError, match=r"DataLoader worker \(pid"):
            rows_of(loader)
        for _ in range(2):
            assert rows_of(loader) == list(range(N))


class DiesWithALock(Transform):
    """Ends the worker at the moment at which it looks whether it is to end: it holds a lock that all of them share."""

    batched = True

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __call__(self, batch: Any) -> Any:
        if not self.mark.exists() and 100 in batch["X"][:, 0]:
            self.mark.touch()
            frame = sys._getframe()
            while frame.f_code.co_name != "_worker_loop":
                assert frame.f_back is not None
                frame = frame.f_back
            frame.f_locals["done_event"]._cond.acquire()
            os.kill(os.getpid(), signal.SIGKILL)
        return batch


@pytest.mark.parametrize("persistent", [False, True])
def test_a_worker_that_dies_with_the_lock_of_all_workers(path: Path, persistent: bool) -> None:
    """The process that it leaves behind would wait for the lock for ever."""
    dataset = AnnDataset(path, window=8, transform=DiesWithALock(path.with_name("died")))
    loader = dataset.get_optimized_dataloader(8, shuffle=False, num_workers=2, persistent_workers=persistent)
    with pytest.raises(RuntimeError, match=r"DataLoader worker \(pid"):
        rows_of(loader)
    for _ in range(2):
        assert rows_of(loader) == list(range(N))


def kill_and_wait(process: Any) -> None:
    os.kill(process.pid, signal.SIGKILL)
    for _ in range(100):
        time.sleep(0.05)


@pytest.mark.parametrize("between", [False, True])
def test_a_worker_killed_while_nobody_waits_for_it(path: Path, between: bool) -> None:
    loader = AnnDataset(path, window=8).get_optimized_dataloader(8, shuffle=False, num_workers=2)
    before = set(multiprocessing.active_children())
    if between:
        assert rows_of(loader) == list(range(N))
    else:
        batches = iter(loader)
        next(batches)
    worker = next(iter(set(multiprocessing.active_children()) - before))
    # torch tells of a dead worker in the main thread, whatever that is doing, unless somebody took its signal handler.
    with contextlib.suppress(RuntimeError):
        kill_and_wait(worker)
    if not between:
        batches.close()
    assert rows_of(loader) == list(range(N))
    assert rows_of(loader) == list(range(N))


# --- workers that die while they start --------------------------------------------------------------------------------

STDIN = """
from annfeed import AnnDataset
dataset = AnnDataset("*.h5ad")
for _ in dataset.get_optimized_dataloader(8, num_workers=2, multiprocessing_context="spawn"):
    pass
"""


def test_torch_hears_of_dead_workers_after_somebody_took_its_handler_away() -> None:
    # As a trainer of Lightning does, which puts back what it found when it began.
    dataset = AnnDataset(anndata.AnnData(np.eye(8, dtype="float32")))
    before = signal.getsignal(signal.SIGCHLD)
    for persistent in (False, True):
        loader = dataset.get_optimized_dataloader(4, num_workers=1, persistent_workers=persistent)
        for _ in range(2):
            assert sum(len(batch["X"]) for batch in loader) == 8
            handler: Any = signal.getsignal(signal.SIGCHLD)
            assert handler.__module__.startswith("torch.")
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # A handler of the user's stays.
    user = lambda *_: None  # noqa: E731
    signal.signal(signal.SIGCHLD, user)
    assert sum(len(batch["X"]) for batch in loader) == 8
    assert signal.getsignal(signal.SIGCHLD) is user
    signal.signal(signal.SIGCHLD, before)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """14 files with 30,000 genes, in the order of each its own."""
    folder = tmp_path_factory.mktemp("many")
    genes = np.array([f"ENSG{j:011d}" for j in range(30_000)])
    for i in range(14):
        var = pd.DataFrame(index=np.roll(genes, i))
        x = np.zeros((2, len(genes)), dtype="uint8")
        x[:, 0] = i
        anndata.AnnData(x, var=var, obs=pd.DataFrame(index=[f"{i}a", f"{i}b"])).write_h5ad(folder / f"{i:02d}.h5ad")
    (folder / "small").mkdir()
    anndata.AnnData(np.eye(3, dtype="float32")).write_h5ad(folder / "small/cells.h5ad")
    return folder


def test_a_script_from_stdin_whose_workers_cannot_start(many: Path) -> None:
    # Their main module is "<stdin>", which is no file: each dies before it reads what it is given.
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-"],
        input=STDIN,
        cwd=many,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 1
    assert "RuntimeError: DataLoader worker" in done.stderr


KILLED = """
import os, signal, sys
from annfeed import AnnDataset
if __name__ == "__main__":
    dataset = AnnDataset(sys.argv[1], window=8)
    loader = dataset.get_optimized_dataloader(8, num_workers=2, multiprocessing_context=sys.argv[2])
    # Each worker has begun; they wait for the next epoch.
    assert sum(1 for _ in loader) == 30
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_workers_end_when_the_process_is_killed(path: Path, method: str) -> None:
    script = path.with_name("killed.py")
    script.write_text(KILLED)
    # The workers have the pipes, too: this waits for the last of them.
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script, path, method], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


class Start:
    """What multiprocessing's pickles know of a process that is being started."""

    def __init__(self) -> None:
        self.descriptors: list[int] = []

    def duplicate_for_child(self, descriptor: int) -> int:
        self.descriptors.append(descriptor)
        return os.dup(descriptor)  # in this test the child is this process

    class DupFd:
        """A descriptor as the child finds it."""

        def __init__(self, descriptor: int) -> None:
            self.descriptor = descriptor

        def detach(self) -> int:
            return self.descriptor


def sent(what: Any) -> tuple[int, Any]:
    """The bytes that go through the pipe to a process, and what it makes of them."""
    start = Start()
    set_spawning_popen(start)
    try:
        pipe = BytesIO()
        ForkingPickler(pipe).dump(what)
    finally:
        set_spawning_popen(None)
    received = ForkingPickler.loads(pipe.getvalue())
    descriptors = start.descriptors
    del start
    gc.collect()
    # Ours is the last; torch has some for tensors.
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptors[-1])
    return pipe.tell(), received


def as_they_come(what: Any) -> Any:
    return what


SENT: dict[str, Callable[[Path], Any]] = {
    "14 files of 30,000 genes": lambda many: AnnDataset(str(many / "*.h5ad")),
    "300 files": lambda many: AnnDataset([many / "small/cells.h5ad"] * 300),
    "in memory": lambda many: AnnDataset(anndata.AnnData(np.arange(90_000, dtype="float32").reshape(3, 30_000))),
    "a large transform": lambda many: AnnDataset(
        many / "00.h5ad", transform=Scale(np.zeros(30_000, "float32"), np.ones(30_000, "float32"))
    ),
    "a large subset": lambda many: AnnDataset(many / "00.h5ad", obs_subset=[1, 0] * 20_000),
}


@pytest.mark.parametrize("name", SENT)
def test_what_goes_through_the_pipe_is_small(many: Path, name: str) -> None:
    dataset = SENT[name](many)
    size, received = sent(DataLoader(dataset, collate_fn=as_they_come).dataset)
    assert size < 1 << 10  # however many files, genes and rows
    assert len(received) == len(dataset)
    rows = [0, len(dataset) - 1]
    for found, expected in zip(received.__getitems__(rows), dataset.__getitems__(rows), strict=True):
        torch.testing.assert_close(found["X"], expected["X"], rtol=0, atol=0)


def test_what_is_received_is_one_as_it_was(path: Path) -> None:
    # A transform that knows its dataset, an array that is there twice and may be written to, one without elements.
    dataset = AnnDataset(path)
    twice = np.arange(100.0)
    dataset.transform = Knows(dataset, [twice, twice, np.empty((0, 3)), twice[::2], torch.arange(4)])
    _, received = sent(dataset)
    assert received.transform.dataset is received
    first, second, empty, some, tensor = received.transform.held
    assert first is second
    first[0] = 7
    assert twice[0] == 0
    assert empty.shape == (0, 3)
    np.testing.assert_array_equal(some, twice[::2])
    assert tensor.tolist() == [0, 1, 2, 3]


class Knows(Transform):
    """A transform with things of its own."""

    def __init__(self, dataset: Any, held: Any) -> None:
        self.dataset, self.held = dataset, held

    def __call__(self, item: Any) -> Any:
        return item


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_that_are_started_anew_deliver_what_the_process_does(many: Path, method: str) -> None:
    adata = anndata.AnnData(np.arange(40_000, dtype="float32").reshape(4, 10_000))
    for given in (adata, str(many / "*.h5ad")):
        dataset = AnnDataset(given, window=2)
        expected = [batch["X"] for batch in dataset.predict_loader(2)]
        found = [batch["X"] for batch in dataset.predict_loader(2, num_workers=1, multiprocessing_context=method)]
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
