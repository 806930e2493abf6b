"""Stopping a read that runs in another thread: a signal reaches the main thread only.

A thread that reads for somebody says here by what it can be stopped; sources look here before they read.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from annfeed._core import Cancel

_here = threading.local()


def current() -> Cancel | None:
    """Return what stops the reads of this thread; None where nothing but a signal does."""
    return getattr(_here, "cancel", None)


@contextmanager
def cancelled_by(cancel: Cancel) -> Iterator[None]:
    """Let ``cancel`` stop the reads of this thread within the block.

    Examples
    --------
    >>> with cancelled_by(stop := Cancel()):
    ...     current() is stop
    True
    """
    _here.cancel = cancel
    try:
        yield
    finally:
        _here.cancel = None
