"""What a process that multiprocessing starts anew is given: through a file without a name, and not through its pipe.

CPython writes the pickle of what a process starts with into a pipe. It writes for ever where the process died before it
read, and the pickle is larger than a pipe is (64 KiB): a dataset of many files is, and so is an AnnData in memory. What
goes through a file waits for nobody. The process maps the file, so that arrays are in memory once for it, not twice.
Which file that is, is told by a descriptor, so that it goes when the last process that has it ends, however it ends.
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

#: Arrays begin at multiples of this, as wide loads like it.
_ALIGNED = 64

_here = threading.local()


class ThroughFile:
    """What goes through a file to a process that is being spawned, in a pickle of a few hundred bytes.

    It goes as a whole, with all that it refers to. Anywhere else it pickles as it would without this.
    """

    def __reduce_ex__(self, protocol: Any) -> Any:
        process = get_spawning_popen()
        if process is None or getattr(_here, "is_packing", False):
            return super().__reduce_ex__(protocol)
        _here.is_packing = True
        try:
            return _unpacked, _packed(self, process)
        finally:
            _here.is_packing = False


def _packed(whole: Any, process: Any) -> tuple[Any, int]:
    """Write ``whole`` into a file for ``process``; give the file and where its pickle begins, after the arrays."""
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
    """Return what a file is pickled as for ``process``; its ``detach()`` there gives the descriptor.

    Parameters
    ----------
    descriptor
        The file's, and from now on the process'. CPython takes none twice: what goes to it more than once is to be
        duplicated before.
    process
        What is being started, as ``get_spawning_popen`` tells.
    """
    # The process has its own when it has begun. One that never does leaves this one to be closed.
    weakref.finalize(process, os.close, descriptor)
    return reduction.DupFd(descriptor)


def _unpacked(file: Any, start: int) -> Any:
    with open(file.detach(), "rb") as opened:
        # Of its own: what is written to the arrays changes neither the file nor another process'.
        memory = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY))
    head, spans = pickle.loads(memory[start:])
    return pickle.loads(head, buffers=[memory[first:last] for first, last in spans])


def nameless_file(name: str) -> int:
    """Return the descriptor of a new file without a name in any folder; ``name`` is for those who look at a process."""
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
