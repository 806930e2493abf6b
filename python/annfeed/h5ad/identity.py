"""What tells one file from another, as the Rust core sees it (``rust/matrix/file.rs``), and which changes were our own.

A file that changed is stale. Where it was annfeed that added to it, its matrices are as they were, and whoever knew it
before goes on with the new identity. Only who knew it then does so: who comes later takes the file as it is, also where
it looks like one that was written over before, as a copy that was put back does.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol
from weakref import WeakSet

from annfeed.errors import StaleFileError

Identity = tuple[int, int, int, int]


class Holder(Protocol):
    """Something that keeps a file open with h5py, which would not let this process write to it."""

    def release(self, path: str) -> None:
        """Close the file at ``path`` until it is read again."""


#: Those that must let go before a write.
holders: WeakSet[Holder] = WeakSet()

_writing = threading.RLock()
#: What each write of this process made of which file, in their order.
_writes: list[tuple[Identity, Identity]] = []


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


class KnownFile:
    """A file as somebody knows it, with the changes that are our own.

    Pickled it takes along what it became by now; the process that gets it has written nothing.

    Parameters
    ----------
    path
        The file.
    identity
        What it is; None where it is not known yet.
    n_writes
        How many writes of our own there were before ``identity`` was found.

    Examples
    --------
    >>> KnownFile("/no/such/file", (1, 2, 3, 4)).now
    (1, 2, 3, 4)
    """

    def __init__(self, path: str, identity: Identity | None = None, n_writes: int | None = None) -> None:
        self.path = path
        # One value, so that threads see both or neither.
        self._known = identity, len(_writes) if n_writes is None else n_writes

    @classmethod
    def at(cls, path: str) -> KnownFile:
        """Return the file that is at ``path`` at the moment.

        Examples
        --------
        >>> KnownFile.at("/no/such/file").now is None
        True
        """
        n_writes = len(_writes)
        return cls(path, file_identity(path), n_writes)

    @property
    def now(self) -> Identity | None:
        """What the file is, unless somebody else changed it."""
        identity, n_seen = self._known
        n_writes = len(_writes)
        if n_seen < n_writes:
            for before, after in _writes[n_seen:n_writes]:
                identity = after if before == identity else identity
            self._known = identity, n_writes
        return identity

    def check(self, found: Identity | None = None) -> None:
        """Refuse a file that somebody changed; one that is not known yet is whatever it is.

        Parameters
        ----------
        found
            What it is; None to look.

        Raises
        ------
        StaleFileError
            If it is not the file that is known.
        """
        if self.now is None or (file_identity(self.path) if found is None else found) == self.now:
            return
        wait_for_own_write()  # of which one was under way, maybe
        if (file_identity(self.path) if found is None else found) == self.now:
            return
        raise StaleFileError(
            f"{self.path}: the file changed since the dataset was made. Make the dataset again to read the new file"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "identity": self.now}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Know it as of now."""
        self.path, self._known = state["path"], (state["identity"], len(_writes))


@contextmanager
def own_write(path: str) -> Iterator[None]:
    """Note that the change which the file undergoes meanwhile leaves its matrices as they are; one write at a time."""
    with _writing:
        for holder in list(holders):
            holder.release(path)
        before = file_identity(path)
        try:
            yield
        finally:
            after = file_identity(path)
            if before is not None and after is not None and before != after:
                _writes.append((before, after))


def wait_for_own_write() -> None:
    """Return when no write of our own is under way."""
    with _writing:
        pass


def n_own_writes() -> int:
    """Return how many there were: worker processes of before do not know of those after."""
    return len(_writes)
