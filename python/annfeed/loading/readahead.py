"""Reading ahead: one thread reads the next window and one makes the next batches while the model works.

They start at the first batch and spend their time in Rust, without the GIL. Transforms and samplers may draw from the
model's generator, so they run in the caller's thread, at moments that do not depend on the speed of the threads.

The threads end with the iteration: at the end of the loop, with an error, when the garbage collector frees it in any
thread, or before the interpreter ends (which would otherwise kill them inside Rust or C++ and abort).
"""

from __future__ import annotations

import atexit
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Protocol

from annfeed._core import Cancel, DemandFlag
from annfeed.arrays import Int64Array
from annfeed.batches.items import Batch
from annfeed.batches.window import Loaded, batches_of
from annfeed.display.progress import are_shown, progress_bar
from annfeed.order.windows import Window
from annfeed.sources.cancel import cancelled_by
from annfeed.user_warnings import on_behalf_of, users_line


class Loads(Protocol):
    """An object that reads windows."""

    def load(self, positions: Int64Array, /) -> Loaded:
        """Read the rows at ``positions`` (any order, repeats allowed) together."""

    def ask(self, positions: Int64Array, /) -> object:
        """Ask for the bytes of the rows at ``positions`` for a later `load`; they come while the result is kept."""

    def read_stats(self) -> Mapping[str, int]:
        """Return what reading did so far in this process, under the names of `annfeed.sources.base.STATS`."""


#: Seconds between two looks of a waiting thread at whether it should stop.
_LOOK = 0.05
#: Looks of one that waits for the first batch from one time that it tells what was read to the next.
_LOOKS_A_TELL = 10
#: Windows that are drawn from the order at a time: the delivered one, the one being read, and one more.
_PLANNED = 3


#: Batches made ahead, and large batches: fewer of these stay in the processor's cache. With only one, the model would
#: wait for each batch that takes longer than the others.
_AHEAD, _AHEAD_LARGE = 4, 2
_LARGE = 8 << 20
#: Seconds that the end of an iteration waits for its threads. They end at once, unless they need a lock that this
#: thread holds (the garbage collector can run anywhere); then they end after it is released.
_PATIENCE = 10.0


def batches_ahead(batch_bytes: int) -> int:
    """Return how many batches of ``batch_bytes`` are made ahead by default.

    Examples
    --------
    >>> batches_ahead(1 << 20), batches_ahead(1 << 24)
    (4, 2)
    """
    return _AHEAD if batch_bytes < _LARGE else _AHEAD_LARGE


def read_ahead(dataset: Loads, windows: Iterator[Window], n_batches: int) -> Generator[Batch]:
    """Yield the batches of ``windows``, in order, before any transform.

    Parameters
    ----------
    dataset
        Reads the windows.
    windows
        Windows of the epoch; iterated in the caller's thread.
    n_batches
        Most batches made ahead; 0 reads and makes each in the caller's thread.

    Raises
    ------
    Exception
        Any error of reading, in the caller's thread, after the batches before it.
    """
    if _at_end and threading.current_thread() is not threading.main_thread():
        raise SystemExit  # the iteration has ended
    if n_batches == 0 or _at_end:
        yield from _batches(_read(dataset, windows))
        return
    plan = _Plan(windows)
    with (
        _FirstWait(dataset) as wait,
        _Stage(lambda stop: _read_asked(dataset, plan, stop), 1) as read,
        _Stage(lambda _: _batches(iter(read)), n_batches, wait.look) as made,
    ):
        try:
            plan.begin()
            for batch in made:
                wait.end()
                yield batch
                plan.delivered()
        finally:
            # Stop both before waiting for either: the thread that makes batches may wait for the one that reads.
            read.stop()
            made.stop()


def _read(dataset: Loads, windows: Iterator[Window]) -> Iterator[tuple[Window, Loaded]]:
    for window in windows:
        yield window, dataset.load(window.positions)


def _read_asked(dataset: Loads, plan: _Plan, stop: threading.Event) -> Iterator[tuple[Window, Loaded]]:
    """As `_read`, the bytes of the next window being read while this one is decoded, where they would be waited for."""
    asked: list[object] = []
    try:
        for window in plan.until(stop):
            if not asked:
                asked.append(dataset.ask(window.positions))
            following = plan.following()
            if following is not None:
                asked.append(dataset.ask(following.positions))
            loaded = dataset.load(window.positions)
            del asked[0]
            yield window, loaded
    finally:
        asked.clear()  # now: the traceback of an error would hold their bytes, which others may want


def _batches(loaded: Iterator[tuple[Window, Loaded]]) -> Iterator[Batch]:
    for window, rows in loaded:
        yield from batches_of(window, rows)


class _Plan:
    """Windows that the caller's thread draws for the reading thread; how many depends only on the batches delivered."""

    def __init__(self, windows: Iterator[Window]) -> None:
        self._windows = windows
        self._drawn = _Drawn()
        self._left: deque[int] = deque()

    def begin(self) -> None:
        """Draw the first windows."""
        for _ in range(_PLANNED):
            self._draw()

    def until(self, stop: threading.Event) -> Iterator[Window]:
        """Yield them, in the reading thread, until their end or its ``stop``."""
        return _taken(self._drawn, stop)

    def following(self) -> Window | None:
        """Return the window that comes next, if it was drawn; in the reading thread."""
        return self._drawn.following()

    def delivered(self) -> None:
        """Count a batch; after the last one of a window, draw another window."""
        self._left[0] -= 1
        if self._left[0] == 0:
            self._left.popleft()
            self._draw()

    def _draw(self) -> None:
        try:
            window = next(self._windows, None)
        except Exception as error:  # raised in place of the window's batches
            self._drawn.put(("error", error))
            return
        if window is None:
            self._drawn.put(("end", None))
        else:
            self._left.append(window.n_batches)
            self._drawn.put(("result", window))


class _Drawn(queue.SimpleQueue[tuple[str, Any]]):
    """Windows in a queue from which one thread takes, which can see the next one before it takes it."""

    def __init__(self) -> None:
        self._seen: tuple[str, Any] | None = None

    def get(self, block: bool = True, timeout: float | None = None) -> tuple[str, Any]:
        seen, self._seen = self._seen, None
        return super().get(block, timeout) if seen is None else seen

    def following(self) -> Window | None:
        if self._seen is None and not self.empty():
            self._seen = super().get()
        return self._seen[1] if self._seen is not None and self._seen[0] == "result" else None


class _FirstWait:
    """The wait for the first batch of an epoch, with a progress bar of the bytes read where that takes long.

    Exact random order of a large file has many chunks to decode for its first window, and slow storage many reads.
    """

    def __init__(self, dataset: Loads) -> None:
        self._stats = dataset.read_stats
        self._is_shown, self._bar = are_shown(), ExitStack()
        self._looks = self._n_read = 0

    def __enter__(self) -> _FirstWait:
        bar = progress_bar("reading the first rows", None, "B", shown=self._is_shown)
        self._count = self._bar.enter_context(bar)
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def look(self) -> None:
        """Tell the bar what was read since it was told last; now and then, as of many files that takes a while."""
        if self._is_shown and self._looks % _LOOKS_A_TELL == 0:
            before, self._n_read = self._n_read, self._stats()["bytes_read"]
            if self._looks > 0:
                self._count(self._n_read - before)
        self._looks += 1

    def end(self) -> None:
        """Take the bar away."""
        self._bar.close()


class _Stage:
    """A thread that runs an iterator at most ``size`` results ahead of the consumer.

    The result being made counts: with a size of 1, the next is begun when the last was taken, so at most two windows
    are in memory. ``work`` is given the event that stops the stage: where it waits, it waits for that, too. While the
    consumer waits, ``waiting`` is called in its thread now and then.
    """

    def __init__(
        self,
        work: Callable[[threading.Event], Iterator[Any]],
        size: int,
        waiting: Callable[[], object] = lambda: None,
    ) -> None:
        self._work, self._waiting = work, waiting
        self._ready: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._room = threading.Semaphore(size)
        self._stop = threading.Event()
        self._awaited = DemandFlag()
        self._cancel = Cancel()
        self._line = users_line()
        self._thread = threading.Thread(target=self._run, name="annfeed-read-ahead", daemon=True)

    def __enter__(self) -> _Stage:
        _running.add(self)
        try:
            if _at_end:
                raise SystemExit
            self._thread.start()
        except BaseException:  # no thread could be started, or Ctrl-C
            self.stop()
            if self._thread.ident is None:
                _running.discard(self)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._thread is not threading.current_thread():
            self._thread.join(_PATIENCE)

    def stop(self) -> None:
        """Tell the thread to end, also in the middle of a read."""
        if not self._stop.is_set():
            self._cancel.set()
            self._stop.set()

    def wait(self) -> None:
        """Wait until the thread has ended."""
        if self._thread.ident is not None:
            self._thread.join()

    def __iter__(self) -> Iterator[Any]:
        for result in _taken(self._ready, self._stop, self._waiting):
            self._awaited.set(False)
            self._room.release()
            yield result
            self._awaited.set(True)

    def _run(self) -> None:
        try:
            results = self._work(self._stop)
            with cancelled_by(self._cancel), self._awaited, on_behalf_of(self._line):
                while self._may_go_on():
                    self._ready.put(("result", next(results)))
        except StopIteration:
            self._ready.put(("end", None))
        except BaseException as error:  # any error is raised in the consumer
            self._ready.put(("error", error))
        finally:
            _running.discard(self)

    def _may_go_on(self) -> bool:
        """Wait for room; return False if the stage was stopped."""
        while not self._stop.is_set():
            if self._room.acquire(timeout=_LOOK):
                return not self._stop.is_set()
        return False


def check_not_forked(process: int) -> None:
    """Raise RuntimeError in another process than the one that began an iteration."""
    if os.getpid() != process:
        raise RuntimeError(
            "found the iterator of a loader in a process forked from the one that began it; expected it there, as the "
            "threads or workers that read for it are. Begin a new iteration in this process"
        )


def _taken(
    results: queue.SimpleQueue[tuple[str, Any]], stop: threading.Event, waiting: Callable[[], object] = lambda: None
) -> Iterator[Any]:
    """Yield results from a queue until its end, an error, or a stop; call ``waiting`` now and then while waiting."""
    process = os.getpid()
    while True:
        check_not_forked(process)
        try:
            kind, value = results.get(timeout=_LOOK)
        except queue.Empty:
            if not stop.is_set():
                waiting()
                continue
            kind, value = "end", None
        if _at_end and stop.is_set():
            raise SystemExit  # the interpreter is ending: end this thread without a message
        if kind == "end":
            return
        if kind == "error":
            raise value
        yield value


#: The stages whose threads run in this process.
_running: set[_Stage] = set()
_at_end = False


def _end() -> None:
    """End all threads before the interpreter ends; from now on nothing is read ahead."""
    global _at_end
    _at_end = True
    stages = list(_running)
    for stage in stages:
        stage.stop()
    for stage in stages:
        stage.wait()


atexit.register(_end)
# A forked process does not have its parent's threads.
os.register_at_fork(after_in_child=_running.clear)
