"""What tells one file from another, as the Rust core sees it (``rust/matrix/file.rs``)."""

from __future__ import annotations

import os


def file_identity(path: str) -> tuple[int, int, int, int] | None:
    """Return device, inode, size and time of the last change (ns) of the file at ``path``; None where there is none.

    Examples
    --------
    >>> file_identity("/no/such/file") is None
    True
    """
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
