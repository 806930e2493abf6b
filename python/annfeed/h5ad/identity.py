"""The identity of a file (as in rust/file/), and which of its changes annfeed made itself.

A file that changed is stale. If annfeed itself wrote to it, only one element has changed: a `KnownFile` of before
goes on with the new identity, and refuses that element if it was replaced. A `KnownFile` that is made later takes the
file as it is, even if it equals an earlier state, as a restored copy does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol
from weakref import WeakSet

from annfeed.errors import StaleFileError
from annfeed.h5ad.turns import reading, writing

Identity = tuple[int, int, int, int]


class Holder(Protocol):
    """An object that keeps a file open with h5py, so that this process cannot write to it."""

    def release(self, path: str) -> None:
        """Close the file at ``path`` until it is read again; no thread reads meanwhile."""


#: Objects that must close a file before a write.
holders: WeakSet[Holder] = WeakSet()

#: The writes of this process in their order: identity before and after, and the written element.
_writes: list[tuple[Identity, Identity, str | None]] = []


def file_identity(path: str) -> Identity | None:
    """Return device, inode, size and modification time (ns) of the file at ``path``; None if there is none.

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
    """The identity of a file that an object has read, updated by annfeed's own writes.

    It pickles with the current identity; in the other process there are no writes yet.

    Parameters
    ----------
    path
        The file.
    identity
        Its identity; None if unknown.
    n_writes
        Number of annfeed's writes before ``identity`` was found.

    Examples
    --------
    >>> KnownFile("/no/such/file", (1, 2, 3, 4)).now
    (1, 2, 3, 4)
    """

    def __init__(self, path: str, identity: Identity | None = None, n_writes: int | None = None) -> None:
        self.path = path
        # One tuple, so that threads see a consistent state, with the number of the last write of each element.
        self._known: tuple[Identity | None, int, dict[str, int]]
        self._known = identity, len(_writes) if n_writes is None else n_writes, {}

    @classmethod
    def at(cls, path: str) -> KnownFile:
        """Return the file that is at ``path`` now.

        Examples
        --------
        >>> KnownFile.at("/no/such/file").now is None
        True
        """
        with reading():
            return cls(path, file_identity(path), len(_writes))

    @property
    def now(self) -> Identity | None:
        """The identity that the file has now, if only annfeed changed it."""
        return self._up_to_date()[0]

    def is_replaced(self, elem: str, since: int = 0) -> bool:
        """Whether annfeed replaced an element in this file after its first ``since`` writes.

        Examples
        --------
        >>> KnownFile("/no/such/file", (1, 2, 3, 4)).is_replaced("obsm/X_pca")
        False
        """
        return self._up_to_date()[1].get(elem, -1) >= since

    def check_kept(self, elem: str, since: int = 0) -> None:
        """Raise StaleFileError if annfeed replaced an element after its first ``since`` writes."""
        if self.is_replaced(elem, since):
            raise StaleFileError(
                f"{self.path}: '{elem}' was replaced by write_obsm or write_obs with overwrite=True while a dataset "
                "read it. Make the dataset again to read the new one"
            )

    def _up_to_date(self) -> tuple[Identity | None, dict[str, int]]:
        identity, n_seen, replaced = self._known
        n_writes = len(_writes)
        if n_seen < n_writes:
            for number in range(n_seen, n_writes):
                before, after, elem = _writes[number]
                if before == identity:
                    identity = after
                    if elem is not None:
                        replaced = {**replaced, elem: number}
            self._known = identity, n_writes, replaced
        return identity, replaced

    def check(self, found: Identity | None = None) -> None:
        """Raise StaleFileError if the file has another identity than the known one; any file passes if none is known.

        ``found`` is its identity now; None to look it up.
        """
        with reading():
            if self.now is None or (file_identity(self.path) if found is None else found) == self.now:
                return
        raise StaleFileError(
            f"{self.path}: the file changed since the dataset was made. Make the dataset again to read the new file"
        )

    def __getstate__(self) -> dict[str, Any]:
        identity, replaced = self._up_to_date()
        return {"path": self.path, "identity": identity, "replaced": list(replaced)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        n_writes = len(_writes)
        self.path = state["path"]
        self._known = state["identity"], n_writes, dict.fromkeys(state["replaced"], 0)


@contextmanager
def own_write(path: str, elem: str) -> Iterator[None]:
    """Write to a file in a block, and record that only ``elem`` changed (nothing, if the block raises).

    No other thread of annfeed reads during the block, and files that annfeed has open with h5py are closed before.
    """
    with writing():
        for holder in list(holders):
            holder.release(path)
        before = file_identity(path)
        written = None
        try:
            yield
            written = elem
        finally:
            after = file_identity(path)
            if after is not None and after == before and written is not None:
                # Within one tick of the file system's clock: the identity must change.
                os.utime(path, ns=(os.stat(path).st_atime_ns, after[3] + 1))
                after = file_identity(path)
            if before is not None and after is not None and before != after:
                _writes.append((before, after, written))


def n_own_writes() -> int:
    """Return the number of annfeed's writes in this process."""
    return len(_writes)
