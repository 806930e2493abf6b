"""Progress bars of what takes longer than two seconds: tqdm's, in a terminal or a notebook, not in logs.

``ANNFEED_PROGRESS=0`` in the environment turns all of them off, ``ANNFEED_PROGRESS=1`` shows them in logs too.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeVar

from annfeed.display.text import is_terminal, printable

#: Seconds after which a bar appears.
PATIENCE = 2.0
_SWITCH = "ANNFEED_PROGRESS"
_OFF = {"0", "false", "no", "off"}

T = TypeVar("T")


def are_shown() -> bool:
    """Return whether bars are shown: not in logs, and of several ranks or workers only by the first.

    Examples
    --------
    >>> os.environ["ANNFEED_PROGRESS"] = "0"
    >>> are_shown()
    False
    >>> del os.environ["ANNFEED_PROGRESS"]
    """
    said = os.environ.get(_SWITCH, "").strip().lower()
    if said:
        return said not in _OFF and sys.stderr is not None and not getattr(sys.stderr, "closed", False)
    if os.environ.get("LOCAL_RANK", "0") != "0" or _is_further_worker():
        return False
    return _is_notebook() or is_terminal(sys.stderr)


@contextlib.contextmanager
def progress_bar(what: str, total: int | None, unit: str, *, shown: bool = True) -> Iterator[Callable[[int], object]]:
    """Give a function to call with what was done since the last call.

    Parameters
    ----------
    what
        What takes the time, after "annfeed: ".
    total
        All there is to do, in ``unit``; None if it is not known.
    unit
        "file", "rows", "B".
    shown
        False for no bar in any case.

    Examples
    --------
    >>> with progress_bar("counting", 2, "sheep") as count:
    ...     _ = count(1)
    """
    if not shown or not are_shown():
        yield _nothing
        return
    bar = _LateBar(what, total, unit)
    try:
        yield bar.count
    finally:
        bar.close()


def tracked(items: Iterable[T], what: str, total: int, unit: str) -> Generator[T]:
    """Yield the items, with a bar that counts them.

    Examples
    --------
    >>> list(tracked("ab", "reading", 2, "letters"))
    ['a', 'b']
    """
    with progress_bar(what, total, unit) as count:
        for item in items:
            yield item
            count(1)


def _nothing(_done: int) -> None:
    pass


class _LateBar:
    """Counts, and makes tqdm's bar once `PATIENCE` seconds have passed.

    tqdm's own ``delay`` would not do: its first bar starts a thread in the user's process, and in a notebook each
    makes a widget, also for what takes no time.
    """

    def __init__(self, what: str, total: int | None, unit: str) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._done, self._bar = 0, None
        self._due = time.monotonic() + PATIENCE

    def count(self, n: int) -> None:
        """Add ``n`` to what is done."""
        if self._bar is not None:
            self._bar.update(n)
            return
        self._done += n
        if time.monotonic() >= self._due:
            self._bar = self._made()

    def close(self) -> None:
        """Take the bar away, if there is one."""
        if self._bar is not None:
            self._bar.close()

    def _made(self) -> Any:
        return _bar_class()(
            None,
            printable(f"annfeed: {self._what}"),
            self._total,
            initial=self._done,
            unit=self._unit if self._unit == "B" else f" {self._unit}",
            unit_scale=self._total is None or self._total >= 100_000,
            leave=False,
            disable=False,
        )


def _bar_class() -> Any:
    if _is_notebook():
        from tqdm import notebook

        if getattr(notebook, "IProgress", None) is not None:  # it needs ipywidgets
            return notebook.tqdm
    from tqdm import tqdm

    return tqdm


def _is_notebook() -> bool:
    """Whether output goes to a notebook, whose stderr is no terminal."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return any(base.__name__ == "ZMQInteractiveShell" for base in type(shell).__mro__)  # Colab's is a subclass


def _is_further_worker() -> bool:
    """Whether this is a worker of torch, but not the first."""
    data = sys.modules.get("torch.utils.data")
    worker = None if data is None else data.get_worker_info()
    return worker is not None and worker.id > 0
