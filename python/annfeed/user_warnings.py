"""`warn`: warnings that point at the user's line, wherever in this package they come from.

A line of the user is one that is neither in this package nor in the standard library or an installed package, such as a
trainer that reads a loader. Threads and workers have no such line on their stack; they are told the one that began the
epoch, and a spawned process the one that sent it a dataset.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple

from annfeed.errors import AnnfeedWarning

_OWN = os.path.dirname(__file__) + os.sep
_STANDARD = tuple(sysconfig.get_paths()[name] + os.sep for name in ("stdlib", "platstdlib"))
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


class Line(NamedTuple):
    """A line of Python, as `warnings.warn_explicit` takes it."""

    filename: str
    number: int
    module: str
    registry: dict[Any, Any]  # the warnings that were given there

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the registry: in another process nothing was given yet."""
        return Line, (self.filename, self.number, self.module, {})


def users_line() -> Line:
    """Return the line of the user that led here.

    Examples
    --------
    >>> users_line().filename.startswith("<doctest")
    True
    """
    known: Line | None = getattr(_here, "line", None)
    if known is not None:
        return known
    frame: FrameType | None = sys._getframe(1)
    outside = None
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(_OWN):
            # A spawned process begins with a line in "<string>".
            standard = name.startswith((*_STANDARD, "<frozen ")) or (name == "<string>" and _of_process)
            if not standard and not any(part in name for part in _INSTALLED):
                return _line_of(frame)
            outside = outside or frame
        frame = frame.f_back
    if _of_process:
        return _of_process[-1]
    return _line_of(outside or sys._getframe(1))


@contextmanager
def on_behalf_of(line: Line) -> Iterator[None]:
    """Let warnings of this thread in the block point at ``line``."""
    before = getattr(_here, "line", None)
    _here.line = line
    try:
        yield
    finally:
        _here.line = before


def is_sent_by(line: Line) -> None:
    """Let warnings of this process that have no line of the user here point at ``line``."""
    _of_process[:] = [line]


def warn(message: str, category: type[Warning] = AnnfeedWarning) -> None:
    """Give a warning that points at the user's line.

    Examples
    --------
    >>> with warnings.catch_warnings(record=True) as given:
    ...     warnings.simplefilter("always")
    ...     warn("slow")
    >>> given[0].category.__name__
    'AnnfeedWarning'
    """
    filename, number, module, registry = users_line()
    warnings.warn_explicit(message, category, filename, number, module, registry)


def _line_of(frame: FrameType) -> Line:
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    return Line(frame.f_code.co_filename, frame.f_lineno, str(frame.f_globals.get("__name__", "<unknown>")), registry)


#: The line that this thread works for.
_here = threading.local()
#: The line, if any, that sent a dataset to this process, which was spawned for it.
_of_process: list[Line] = []
