"""Takes the paths of the machine that built a wheel out of it: `make wheel` runs it with the wheel and these paths.

libhdf5 keeps a text that says how and where it was built, and maturin's list of parts has the folder of the project. In
binary files each path is replaced by one of equal length, as conda does with its prefix, so that nothing moves.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import sys
import zipfile
from pathlib import Path


def neutral(path: str) -> bytes:
    """Return a path of the same length in bytes that names nothing: "/build/----"."""
    length = len(path.encode())
    return b"/build".ljust(length, b"-")[:length]


def main(wheel: str, *paths: str) -> None:
    """Write the wheel again without these paths; the longest first, for some are parts of others."""
    kept = Path(wheel)
    with zipfile.ZipFile(kept) as archive:
        contents = {info: archive.read(info) for info in archive.infolist()}
    record = next(info for info in contents if info.filename.endswith(".dist-info/RECORD"))
    for info, content in contents.items():
        for path in sorted(paths, key=len, reverse=True):
            content = content.replace(path.encode(), neutral(path))
        contents[info] = content
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    for info, content in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        writer.writerow(
            [info.filename, "", ""] if info is record else [info.filename, f"sha256={digest}", len(content)]
        )
    contents[record] = rows.getvalue().encode()
    with zipfile.ZipFile(kept, "w", zipfile.ZIP_DEFLATED) as archive:
        for info, content in contents.items():
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    main(*sys.argv[1:])
