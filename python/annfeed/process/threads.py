"""The number of threads for reading in this process, and of reads in flight."""

from __future__ import annotations

import functools
import math
import os
from typing import Any

from annfeed.arrays import integer
from annfeed.process.cgroups import cgroup_cpus

#: Each read in flight is a thread, which sleeps while it waits.
MOST_IO_DEPTH = 1024


def reading_threads(threads: int | None) -> int:
    """Return ``threads``; for None the share of this rank in the usable cores, or 1 in a torch worker.

    The cores of the affinity are shared with the ranks that have the same, those of a quota with all on the machine.

    Examples
    --------
    >>> reading_threads(3), reading_threads(None) >= 1
    (3, True)
    """
    if threads is not None:
        return threads
    # Imported here, so that `usable_cores` does not need torch.
    import torch

    from annfeed.process.ranks import local_ranks, ranks_of_these_cores

    # Workers use the cores together: one thread each.
    if torch.utils.data.get_worker_info() is not None:
        return 1
    shares = [_affinity() // ranks_of_these_cores(), *(quota // local_ranks() for quota in _quotas())]
    return max(1, min(shares))


def reads_in_flight(io_depth: Any) -> int | None:
    """Return the reads in flight that ``io_depth`` means; None where the core decides.

    Raises
    ------
    TypeError
        If it is neither "auto" nor a whole number.
    ValueError
        If it is below 0.

    Examples
    --------
    >>> reads_in_flight(64), reads_in_flight("auto")
    (64, None)
    """
    if isinstance(io_depth, str) and io_depth == "auto":
        return None
    return integer("io_depth", io_depth, 0, MOST_IO_DEPTH, or_else=", or 'auto'")


def usable_cores() -> int:
    """Return the cores that this process may use: its affinity, or its container's CPU quota, rounded up, if less."""
    return max(1, min([_affinity(), *_quotas()]))


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _quotas() -> list[int]:
    # Cached, because it is needed for every batch.
    return [math.ceil(quota) for quota in cgroup_cpus()]
