"""Where a measurement was taken: processor, memory, and the versions of what was compared."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path

PACKAGES = ["annfeed", "torch", "numpy", "scipy", "h5py", "anndata", "scdataset", "annbatch", "zarrs"]

_VERSIONS = """
import json, platform
from importlib.metadata import PackageNotFoundError, version
def found(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None
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
