"""How much memory decoded rows may take: what users write, what "auto" means on this machine, and leases of it.

The processes that share "auto" keep account in memory/ledger.py; the rows are held by the Rust core.
"""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import Any

import torch

from annfeed._core import Budget
from annfeed.memory.ledger import Ledger
from annfeed.process.cgroups import cgroup_free
from annfeed.process.ranks import local_ranks

#: Share of the memory that is free when the first dataset of a process is made, with ``cache="auto"``.
AUTO_SHARE = 0.5

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
_SIZE = re.compile(r"^\s*(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[KMGT]?I?)B?\s*$", re.IGNORECASE)


def cache_budget(cache: Any) -> int:
    """Return the bytes that ``cache`` means: a number, a text like "4GiB" or "500 MB", 0 for none, or "auto".

    "auto" is half of the memory that is free now, within the limits of this process's cgroup.

    Examples
    --------
    >>> cache_budget("1.5GiB"), cache_budget(0)
    (1610612736, 0)
    """
    if isinstance(cache, bool) or not isinstance(cache, str | int):
        raise TypeError(f"cache is {cache!r}; expected bytes, a text like '4GiB', or 'auto'")
    if isinstance(cache, int):
        if cache < 0:
            raise ValueError(f"cache is {cache}; expected a number of bytes from 0 on")
        return int(cache)
    if _is_auto(cache):
        return int(free_memory() * AUTO_SHARE)
    match = _SIZE.match(cache)
    if match is None:
        raise ValueError(f"cache is {cache!r}; expected bytes, a text like '4GiB', or 'auto'")
    return int(float(match["number"]) * _UNITS[match["unit"].upper()])


def process_budget(cache: Any) -> Budget:
    """Return the budget of this process: for "auto" one that all its datasets share.

    A number is divided among the workers of a torch loader. What "auto" allows is one budget of the process tree: it is
    settled when the first dataset is made, of the ranks on this machine each has its share, and the processes that are
    forked or started from there lease from it what they come to hold (`lease_ahead`).

    Examples
    --------
    >>> process_budget("1KiB").limit, process_budget("auto") is process_budget("auto")
    (1024, True)
    """
    global _auto
    worker = torch.utils.data.get_worker_info()
    parts = 1 if worker is None else worker.num_workers
    if not _is_auto(cache):
        return Budget(cache_budget(cache) // parts)
    if _auto is None or _auto[0] != os.getpid():
        _auto = os.getpid(), Budget.movable(_ledger_of_tree().total // parts)
    return _auto[1]


def lease_ahead() -> None:
    """Lease memory for what the next window may keep of the budget of "auto", and give back what is not needed."""
    budget, ledger = process_budget("auto"), _ledger_of_tree()
    step = max(ledger.total // 64, min(_LEAST_LEASE, ledger.total // 8))
    room = budget.limit - budget.held
    with _leasing:
        if room < step:
            budget.move_limit(ledger.lease(budget.held + 2 * step))
        elif room > 4 * step:
            # Lowered first, so that nothing more is kept; what was kept meanwhile counts.
            budget.move_limit(budget.held + 2 * step)
            budget.move_limit(ledger.lease(max(budget.limit, budget.held)))


class SharedBudget:
    """The budget of all matrices of one dataset, so that ``cache="4GiB"`` is 4 GiB for all its files together.

    Pickled or forked it starts anew, as memory is of one process; but the budget of "auto" is that of the process tree.

    Examples
    --------
    >>> shared = SharedBudget("1KiB")
    >>> shared.of_process() is shared.of_process()
    True
    """

    def __init__(self, cache: Any) -> None:
        cache_budget(cache)
        self._cache = cache
        self._made: tuple[int, Budget] | None = None

    def of_process(self) -> Budget:
        """Return the budget of this process."""
        if self._made is None or self._made[0] != os.getpid():
            self._made = os.getpid(), process_budget(self._cache)
        return self._made[1]

    def make_room(self) -> None:
        """Look for memory for the rows that are to be read, where it is shared with other processes."""
        if _is_auto(self._cache):
            lease_ahead()

    def __getstate__(self) -> dict[str, Any]:
        return {"_cache": self._cache, "_made": None, "_tree": _ledger_of_tree() if _is_auto(self._cache) else None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        global _ledger
        tree = state.pop("_tree")
        self.__dict__.update(state)
        if _ledger is None:
            _ledger = tree


def _is_auto(cache: Any) -> bool:
    return isinstance(cache, str) and cache.strip().lower() == "auto"


def _ledger_of_tree() -> Ledger:
    global _ledger
    if _ledger is None:
        _ledger = Ledger(cache_budget("auto") // local_ranks())
    return _ledger


def _forked() -> None:
    global _leasing
    _leasing = threading.Lock()  # a thread that is not here may have held the other one


#: What "auto" allows in the process tree, from the first dataset on; forked and spawned processes have their parent's.
_ledger: Ledger | None = None
#: This process's budget of it, and the process: a forked one makes its own.
_auto: tuple[int, Budget] | None = None
#: Bytes leased at once, unless that is much of the whole: about a window of decoded rows.
_LEAST_LEASE = 64 << 20
_leasing = threading.Lock()
os.register_at_fork(after_in_child=_forked)


def free_memory() -> int:
    """Return the bytes that this process may still take: of the machine, and of its cgroup where that is less.

    The source of both figures is Linux' ``/proc/meminfo`` (MemAvailable) and cgroup v2 and v1 limits; elsewhere it is
    the free physical memory that the system reports.
    """
    return max(0, min([_machine_free(), *cgroup_free()]))


def _machine_free() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    names = os.sysconf_names
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in names else "SC_PHYS_PAGES"
    return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
