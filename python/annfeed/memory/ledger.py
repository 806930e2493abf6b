"""Accounts of cache="auto": what a process and those that it started hold together.

They share a small file without a name, with a record of each process.
A process leases bytes before it holds them. Forked processes inherit the file; spawned ones get it with what they are
given. What a process leased that has ended is free again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import threading
from collections.abc import Iterator
from multiprocessing import context
from typing import Any

from annfeed.process.spawning import is_running, nameless_file, sent

_RECORD = struct.Struct("=qq")


class Ledger:
    """Bytes that the processes of a tree may hold together, ``total`` at most, and how many each has leased.

    Examples
    --------
    >>> ledger = Ledger(100)
    >>> ledger.lease(70), ledger.lease(130), ledger.lease(20)
    (70, 100, 20)
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._fd = nameless_file("annfeed-ledger")

    def lease(self, wanted: int) -> int:
        """Lease ``wanted`` bytes for this process in all, or as many as others leave; return how many they are."""
        with self._locked():
            others = {pid: leased for pid, leased in self._records().items() if pid != os.getpid() and is_running(pid)}
            granted = max(0, min(wanted, self.total - sum(others.values())))
            records = b"".join(_RECORD.pack(*record) for record in {**others, os.getpid(): granted}.items())
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, records, 0)
            return granted

    def leased(self) -> dict[int, int]:
        """Return the bytes that each process has leased, by its id."""
        with self._locked():
            return {pid: leased for pid, leased in self._records().items() if is_running(pid)}

    def _records(self) -> dict[int, int]:
        written = os.pread(self._fd, os.fstat(self._fd).st_size, 0)
        return dict(_RECORD.iter_unpack(written[: len(written) // _RECORD.size * _RECORD.size]))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        # The file's lock is of the process, and ends with it; among its threads it does not hold.
        with _threads:
            fcntl.lockf(self._fd, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to a process that is being started; anywhere else there is nothing to share, and None arrives."""
        process = context.get_spawning_popen()
        if process is None:
            return _nothing, ()
        # A duplicate, as a process may be given several datasets.
        return _arrived, (sent(os.dup(self._fd), process), self.total)


def _nothing() -> None:
    return None


def _arrived(fd: Any, total: int) -> Ledger:
    ledger = Ledger.__new__(Ledger)
    ledger.total, ledger._fd = total, fd.detach()
    return ledger


def _forked() -> None:
    global _threads
    _threads = threading.Lock()  # a thread that is not here may have held the other one


_threads = threading.Lock()
os.register_at_fork(after_in_child=_forked)
