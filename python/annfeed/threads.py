"""How many threads reading may use in this process. It starts none."""

from __future__ import annotations

import os

import torch


def reading_threads(threads: int | None) -> int:
    """Return the threads that ``threads`` means here: None is one per core of this process, and one in a torch worker.

    Examples
    --------
    >>> reading_threads(3), reading_threads(None) >= 1
    (3, True)
    """
    if threads is not None:
        return threads
    # Workers are there to use the cores; each with all of them would only get in the others' way.
    if torch.utils.data.get_worker_info() is not None:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
