"""The limit of open files, for all datasets of the process together: the file read longest ago is closed first.

Only count and order are kept here; sources open and close their files.
"""

from __future__ import annotations

import resource
import weakref
from typing import Any, Protocol

from annfeed.arrays import integer

#: Most open files: a window has a few thousand rows, so more are of no use.
_MOST = 4096


class Closable(Protocol):
    """An object that can be closed, and opens itself again."""

    def set_aside(self) -> None:
        """Close it until it is read again."""


class OpenFiles:
    """The limit of open files of a dataset of several sources; the smallest limit holds for all of them in a process.

    Parameters
    ----------
    limit
        Most open files; None for half of ``ulimit -n``, because sockets and shared memory need descriptors, too. That
        is also the limit for all files of all datasets.

    Examples
    --------
    >>> OpenFiles(2).limit
    2
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = None if limit is None else integer("max_open_files", limit, or_else=" or None")
        _collections.add(self)
        make_room(0)

    @property
    def limit(self) -> int:
        """Most open files of datasets of several sources."""
        most = process_limit()
        return most if self._limit is None else min(self._limit, most)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _collections.add(self)


# The sources that have a file open, the one read last at the end, with whether they belong to several. A forked process
# inherits the descriptors and this record.
_open: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()
_collections: weakref.WeakSet[OpenFiles] = weakref.WeakSet()


def process_limit() -> int:
    """Return the limit for all datasets together, half of ``ulimit -n``."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MOST if soft == resource.RLIM_INFINITY else max(1, min(soft // 2, _MOST))


def make_room(n_more: int = 1, *, for_a_moment: bool = False) -> None:
    """Close the files read longest ago, so that ``n_more`` files can be opened within all limits.

    Files that are open ``for_a_moment``, to read names or obs, count only for the limit of the process.
    """
    _close_oldest(process_limit() - n_more, of_collections=False)
    if for_a_moment:
        return
    limits = _retried(lambda: [collection.limit for collection in _collections])
    if limits:
        _close_oldest(min(limits) - n_more, of_collections=True)


def use(source: Closable, collection: OpenFiles | None) -> None:
    """Count ``source`` as open, and as the one read last."""
    # Each step is atomic under the GIL; a lock could be held by another thread at a fork.
    _open.pop(source, None)
    _open[source] = collection is not None


def forget(source: Closable) -> None:
    """Count ``source`` as closed."""
    _open.pop(source, None)


def _close_oldest(keep: int, *, of_collections: bool) -> None:
    if len(_open) <= max(keep, 0):
        return
    counted = _retried(lambda: [source for source, collected in _open.items() if collected or not of_collections])
    for source in counted[: max(len(counted) - max(keep, 0), 0)]:
        forget(source)
        source.set_aside()


def _retried(work: Any) -> list[Any]:
    while True:
        try:
            return list(work())
        except RuntimeError:  # another thread changed it meanwhile
            continue
