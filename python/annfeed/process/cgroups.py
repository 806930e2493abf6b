"""What Linux' control groups leave to this process: the limits of containers, Slurm jobs and systemd units.

Reads files of the kernel only. memory/budget.py uses the figures of memory, process/threads.py those of cores.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

#: Where the hierarchies of version 2 and 1 are mounted, and the file that tells this process's groups.
ROOT, MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


class _Memory(NamedTuple):
    """Where a version of cgroups tells about memory."""

    folder: str
    controller: str
    limit: str
    used: str
    file_pages: tuple[str, ...]


_MEMORY = (
    _Memory("", "", "memory.max", "memory.current", ("active_file", "inactive_file")),
    _Memory(
        "memory",
        "memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        ("total_active_file", "total_inactive_file"),
    ),
)

#: Folder and controller of each version's files about cores; version 1 mounts "cpu" under either name.
_CPU = (("", ""), ("cpu", "cpu"), ("cpu,cpuacct", "cpu"))


def cgroup_free(root: Path = ROOT, membership: Path = MEMBERSHIP) -> list[int]:
    """Return the bytes that each limit leaves, of the group of this process and of those around it; [] without limits.

    Slurm and systemd put a process into a group far below the root; a container sees its own group as the root.

    ``root`` is where the hierarchies of version 2 and 1 are mounted, ``membership`` the file that tells its groups.
    """
    free = []
    for version in _MEMORY:
        for folder in _folders(root / version.folder, version.controller, membership):
            try:
                left = int((folder / version.limit).read_text()) - int((folder / version.used).read_text())
            except (OSError, ValueError):  # no such group, or the limit is "max"
                continue
            free.append(left + _reclaimable(folder / "memory.stat", version.file_pages))
    return free


def cgroup_cpus(root: Path = ROOT, membership: Path = MEMBERSHIP) -> list[float]:
    """Return the cores' worth of time that each quota allows, of this process's group and those around it.

    It is what ``docker run --cpus`` and Kubernetes' CPU limits set; the process's affinity does not show it.
    """
    quotas = []
    for name, controller in _CPU:
        for folder in _folders(root / name, controller, membership):
            try:
                if controller:
                    texts = [(folder / f"cpu.cfs_{kind}_us").read_text() for kind in ("quota", "period")]
                else:
                    texts = (folder / "cpu.max").read_text().split()
                quota, period = map(int, texts)
            except (OSError, ValueError):  # no such group, or the quota is "max"
                continue
            if quota > 0 and period > 0:  # -1: no quota
                quotas.append(quota / period)
    return quotas


def _folders(root: Path, controller: str, membership: Path) -> Iterator[Path]:
    """The folders of this process's group in a hierarchy, and of the groups around it."""
    group = PurePosixPath(_groups(membership).get(controller, "/"))
    for around in (group, *group.parents):
        yield root / str(around).lstrip("/")


def _groups(membership: Path) -> dict[str, str]:
    """This process's group in each hierarchy, by controller; version 2 has the one without a name."""
    try:
        lines = [line.split(":", 2) for line in membership.read_text().splitlines()]
    except OSError:
        return {}
    return {name: line[2] for line in lines if len(line) == 3 for name in line[1].split(",")}


def _reclaimable(stat: Path, keys: tuple[str, ...]) -> int:
    # Pages of files that were read count as used, though the kernel gives them back: after the first epoch over a
    # large file nothing would seem free.
    try:
        lines = [line.split() for line in stat.read_text().splitlines()]
        return sum(int(line[1]) for line in lines if line and line[0] in keys)
    except (OSError, ValueError, IndexError):
        return 0
