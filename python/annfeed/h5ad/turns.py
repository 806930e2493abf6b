"""Reads and writes of this process take turns: nothing of annfeed reads a file while annfeed writes to one.

HDF5 does not open a file for writing that the same process has open, and whoever opens one in the middle of a write
finds half of it. Any number of threads may read at a time. What other processes and other packages do is their own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Turns:
    """Who reads and who writes, by thread; both may be nested in a thread."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.readers: dict[int, int] = {}
        self.writer: int | None = None
        self.n_nested = 0
        self.n_waiting = 0

    def begin_read(self) -> int:
        thread = threading.get_ident()
        with self.changed:
            # Whoever reads goes on; others let a waiting writer go first, so that it gets its turn.
            while self.writer != thread and thread not in self.readers and (self.writer or self.n_waiting):
                self.changed.wait()
            self.readers[thread] = self.readers.get(thread, 0) + 1
        return thread

    def end_read(self, thread: int) -> None:
        with self.changed:
            self.readers[thread] -= 1
            if not self.readers[thread]:
                del self.readers[thread]
            self.changed.notify_all()

    def begin_write(self) -> None:
        thread = threading.get_ident()
        with self.changed:
            self.n_waiting += 1
            try:
                while self.writer not in (None, thread) or self.readers.keys() - {thread}:
                    self.changed.wait()
                self.writer = thread
                self.n_nested += 1
            finally:
                self.n_waiting -= 1
                self.changed.notify_all()

    def end_write(self) -> None:
        with self.changed:
            self.n_nested -= 1
            if not self.n_nested:
                self.writer = None
            self.changed.notify_all()

    def forget_other_threads(self) -> None:
        """In a forked process, which has one thread."""
        thread = threading.get_ident()
        self.changed = threading.Condition()
        self.readers = {thread: self.readers[thread]} if thread in self.readers else {}
        self.n_waiting = 0
        if self.writer != thread:
            self.writer, self.n_nested = None, 0


_turns = _Turns()
_waits_before_fork = False


@contextmanager
def reading() -> Iterator[None]:
    """Let nothing of annfeed write in this process within the block; wait for the end of a write.

    Examples
    --------
    >>> with reading(), reading():
    ...     pass
    """
    thread = _turns.begin_read()
    try:
        yield
    finally:
        _turns.end_read(thread)  # a generator may end in another thread


@contextmanager
def writing() -> Iterator[None]:
    """Let nothing of annfeed read or write in other threads of this process within the block; wait for those that do.

    Examples
    --------
    >>> with writing(), reading():
    ...     pass
    """
    _wait_before_fork()
    _turns.begin_write()
    try:
        yield
    finally:
        _turns.end_write()


def _wait_before_fork() -> None:
    """From now on, let no process be forked in the middle of a write: it would have half of it, and may flush that.

    Not earlier than now: h5py's own wait, for its lock, must come after this one, so that h5py must have been imported.
    """
    global _waits_before_fork
    if not _waits_before_fork:
        _waits_before_fork = True
        import h5py  # noqa: F401

        end: list[int] = []
        os.register_at_fork(
            before=lambda: end.append(_turns.begin_read()),
            after_in_parent=lambda: _turns.end_read(end.pop()),
            after_in_child=lambda: _turns.end_read(end.pop()),
        )


os.register_at_fork(after_in_child=lambda: _turns.forget_other_threads())
