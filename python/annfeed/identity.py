"""What tells one file from another, as the Rust core sees it (``rust/matrix/file.rs``), and which changes were our own.

A file that changed is stale. Where it was annfeed that added to it, its matrices are as they were, and whoever reads
them goes on with the new identity.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol
from weakref import WeakSet

Identity = tuple[int, int, int, int]


class Holder(Protocol):
    """Something that keeps a file open with h5py, which would not let this process write to it."""

    def release(self, path: str) -> None:
        """Close the file at ``path`` until it is read again."""


#: Those that must let go before a write.
holders: WeakSet[Holder] = WeakSet()

_writing = threading.RLock()
_followers: dict[Identity, Identity] = {}


def file_identity(path: str) -> Identity | None:
    """Return device, inode, size and time of the last change (ns) of the file at ``path``; None where there is none.

    Examples
    --------
    >>> file_identity("/no/such/file") is None
    True
    """
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


@contextmanager
def own_write(path: str) -> Iterator[None]:
    """Note that the change which the file undergoes meanwhile leaves its matrices as they are; one write at a time."""
    with _writing:
        for holder in list(holders):
            holder.release(os.path.abspath(path))
        before = file_identity(path)
        try:
            yield
        finally:
            after = file_identity(path)
            if before is not None and after is not None and before != after:
                _followers[before] = after


def current_identity(identity: Identity) -> Identity:
    """Return what ``identity`` became by writes of our own.

    Examples
    --------
    >>> current_identity((1, 2, 3, 4))
    (1, 2, 3, 4)
    """
    while identity in _followers:
        identity = _followers[identity]
    return identity


def wait_for_own_write() -> None:
    """Return when no write of our own is under way."""
    with _writing:
        pass


def n_own_writes() -> int:
    """Return how many there were: worker processes of before do not know of those after."""
    return len(_followers)
