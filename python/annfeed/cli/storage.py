"""How the storage under a file answers: its file system, and what reads of it take."""

from __future__ import annotations

import os
import re
import statistics
import time
from pathlib import Path

#: Pieces that are read, all over the file.
_PIECES = 24
_PIECE = 64 << 10
#: Reads from which the storage is judged: one may have been slow by chance.
_ENOUGH = 3


def storage_of(path: str) -> dict[str, str | list[str]]:
    """Return the size, the file system and the speed of a file; only its error if it cannot be read."""
    try:
        size = os.path.getsize(path)
        in_cache, waited = _timed(path, size)
    except OSError as error:
        return {"storage": f"{type(error).__name__}: {os.strerror(error.errno or 0)}"}
    told = f"{size / 2**20:,.1f} MiB on {file_system(path)}"
    if in_cache is not None:
        told += f"; {in_cache} of {_PIECES} pieces in the page cache"
    if waited:
        told += f"; {_judged(waited, in_cache is not None)}"
    return {"storage": told}


def _judged(seconds: list[float], from_storage: bool) -> str:
    """Return what reads took, and what that says of the storage, from which all of them came if ``from_storage``."""
    median = statistics.median(seconds) * 1e3
    if len(seconds) < _ENOUGH:
        kind = "too few to judge"
    elif median > 1:
        kind = "slow"
    else:
        kind = "a local disk" if from_storage else "from memory or a local disk"
    return f"{len(seconds)} read{'s' * (len(seconds) > 1)} took {median:.2g} ms{' each' * (len(seconds) > 1)} ({kind})"


def file_system(path: str, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """Return the type of the file system that ``path`` is on.

    Examples
    --------
    >>> file_system("/proc/self/mountinfo") in ("proc", "an unknown file system")
    True
    """
    found, longest = "an unknown file system", -1
    real = os.path.realpath(path)
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        before, _, after = line.partition(" - ")
        point = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), before.split()[4])  # blanks, say
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= longest:
            found, longest = after.split()[0], len(point)
    return found


def _timed(path: str, size: int) -> tuple[int | None, list[float]]:
    """Read some pieces; return how many were in the page cache, and the seconds of the others.

    Where the file system does not tell what is in the page cache, return None and the seconds of all.
    """
    nowait = getattr(os, "RWF_NOWAIT", None)
    in_cache, waited = 0, []
    file = os.open(path, os.O_RDONLY)
    try:
        memory = [bytearray(_PIECE)]
        for i in range(_PIECES):
            offset = size * i // _PIECES // 4096 * 4096
            if nowait is not None:
                try:
                    os.preadv(file, memory, offset, nowait)
                except BlockingIOError:
                    pass  # it would have to be waited for
                except OSError:
                    nowait = None  # a file system that does not tell
                else:
                    in_cache += 1
                    continue
            begin = time.perf_counter()
            os.preadv(file, memory, offset)
            waited.append(time.perf_counter() - begin)
    finally:
        os.close(file)
    return (in_cache if hasattr(os, "RWF_NOWAIT") and nowait is not None else None), waited
