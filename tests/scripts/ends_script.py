"""Ends processes in many ways while iterators are alive, and prints how each ended: run by test_ends.py.

One process imports everything, and forks one that ends for each way; that takes less time than importing again. As it
forks before anything was read, a fork ends like a process of its own.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

atexit.register(lambda: at_the_end())  # before those below register something, so that it runs after theirs

import numpy as np  # noqa: E402
import torch  # noqa: E402

from annfeed import AnnDataset, Transform  # noqa: E402
from annfeed.batches.reader import RowReader  # noqa: E402
from annfeed.inputs import many as collection  # noqa: E402

#: Seconds after which a process that does not end is killed.
PATIENCE = 60
#: What Python writes where an interrupt meets one of its callbacks of weak references, which then goes on.
LOST = "Exception ignored in: <function WeakValueDictionary"


def at_the_end() -> None:
    """Does what a way to end asks for."""


alive: Any = None


def begin(n: int, **how: Any) -> list[Any]:
    """Return ``n`` iterators in the middle of an epoch, so that some thread is wherever it hurts."""
    begun = []
    for seed in range(n):
        dataset = AnnDataset("cells.h5ad", cache=0, obs_columns=[], window=256)
        begun.append(iter(dataset.get_optimized_dataloader(batch_size=16, seed=seed, **how)))
        next(begun[-1])
    return begun


def exits() -> None:
    global alive
    alive = begin(6)
    sys.exit(3)


def comes_to_its_last_line() -> None:
    global alive
    alive = begin(6)


def raises() -> None:
    kept = begin(6)
    raise ValueError(f"of {len(kept)} iterators")


def has_a_circle() -> None:
    circle = begin(6)
    circle.append(circle)
    del circle
    sys.exit(3)


def has_threads_of_its_own() -> None:
    # Nobody waits for them, and where they are when the interpreter ends is anywhere.
    dataset = AnnDataset("cells.h5ad", cache=0, obs_columns=[])

    def read() -> None:
        while True:
            dataset.reader.load(np.arange(len(dataset)))

    def iterate() -> None:
        while True:
            for _ in dataset.get_optimized_dataloader(256, seed=0):
                pass

    for at_work in (read, read, iterate):
        threading.Thread(target=at_work, daemon=True).start()
    time.sleep(0.2)
    sys.exit(3)


def reads_at_the_very_end() -> None:
    global at_the_end, alive
    dataset = AnnDataset("cells.h5ad", cache=0, obs_columns=[], window=256)
    len(dataset.__getitems__([0]))

    def read() -> None:
        n = sum(len(batch["X"]) for batch in dataset.get_optimized_dataloader(16, seed=0))
        os._exit(3 if n == 3000 and threading.active_count() == 1 else 4)

    at_the_end = read
    alive = begin(2)


def has_workers() -> None:
    global alive
    alive = begin(1, num_workers=2) + begin(2)
    sys.exit(3)


def forks() -> None:
    global alive
    alive = begin(4)
    child = os.fork()
    if child == 0:
        sys.exit(5)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    sys.exit(3 if status == 5 else status)


def forks_and_goes_on() -> None:
    global alive
    alive = begin(1)
    child = os.fork()
    if child == 0:
        try:
            next(alive[0])
        except RuntimeError as error:
            n = len(list(begin(1)[0]))
            alive[0].close()
            alive = None
            sys.exit(5 if "forked" in str(error) and n == 187 else 6)
        sys.exit(7)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    sys.exit(3 if status == 5 and len(list(alive[0])) == 187 else status)


def forks_while_workers_work() -> None:
    global alive
    alive = begin(1, num_workers=1)
    child = os.fork()
    if child == 0:
        try:
            next(alive[0])
        except RuntimeError as error:
            alive = None  # collected here, too
            sys.exit(5 if "forked" in str(error) else 6)
        sys.exit(7)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    sys.exit(3 if status == 5 and len(list(alive[0])) == 187 else status)


def starts_a_process() -> None:
    def read() -> None:
        global alive
        alive = begin(2)

    global alive
    alive = begin(2)
    child = torch.multiprocessing.get_context("fork").Process(target=read)
    child.start()
    child.join()
    sys.exit(3 if child.exitcode == 0 else 4)


class SlowReader(RowReader):
    """Reads for ever."""

    def read(self, rows: Any) -> Any:
        """Take a while."""
        time.sleep(0.05)
        return super().read(rows)


def slow_rows(*args: Any, **options: Any) -> AnnDataset:
    """A dataset that reads for ever."""
    dataset = AnnDataset(*args, **options)
    dataset.reader.__class__ = SlowReader
    return dataset


class SlowTransform(Transform):
    """Works for ever."""

    batched = True

    def __call__(self, batch: Any) -> Any:
        """Take a while."""
        time.sleep(0.05)
        return batch


# What Ctrl-C meets in these is nearly always a wait: Python itself loses it in callbacks of weak references.


def reads_for_ever() -> None:
    global alive
    alive = begin(2)
    dataset = slow_rows("cells.h5ad", cache=0, obs_columns=[], window=16)
    print("now", flush=True)
    for _ in dataset.get_optimized_dataloader(batch_size=16, seed=0):
        pass


def reads_in_workers_for_ever() -> None:
    dataset = AnnDataset("cells.h5ad", cache=0, obs_columns=[], window=16, transform=SlowTransform())
    batches = iter(dataset.get_optimized_dataloader(batch_size=16, seed=0, num_workers=2))
    next(batches)
    print("now", flush=True)
    for _ in batches:
        pass


def opens_for_ever() -> None:
    def slow_shape(*args: Any) -> Any:
        time.sleep(0.05)
        return find_shape(*args)

    find_shape, collection.find_shape = collection.find_shape, slow_shape
    print("now", flush=True)
    AnnDataset(["cells.h5ad"] * 2000, obs_columns=[])


def ended(way: Callable[[], None], interrupted_after: float | None) -> tuple[int, str]:
    """Fork a process that ends so; give its status and what it wrote to stderr. Never returns in that process."""
    told, tell = os.pipe()
    began, begin_ = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()  # Ctrl-C reaches a group of processes: it, and its workers
        os.dup2(tell, 2)
        os.dup2(begin_, 1)
        for descriptor in (told, tell, began, begin_):
            os.close(descriptor)
        way()
        sys.exit()
    os.close(tell)
    os.close(begin_)
    killer = threading.Timer(PATIENCE, os.killpg, (child, signal.SIGKILL))
    killer.start()
    if interrupted_after is not None:
        os.read(began, 4)  # it is at it
        time.sleep(interrupted_after)
        os.killpg(child, signal.SIGINT)
    with open(told, errors="replace") as file:
        text = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    killer.cancel()
    killer.join()
    os.close(began)
    return status, text


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background is started deaf to it
    AnnDataset("cells.h5ad", obs_columns=[])  # so that all is imported
    gc.freeze()  # the end of a fork need not go through what this process holds for its own
    for name, times, wait in json.loads(sys.argv[2]):
        for number in range(times):
            after = None if wait is None else wait * (number + 0.5)
            found = ended(globals()[name], after)
            if found[0] == -signal.SIGKILL and after is not None and LOST in found[1]:
                found = ended(globals()[name], after)  # once more: Python itself lost the interrupt
            print(json.dumps((name, *found)), flush=True)
