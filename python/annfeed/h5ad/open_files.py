"""How many files this process keeps open: at most so many, the one that was read longest ago is closed first.

Only the count and the order, of all datasets of the process together; what opening and closing mean is the source's
(sources/file.py).
"""

from __future__ import annotations

import resource
import weakref
from typing import Any, Protocol

from annfeed.user_arrays import positive_int

#: More are never of use: a window touches a few thousand rows.
_MOST = 4096


class Closable(Protocol):
    """What can be closed and opens itself again."""

    def set_aside(self) -> None:
        """Close it until it is read again."""


class OpenFiles:
    """A collection's word on how many files of collections may be open in a process: the smallest holds for all.

    Pickled and unpickled, it holds in the process that gets it, which has opened nothing.

    Parameters
    ----------
    limit
        So many at most; None for half of what the process may open (``ulimit -n``), as sockets and shared memory need
        descriptors as well. No more than that are open whatever is said, files of datasets on one file included.

    Raises
    ------
    TypeError
        If it is no integer.
    ValueError
        If it is below 1.

    Examples
    --------
    >>> OpenFiles(2).limit
    2
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = None if limit is None else positive_int("max_open_files", limit, " or None")
        _collections.add(self)
        make_room(0)

    @property
    def limit(self) -> int:
        """Files of collections that may be open as far as this one is concerned."""
        most = process_limit()
        return most if self._limit is None else min(self._limit, most)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _collections.add(self)


# The sources that have a file open, the one read last at the end, and whether it is a collection's. A forked process
# has the parent's descriptors, and their places here, too.
_open: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()
_collections: weakref.WeakSet[OpenFiles] = weakref.WeakSet()


def process_limit() -> int:
    """Return how many files all datasets may have open together: half of what the process may open (``ulimit -n``)."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MOST if soft == resource.RLIM_INFINITY else max(1, min(soft // 2, _MOST))


def make_room(n_more: int = 1, *, for_a_moment: bool = False) -> None:
    """Close what was read longest ago, so that ``n_more`` files can be opened within all limits.

    Files that are open ``for_a_moment``, to read names or obs, count only in what the process may open.
    """
    _close_oldest(process_limit() - n_more, of_collections=False)
    if for_a_moment:
        return
    limits = _retried(lambda: [collection.limit for collection in _collections])
    if limits:
        _close_oldest(min(limits) - n_more, of_collections=True)


def use(source: Closable, collection: OpenFiles | None) -> None:
    """Count ``source`` as open, and as the one read last."""
    # Several threads may read. Each step is atomic under the GIL; a lock could be held by another thread at a fork.
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
        except RuntimeError:  # another thread was here meanwhile
            continue
