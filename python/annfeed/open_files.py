"""How many files one dataset keeps open: at most so many, the one that was read longest ago is closed first.

Only the count and the order; what opening and closing mean is the source's (source.py).
"""

from __future__ import annotations

import resource
from typing import Any, Protocol

#: More are never of use: a window touches a few thousand rows.
_MOST = 4096


class Closable(Protocol):
    """What can be closed and opens itself again."""

    def set_aside(self) -> None:
        """Close it until it is read again."""


class OpenFiles:
    """The sources of a dataset that have a file open in this process.

    Pickled it starts empty, as the process that gets it has opened nothing. Forked it keeps the parent's files, whose
    descriptors the child has, too.

    Parameters
    ----------
    limit
        So many at most; None for half of what the process may open (``ulimit -n``), as sockets and shared memory need
        descriptors as well.

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
        if limit is None:
            soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            limit = _MOST if soft == resource.RLIM_INFINITY else max(1, min(soft // 2, _MOST))
        self.limit = _positive(limit)
        self._open: dict[Closable, None] = {}

    def use(self, source: Closable) -> None:
        """Count ``source`` as the one read last, and close what is then too much."""
        # Several threads may read. Each step is atomic under the GIL; a lock could be held by another thread at a fork.
        self._open.pop(source, None)
        self._open[source] = None
        while len(self._open) > self.limit:
            try:
                oldest = next(iter(self._open))
            except (StopIteration, RuntimeError):  # another thread was here meanwhile
                continue
            self._open.pop(oldest, None)
            oldest.set_aside()

    def forget(self, source: Closable) -> None:
        """Count ``source`` as closed."""
        self._open.pop(source, None)

    def __len__(self) -> int:
        """Return how many are open."""
        return len(self._open)

    def __getstate__(self) -> dict[str, Any]:
        return {"limit": self.limit, "_open": {}}


def _positive(limit: Any) -> int:
    if isinstance(limit, bool) or not hasattr(limit, "__index__"):
        raise TypeError(f"max_open_files is {limit!r}, where a positive integer or None was expected")
    number = int(limit)
    if number < 1:
        raise ValueError(f"max_open_files is {number}, where a positive integer or None was expected")
    return number
