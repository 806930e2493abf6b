"""Progress bars of what takes longer than two seconds: tqdm's, in a terminal or a notebook, not in logs.

``ANNFEED_PROGRESS=0`` in the environment turns all of them off, ``ANNFEED_PROGRESS=1`` shows them in logs too.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeVar

from annfeed.display.text import printable

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
        return said not in _OFF
    if os.environ.get("LOCAL_RANK", "0") != "0" or _is_further_worker():
        return False
    return _is_notebook() or bool(sys.stderr is not None and sys.stderr.isatty())


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
    with _bar_class()(
        None,
        printable(f"annfeed: {what}"),
        total,
        unit=unit if unit == "B" else f" {unit}",
        unit_scale=total is None or total >= 100_000,
        delay=PATIENCE,
        leave=False,
        disable=False,
    ) as bar:
        yield bar.update


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
    return type(shell).__name__ == "ZMQInteractiveShell"


def _is_further_worker() -> bool:
    """Whether this is a worker of torch, but not the first."""
    data = sys.modules.get("torch.utils.data")
    worker = None if data is None else data.get_worker_info()
    return worker is not None and worker.id > 0
