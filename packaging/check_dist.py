"""Checks what a wheel holds: `make wheel` runs it with the wheel and the paths that must not be in it."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path


def main(wheel: str, *paths: str) -> None:
    """Exit with a message if a file is missing, or a path of the machine that built the wheel is in one."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        wanted = ["annfeed/py.typed", "annfeed/_core.pyi", "annfeed/_core.abi3.so"]
        missing = [name for name in wanted if name not in names]
        missing += [] if any(name.endswith("/licenses/LICENSE") for name in names) else ["LICENSE"]
        found = {(name, path) for name in names for path in paths if path.encode() in archive.read(name)}
    if missing or found:
        sys.exit(f"{wheel}: it lacks {missing}, and holds these paths: {sorted(found)}")
    print(f"{Path(wheel).name}: {len(names)} files, no path of this machine")


if __name__ == "__main__":
    main(*sys.argv[1:])
