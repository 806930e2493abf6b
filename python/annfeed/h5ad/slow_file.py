"""A file whose reads take long, as on a network mount, read in large blocks that are kept.

It is for h5py, which reads a few hundred bytes at a time, one read after the other.
Where the system tells what is in its page cache, it reads ahead by itself, and nothing here is used.
"""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: Bytes that are read at a time, and blocks that a process keeps (16 MiB).
_BLOCK, _MOST_BLOCKS = 1 << 18, 64
#: Seconds that a read of what is in memory takes at most.
_AT_ONCE = 0.0008

Block = tuple[int, int, int, int, int]

#: By device, inode, size and time of the last change of the file, and number of the block.
_blocks: OrderedDict[Block, bytes] = OrderedDict()


def slow_file(path: str) -> SlowFile | None:
    """Return the file at ``path`` to be read in blocks; None where reads do not take long, or it cannot be opened.

    Examples
    --------
    >>> slow_file("/no/such/file") is None
    True
    """
    with contextlib.suppress(OSError):
        if not os.path.isfile(path):  # opening a pipe would wait for a writer
            return None
        file = SlowFile(path)
        if file.is_slow():
            return file
        file.close()
    return None


class SlowFile(io.RawIOBase):
    """A file that is read in blocks; those that were read last are kept, also when it is closed.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    OSError
        If it cannot be read, or somebody else has it open for writing and holds HDF5's lock.

    Examples
    --------
    >>> import h5py, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with h5py.File(f"{folder}/some.h5", "w") as file:
    ...         file["x"] = [1, 2, 3]
    ...     with SlowFile(f"{folder}/some.h5") as slow, h5py.File(slow, "r") as file:
    ...         file["x"][:].tolist()
    [1, 2, 3]
    """

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        self._at = 0
        try:
            stat = os.fstat(self._descriptor)
            self._identity = stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
            _lock(self._descriptor)
        except BaseException:
            os.close(self._descriptor)
            raise

    def is_slow(self) -> bool:
        """Whether the system cannot tell what is in its page cache, and reads take long, or did before."""
        size = self._identity[2]
        if size == 0 or not hasattr(os, "RWF_NOWAIT"):
            return False
        try:
            os.preadv(self._descriptor, [bytearray(1)], size // 2, os.RWF_NOWAIT)
            return False
        except BlockingIOError:
            return False
        except OSError:  # it cannot tell
            if any(key[:4] == self._identity for key in list(_blocks)):
                return True
        begin = time.perf_counter()
        os.pread(self._descriptor, 1, size // 2)
        return time.perf_counter() - begin > _AT_ONCE

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Return where it is read next."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte, and return which one."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._identity[2]}[whence]
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill ``buffer`` as far as there are bytes, and return how many."""
        out = memoryview(buffer).cast("B")
        n = min(len(out), max(0, self._identity[2] - self._at))
        done = 0
        while done < n:
            number, start = divmod(self._at, _BLOCK)
            if start == 0 and n - done >= _BLOCK:  # whole blocks go where they are wanted
                read = os.preadv(self._descriptor, [out[done:n]], self._at)
            else:
                found = self._block(number)[start : start + n - done]
                read = len(found)
                out[done : done + read] = found
            if read == 0:
                break
            done, self._at = done + read, self._at + read
        return done

    def close(self) -> None:
        """Close it."""
        if not self.closed:
            os.close(self._descriptor)
        super().close()

    def _block(self, number: int) -> bytes:
        key = (*self._identity, number)
        found = _blocks.get(key)
        if found is None:
            found = os.pread(self._descriptor, _BLOCK, number * _BLOCK)
            _blocks[key] = found
            while len(_blocks) > _MOST_BLOCKS:
                _blocks.popitem(last=False)
        else:
            with contextlib.suppress(KeyError):  # another thread may have dropped it
                _blocks.move_to_end(key)
        return found


def _lock(descriptor: int) -> None:
    """Lock a file as HDF5 does, which says whether somebody writes to it."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        pass  # a file system without locks
