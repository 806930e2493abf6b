"""However a process ends, it ends with its own exit status and no words but its own; and no thread is left behind."""

from __future__ import annotations

import gc
import json
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
from tests.support.places import SCRIPTS

from annfeed import AnnDataset
from annfeed.batches.reader import RowReader
from annfeed.batches.tensors import TensorMaker

SCRIPT = SCRIPTS / "ends_script.py"
#: Ways to end, and the status that is right.
ENDS = {
    "exits": 3,
    "comes_to_its_last_line": 0,
    "raises": 1,
    "has_a_circle": 3,
    "has_threads_of_its_own": 3,
    "reads_at_the_very_end": 3,
    "has_workers": 3,
    "forks": 3,
    "forks_and_goes_on": 3,
    "forks_while_workers_work": 3,
    "starts_a_process": 3,
}
#: What Ctrl-C ends, and how many seconds later each time.
INTERRUPTS = {"reads_for_ever": 0.1, "reads_in_workers_for_ever": 0.1, "opens_for_ever": 0.1}
#: Before 3.14, Python ends a daemon thread that asks for the GIL at the end of the process by unwinding its stack. Code
#: of torch that takes the GIL back in a destructor then ends the process. It is rare, and the threads are the user's.
TORCH_IN_A_DAEMON_THREAD = (-signal.SIGABRT, "terminate called without an active exception\n")
#: Each is a race, so there are several.
TIMES = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("ends")
    x = sp.random(3000, 1000, density=0.1, format="csr", random_state=np.random.default_rng(0), dtype=np.float32)
    anndata.AnnData(x).write_h5ad(found / "cells.h5ad", compression="gzip")
    return found


@pytest.fixture(scope="module")
def ended(folder: Path) -> dict[str, list[tuple[int, str]]]:
    """By way to end: the status and what was on stderr, each time."""
    ways = [(name, TIMES, None) for name in ENDS] + [(name, TIMES, wait) for name, wait in INTERRUPTS.items()]
    command = [sys.executable, "-W", "ignore", str(SCRIPT), str(folder), json.dumps(ways)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[tuple[int, str]]] = {}
    for line in done.stdout.splitlines():
        name, status, text = json.loads(line)
        found.setdefault(name, []).append((status, text))
    return found


@pytest.mark.parametrize("way", ENDS)
def test_a_process_ends_with_its_own_status_and_words(ended: dict[str, list[tuple[int, str]]], way: str) -> None:
    assert len(ended[way]) == TIMES
    found = ended[way]
    if way == "has_threads_of_its_own" and sys.version_info < (3, 14):
        found = [one for one in found if one != TORCH_IN_A_DAEMON_THREAD] or found[:1]
    for status, text in found:
        assert status == ENDS[way], text
        if way == "raises":
            assert text.startswith("Traceback")
            assert text.endswith("ValueError: of 6 iterators\n")
            assert len([line for line in text.splitlines() if not line.startswith(" ")]) == 2, text
        else:
            assert not text


@pytest.mark.parametrize("way", INTERRUPTS)
def test_ctrl_c_ends_a_process_as_it_ends_any(ended: dict[str, list[tuple[int, str]]], way: str) -> None:
    assert len(ended[way]) == TIMES
    for status, text in ended[way]:
        assert status == -signal.SIGINT, text
        assert text.startswith("Traceback")
        assert text.endswith("KeyboardInterrupt\n")
        for word in ("Exception ignored", "panicked", "terminate", "Fatal", "Process "):
            assert word not in text


# --- collected iterators ----------------------------------------------------------------------------------------------


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What would be printed about errors that nobody can catch."""
    found: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", found.append)
    monkeypatch.setattr(threading, "excepthook", found.append)
    yield found
    assert not found


def threads_end() -> bool:
    """Whether no thread of ours is left, or is not soon."""
    for _ in range(200):
        if not [thread for thread in threading.enumerate() if thread.name == "annfeed-read-ahead"]:
            return True
        time.sleep(0.05)
    return False


class Circle:
    """Something that only the garbage collector takes away."""

    def __init__(self, held: Any) -> None:
        self.held, self.itself = held, self


def test_an_iterator_collected_in_another_thread(folder: Path, messages: list[Any]) -> None:
    dataset = AnnDataset(folder / "cells.h5ad", cache=0, window=256)
    for _ in range(3):
        batches = iter(dataset.get_optimized_dataloader(16, seed=0))
        next(batches)
        gone = weakref.ref(Circle(batches))
        del batches
        thread = threading.Thread(target=gc.collect)
        thread.start()
        thread.join()
        assert gone() is None
    assert threads_end()


@pytest.mark.parametrize("stage", [0, 1], ids=["the one that reads", "the one that makes batches"])
def test_an_iterator_collected_in_a_thread_of_its_own(
    folder: Path, messages: list[Any], stage: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go, collected = threading.Event(), threading.Event(), threading.Event()
    calls = [0, 0]

    read, tensor = RowReader.read, TensorMaker.tensor

    def collect_after_read(self: RowReader, rows: Any) -> Any:
        found = read(self, rows)
        collect(0)
        return found

    def collect_before_tensor(self: TensorMaker, *args: Any, **options: Any) -> Any:
        collect(1)
        return tensor(self, *args, **options)

    def collect(here: int) -> None:
        """Collect garbage in the middle of a thread's work on the second window."""
        calls[here] += 1
        if here == stage and calls[here] == 2:
            reached.set()
            go.wait(20)
            gc.collect()
            collected.set()

    monkeypatch.setattr(RowReader, "read", collect_after_read)
    monkeypatch.setattr(TensorMaker, "tensor", collect_before_tensor)
    dataset = AnnDataset(folder / "cells.h5ad", cache=0, window=16, obs_columns=[])
    batches = iter(dataset.get_optimized_dataloader(16, seed=0))
    next(batches)
    assert reached.wait(20)
    gone = weakref.ref(Circle(batches))
    del batches
    go.set()
    assert collected.wait(20)
    assert gone() is None
    assert threads_end()


def test_an_iterator_collected_where_a_lock_is_held_that_its_threads_need(
    folder: Path, messages: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("annfeed.loading.readahead._PATIENCE", 0.5)
    lock = threading.RLock()

    read = RowReader.read

    def read_under_a_lock(self: RowReader, rows: Any) -> Any:
        """As h5py does."""
        with lock:
            return read(self, rows)

    monkeypatch.setattr(RowReader, "read", read_under_a_lock)
    batches = iter(AnnDataset(folder / "cells.h5ad", cache=0, window=16).get_optimized_dataloader(16, seed=0))
    next(batches)
    with lock:
        time.sleep(0.2)  # now its thread waits for the lock
        del batches
    assert threads_end()


def test_no_thread_is_left_where_the_second_one_cannot_start(
    folder: Path, messages: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at a limit of threads, at Ctrl-C between the two, and where the interpreter ends at that moment."""
    begun: list[threading.Thread] = []
    start = threading.Thread.start

    def start_one(thread: threading.Thread) -> None:
        if thread.name == "annfeed-read-ahead":
            if begun:
                raise RuntimeError("can't start new thread")
            begun.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_one)
    batches = iter(AnnDataset(folder / "cells.h5ad", cache=0, window=16).get_optimized_dataloader(16, seed=0))
    with pytest.raises(RuntimeError, match="new thread"):
        next(batches)
    assert len(begun) == 1
    assert not begun[0].is_alive()
