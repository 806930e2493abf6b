"""Where a measurement was taken: processor, memory, and the versions of what was compared."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import time
from pathlib import Path

PACKAGES = ["annfeed", "torch", "numpy", "scipy", "h5py", "anndata", "scdataset", "annbatch", "zarrs"]

_VERSIONS = """
import json, platform
from importlib.metadata import PackageNotFoundError, version
def found(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return "from source" if name == "annfeed" else None
print(json.dumps({"python": platform.python_version()} | {name: found(name) for name in %r}))
"""


def describe(python: Path) -> dict[str, object]:
    """Return the machine, and the versions that ``python`` imports (None where not installed)."""
    answer = subprocess.run([python, "-c", _VERSIONS % PACKAGES], stdout=subprocess.PIPE, text=True, check=True)
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9),
        "system": platform.system(),
        "versions": json.loads(answer.stdout),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


class OthersMeter:
    """How much of the processor other programs took since the meter was made: what makes rates, not ratios, move."""

    def __init__(self) -> None:
        self._began, self._busy, self._own = time.perf_counter(), _busy_seconds(), _own_seconds()

    def share(self) -> float | None:
        """Share of all cores from 0 to 1; None where the system does not tell."""
        busy, own = _busy_seconds(), _own_seconds()
        if self._busy is None or busy is None:
            return None
        seconds = (time.perf_counter() - self._began) * (os.cpu_count() or 1)
        return round(max(0.0, (busy - self._busy) - (own - self._own)) / seconds, 3)


def _busy_seconds() -> float | None:
    """Of all cores since boot: user, nice, system, irq, softirq, steal (proc(5))."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    ticks = [int(value) for value in stat.read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    """Of this process and its children that ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)
