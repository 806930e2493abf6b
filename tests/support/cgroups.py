"""Control groups as Linux shows them, in a folder."""

from __future__ import annotations

from pathlib import Path


def write_groups(folder: Path, membership: str, files: dict[str, str]) -> tuple[Path, Path]:
    """Write the files of control groups and of a process's membership; return their root and the latter."""
    (folder / "cgroup").write_text(membership)
    root = folder / "root"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root, folder / "cgroup"
