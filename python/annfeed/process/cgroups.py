"""Limits of memory and cores in Linux control groups: of containers, Slurm jobs and systemd units."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

#: Where the hierarchies of version 2 and 1 are mounted, and the file that tells this process's groups.
ROOT, MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


class _Memory(NamedTuple):
    """Names of the files about memory in a version of cgroups."""

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
    """Return the free bytes under each memory limit of this process's group and its parents; [] without limits.

    Slurm and systemd put a process into a group far below the root; a container sees its own group as the root.
    ``root`` is where the hierarchies of version 2 and 1 are mounted, ``membership`` the file that lists its groups.
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
    """Return the cores that each CPU quota of this process's group and its parents allows.

    ``docker run --cpus`` and CPU limits of Kubernetes set it; the process's affinity does not show it.
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
    """Yield the folders of this process's group in a hierarchy, and of its parents."""
    group = PurePosixPath(_groups(membership).get(controller, "/"))
    for around in (group, *group.parents):
        yield root / str(around).lstrip("/")


def _groups(membership: Path) -> dict[str, str]:
    """Return this process's group in each hierarchy, by controller; that of version 2 has no name."""
    try:
        lines = [line.split(":", 2) for line in membership.read_text().splitlines()]
    except OSError:
        return {}
    return {name: line[2] for line in lines if len(line) == 3 for name in line[1].split(",")}


def _reclaimable(stat: Path, keys: tuple[str, ...]) -> int:
    # Cached pages of files count as used, but the kernel can reclaim them. Without this, nothing would seem free after
    # an epoch over a large file.
    try:
        lines = [line.split() for line in stat.read_text().splitlines()]
        return sum(int(line[1]) for line in lines if line and line[0] in keys)
    except (OSError, ValueError, IndexError):
        return 0
