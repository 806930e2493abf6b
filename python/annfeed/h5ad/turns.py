"""A lock for annfeed's reads and writes in this process: many threads may read, or one may write.

HDF5 does not open a file for writing that the same process has open, and a file that is opened during a write is
incomplete. Other processes and packages do not take part.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Turns:
    """The threads that read and the one that writes; a thread may nest both."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.readers: dict[int, int] = {}
        self.writer: int | None = None
        self.n_nested = 0
        self.n_waiting = 0

    def begin_read(self) -> int:
        thread = threading.get_ident()
        with self.changed:
            # Threads that already read go on; others let a waiting writer go first.
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
        """Reset, in a forked process, which has only one thread."""
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
    """Hold the lock for reading: wait for a write to end, and let none begin in the block.

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
    """Hold the lock for writing: wait for reads and writes of other threads, and let none begin in the block.

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
    """From now on, delay forks until a write has ended: the new process would have half of it, and might flush that.

    h5py must be imported before, so that its own wait for its lock comes after this one.
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
