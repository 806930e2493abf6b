"""The memory that Linux' control groups leave to this process: the limits of containers, Slurm jobs and systemd units.

Reads files of the kernel only; what to do with the figure is cache.py's.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import NamedTuple


class _Cgroup(NamedTuple):
    """Where a version of cgroups tells about memory."""

    folder: str
    controller: str
    limit: str
    used: str
    file_pages: tuple[str, ...]


_CGROUPS = (
    _Cgroup("", "", "memory.max", "memory.current", ("active_file", "inactive_file")),
    _Cgroup(
        "memory",
        "memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        ("total_active_file", "total_inactive_file"),
    ),
)


def cgroup_free(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> list[int]:
    """Return the bytes that each limit leaves, of the group of this process and of those around it; [] without limits.

    Slurm and systemd put a process into a group far below the root; a container sees its own group as the root.

    Parameters
    ----------
    root
        Where the hierarchies of version 2 and 1 are mounted.
    membership
        The file that tells this process's groups.
    """
    groups = _groups(membership)
    free = []
    for version in _CGROUPS:
        group = PurePosixPath(groups.get(version.controller, "/"))
        for around in (group, *group.parents):
            folder = root / version.folder / str(around).lstrip("/")
            try:
                left = int((folder / version.limit).read_text()) - int((folder / version.used).read_text())
            except (OSError, ValueError):  # no such group, or the limit is "max"
                continue
            free.append(left + _reclaimable(folder / "memory.stat", version.file_pages))
    return free


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
