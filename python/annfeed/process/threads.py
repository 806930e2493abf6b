"""The number of threads for reading in this process."""

from __future__ import annotations

import functools
import math
import os

from annfeed.process.cgroups import cgroup_cpus


def reading_threads(threads: int | None) -> int:
    """Return ``threads``; for None the `usable_cores` divided by the ranks on the machine, or 1 in a torch worker.

    Examples
    --------
    >>> reading_threads(3), reading_threads(None) >= 1
    (3, True)
    """
    if threads is not None:
        return threads
    # Imported here, so that `usable_cores` does not need torch.
    import torch

    from annfeed.process.ranks import local_ranks

    # Workers use the cores together: one thread each.
    if torch.utils.data.get_worker_info() is not None:
        return 1
    return max(1, usable_cores() // local_ranks())


def usable_cores() -> int:
    """Return the cores that this process may use: its affinity, or its container's CPU quota, rounded up, if less."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *_quotas()]))


@functools.cache
def _quotas() -> list[int]:
    # Cached, because it is needed for every batch.
    return [math.ceil(quota) for quota in cgroup_cpus()]
