"""What tells one file from another, as the Rust core sees it (``rust/file.rs``), and which changes were our own.

A file that changed is stale. Where it was annfeed that wrote to it, all but the element that it wrote is as it was, and
whoever knew the file before goes on with the new identity, and is told of an element that was replaced. Only who knew
it then does so: who comes later takes the file as it is, also where it looks like one that was written over before, as
a copy that was put back does.
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
    """Something that keeps a file open with h5py, which would not let this process write to it."""

    def release(self, path: str) -> None:
        """Close the file at ``path`` until it is read again; nothing reads meanwhile."""


#: Those that must let go before a write.
holders: WeakSet[Holder] = WeakSet()

#: What each write of this process made of which file, in their order, and the element that it wrote.
_writes: list[tuple[Identity, Identity, str | None]] = []


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
        # One value, so that threads see all or nothing: the number of the last write of each element, too.
        self._known: tuple[Identity | None, int, dict[str, int]]
        self._known = identity, len(_writes) if n_writes is None else n_writes, {}

    @classmethod
    def at(cls, path: str) -> KnownFile:
        """Return the file that is at ``path`` at the moment.

        Examples
        --------
        >>> KnownFile.at("/no/such/file").now is None
        True
        """
        with reading():
            return cls(path, file_identity(path), len(_writes))

    @property
    def now(self) -> Identity | None:
        """What the file is, unless somebody else changed it."""
        return self._up_to_date()[0]

    def is_replaced(self, elem: str, since: int = 0) -> bool:
        """Whether annfeed replaced an element after it had made ``since`` writes, and the file was known then.

        Examples
        --------
        >>> KnownFile("/no/such/file", (1, 2, 3, 4)).is_replaced("obsm/X_pca")
        False
        """
        return self._up_to_date()[1].get(elem, -1) >= since

    def check_kept(self, elem: str, since: int = 0) -> None:
        """Refuse an element that annfeed replaced.

        Raises
        ------
        StaleFileError
            If it did.
        """
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
        """Know it as of now."""
        n_writes = len(_writes)
        self.path = state["path"]
        self._known = state["identity"], n_writes, dict.fromkeys(state["replaced"], 0)


@contextmanager
def own_write(path: str, elem: str) -> Iterator[None]:
    """Note that the change which the file undergoes meanwhile leaves all but one element as it is.

    Nothing of annfeed reads in this process meanwhile, and files that it has open with h5py are closed.

    Parameters
    ----------
    path
        The file.
    elem
        What is written, new or in place of another; an exception means that the old one is as it was.
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
                # Within one tick of the file system's clock: the change must show.
                os.utime(path, ns=(os.stat(path).st_atime_ns, after[3] + 1))
                after = file_identity(path)
            if before is not None and after is not None and before != after:
                _writes.append((before, after, written))


def n_own_writes() -> int:
    """Return how many there were: worker processes of before do not know of those after."""
    return len(_writes)
