"""`ThroughFile`: objects go to spawned processes through a file without a name, and not through a pipe.

CPython writes the pickle for a spawned process into a pipe. If the process dies before it reads, and the pickle is
larger than the pipe (64 KiB), as those of many files or of an AnnData in memory, CPython waits for ever. A file does
not block. The new process maps it, so that it has arrays in memory once, and gets a descriptor instead of a name, so
that the file is gone when the last process with the descriptor ends.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import tempfile
import threading
import weakref
from multiprocessing import reduction
from multiprocessing.context import get_spawning_popen
from typing import Any

from annfeed.user_warnings import Line, is_sent_by, users_line

#: Arrays begin at multiples of this, for wide loads.
_ALIGNED = 64

_here = threading.local()


class ThroughFile:
    """Base of classes whose objects, with all that they refer to, go to a spawned process through a file.

    Their pickle for that process has a few hundred bytes. Any other pickle is the usual one.
    """

    def __reduce_ex__(self, protocol: Any) -> Any:
        process = get_spawning_popen()
        if process is None or getattr(_here, "is_packing", False):
            return super().__reduce_ex__(protocol)
        _here.is_packing = True
        try:
            return _unpacked, (*_packed(self, process), users_line())
        finally:
            _here.is_packing = False


def _packed(whole: Any, process: Any) -> tuple[Any, int]:
    """Write ``whole`` into a file for ``process``; return the file and where its pickle begins, after the arrays."""
    descriptor = nameless_file("annfeed")
    head = io.BytesIO()
    arrays: list[pickle.PickleBuffer] = []
    reduction.ForkingPickler(head, 5, True, arrays.append).dump(whole)
    spans = []
    with open(descriptor, "wb", closefd=False) as file:
        for array in arrays:
            file.write(bytes(-file.tell() % _ALIGNED))
            start = file.tell()
            file.write(array.raw())
            spans.append((start, file.tell()))
        start = file.tell()
        pickle.dump((head.getvalue(), spans), file, 5)
    return sent(descriptor, process), start


def sent(descriptor: int, process: Any) -> Any:
    """Return an object that pickles a file descriptor for ``process``; its ``detach()`` returns the descriptor there.

    Parameters
    ----------
    descriptor
        The descriptor, which this function takes over. CPython takes each only once: duplicate it to send it again.
    process
        The process being started, from ``get_spawning_popen``.
    """
    # The process has its own descriptor when it has started. If it never does, this one is closed here.
    weakref.finalize(process, os.close, descriptor)
    return reduction.DupFd(descriptor)


def _unpacked(file: Any, start: int, line: Line) -> Any:
    is_sent_by(line)
    with open(file.detach(), "rb") as opened:
        # Private: writes to the arrays change neither the file nor other processes.
        memory = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY))
    head, spans = pickle.loads(memory[start:])
    return pickle.loads(head, buffers=[memory[first:last] for first, last in spans])


def nameless_file(name: str) -> int:
    """Return the descriptor of a new file without a name in a folder; ``name`` is shown in /proc."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name)
    with tempfile.TemporaryFile(prefix=name) as file:
        return os.dup(file.fileno())


def is_running(process: int) -> bool:
    """Whether there is a process of this id."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
