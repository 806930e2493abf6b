"""How many threads reading may use in this process. It starts none."""

from __future__ import annotations

import functools
import math
import os

from annfeed.process.cgroups import cgroup_cpus


def reading_threads(threads: int | None) -> int:
    """Return the threads that ``threads`` means here.

    None is this process's share of the cores that `usable_cores` counts: they are divided among the ranks of the
    machine, and a torch worker has one.

    Examples
    --------
    >>> reading_threads(3), reading_threads(None) >= 1
    (3, True)
    """
    if threads is not None:
        return threads
    # Here, so that the cores can be counted without torch.
    import torch

    from annfeed.process.ranks import local_ranks

    # Workers are there to use the cores; each with all of them would only get in the others' way.
    if torch.utils.data.get_worker_info() is not None:
        return 1
    return max(1, usable_cores() // local_ranks())


def usable_cores() -> int:
    """Return the cores that this process may use: of its affinity, and of its container's CPU quota where it is less.

    A quota of 2.5 cores counts as 3.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *_quotas()]))


@functools.cache
def _quotas() -> list[int]:
    # Once: it is asked for with every batch.
    return [math.ceil(quota) for quota in cgroup_cpus()]
