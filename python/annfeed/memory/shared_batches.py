"""Shared memory for batches, which goes round between a torch worker and the process that its batches go to.

A worker writes into a segment again when both it and the receiver have let go of the arrays that were on it. torch
makes the segments and passes each on, once; a segment's first bytes say who still needs it.
"""

from __future__ import annotations

import os
import threading
import weakref
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import torch

from annfeed.process.spawning import is_running

Bytes = npt.NDArray[np.uint8]
#: A segment: the worker's, and its number.
Name = tuple[str, int]

#: Bytes before the batch: `_TAKEN` and so on are places in it.
_HEAD = 4096
#: The receiver has arrays on it / has mapped it / will not see it again.
_TAKEN, _MAPPED, _RETIRED = range(3)
#: Sizes are rounded up to this.
_STEP = 1 << 20
#: Bytes kept that nobody needs at the moment, where new memory has to be made.
_MAX_FREE = 256 << 20


class SharedPool:
    """Shared memory for the batches of a worker.

    Examples
    --------
    >>> SharedPool().empty(6, torch.float32).shape
    torch.Size([6])
    """

    def __init__(self) -> None:
        self.process = os.getpid()
        self._name = uuid4().hex
        self._segments: list[Segment] = []
        self._n_made = 0
        self._lock = threading.Lock()

    def empty(self, n: int, dtype: torch.dtype) -> torch.Tensor:
        """Return an uninitialised tensor ``[n]``."""
        nbytes = n * dtype.itemsize
        with self._lock:
            memory = self._segment_for(nbytes).take(nbytes)
        return torch.from_numpy(memory).view(dtype)

    def _segment_for(self, nbytes: int) -> Segment:
        fits = range(nbytes, 2 * max(nbytes, _STEP) + 1)
        for segment in self._segments:
            if segment.size in fits and segment.is_free:
                return segment
        size = -(-max(nbytes, 1) // _STEP) * _STEP
        self._give_back(_MAX_FREE)
        try:
            storage = _new_storage(_HEAD + size)
        except MemoryError:
            self._give_back(0)
            storage = _new_storage(_HEAD + size)
        segment = Segment((self._name, self._n_made), size, storage)
        _by_address[segment.address] = weakref.ref(segment)
        self._n_made += 1
        self._segments.append(segment)
        return segment

    def _give_back(self, most: int) -> None:
        """Drop what nobody needs and no batch fits, oldest first, until at most so many bytes of it are left."""
        free = [segment for segment in self._segments if segment.is_free]
        surplus = sum(segment.size for segment in free) - most
        for segment in free:
            if surplus <= 0:
                return
            segment.retire()
            self._segments.remove(segment)
            surplus -= segment.size


def shared_pool() -> SharedPool | None:
    """Return where this worker's batches go; None where this is no torch worker.

    Examples
    --------
    >>> shared_pool() is None
    True
    """
    global _pool
    if torch.utils.data.get_worker_info() is None:
        return None
    if _pool is None or _pool.process != os.getpid():
        _pool = SharedPool()
    return _pool


_pool: SharedPool | None = None
#: This worker's segments by the address of what is written to them.
_by_address: dict[int, weakref.ref[Segment]] = {}


def segment_at(address: int) -> Segment | None:
    """Return the segment of this process whose array begins at ``address``; None where none does.

    Examples
    --------
    >>> segment_at(0) is None
    True
    """
    found = _by_address.get(address)
    return None if found is None else found()


class Segment:
    """A segment of shared memory, in the worker that writes to it."""

    def __init__(self, name: Name, size: int, storage: torch.UntypedStorage) -> None:
        self.name = name
        self.size = size
        self._storage = storage
        self._all = _as_bytes(storage)
        self._held = False
        self._nbytes = 0

    @property
    def address(self) -> int:
        """Where its arrays begin."""
        address: int = self._all.ctypes.data + _HEAD
        return address

    @property
    def is_free(self) -> bool:
        """Whether nobody has arrays on it."""
        return not self._held and not self._all[_TAKEN]

    def take(self, nbytes: int) -> Bytes:
        """Return an array of its first bytes; it is not free as long as that is alive."""
        # Not to be sliced again: numpy lets a slice of a slice hold on to the first array alone.
        memory = self._all[_HEAD : _HEAD + nbytes]
        self._held, self._nbytes = True, nbytes
        weakref.finalize(memory, self._let_go).atexit = False
        return memory

    def _let_go(self) -> None:
        self._held = False

    def send(self) -> tuple[int, torch.UntypedStorage | None]:
        """Note that it is the receiver's from now on; give its bytes, and the memory until the receiver has it."""
        self._all[_TAKEN] = 1
        return self._nbytes, None if self._all[_MAPPED] else self._storage

    @property
    def is_sent(self) -> bool:
        """Whether the receiver has it, or will have it."""
        return bool(self._all[_TAKEN])

    def retire(self) -> None:
        """Tell the receiver that it will not see it again."""
        self._all[_RETIRED] = 1


class Received:
    """A segment of shared memory, in the process that reads from it."""

    def __init__(self, name: Name, worker: int, storage: torch.UntypedStorage) -> None:
        self.name = name
        self._worker = worker
        self._all = _as_bytes(storage)
        self._all[_MAPPED] = 1
        self._process = os.getpid()
        self._owed = False
        self.n_forks = 0

    def take(self, nbytes: int) -> Bytes:
        """Return an array of its first bytes; the worker writes to it again when that is gone."""
        memory = self._all[_HEAD : _HEAD + nbytes]
        weakref.finalize(memory, self._let_go).atexit = False
        self._owed = True
        _in_use.add(self)
        return memory

    def _let_go(self) -> None:
        # A forked process has the arrays, too, but they are not its own to give back.
        if self._process == os.getpid():
            _in_use.discard(self)
            self.give_back()

    def give_back(self) -> None:
        """Let the worker write again, if nobody sees it any more; once for each time that it was sent."""
        if self in _in_use or self.n_forks > 0 or not self._owed:
            return
        self._owed = False
        self._all[_TAKEN] = 0
        if self.is_over:
            _forget()

    @property
    def is_over(self) -> bool:
        """Whether it is not going to be sent again."""
        return bool(self._all[_RETIRED]) or not is_running(self._worker)


#: What this process has mapped, and what of it has arrays.
_received: dict[Name, Received] = {}
_in_use: set[Received] = set()


def received(name: Name, worker: int, nbytes: int, storage: torch.UntypedStorage | None) -> Bytes:
    """Return what the process ``worker`` sent in a segment; ``storage`` is None where it was received before."""
    _look_after_forks()
    if name not in _received:
        if storage is None:
            raise RuntimeError(f"segment {name} of process {worker} was not received before; please report it")
        _forget()
        _received[name] = Received(name, worker, storage)
    return _received[name].take(nbytes)


def _forget() -> None:
    """Unmap what is not going to be sent again."""
    for segment in list(_received.values()):
        if segment not in _in_use and segment.is_over:
            _received.pop(segment.name, None)


class _Fork:
    """A process forked while batches were in use: it sees their memory, so nobody writes there until it has ended.

    It and its forks hold one end of a pipe; when the last of them ends, the other end tells.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._segments = list(_in_use)
        for segment in self._segments:
            segment.n_forks += 1

    def stay_in_parent(self) -> None:
        os.close(self._writer)

    def stay_in_child(self) -> None:
        os.close(self._reader)

    def forget(self) -> None:
        """Leave it to the process that forked."""
        os.close(self._reader)

    def has_ended(self) -> bool:
        try:
            os.read(self._reader, 1)
        except BlockingIOError:
            return False
        return True

    def end(self) -> None:
        os.close(self._reader)
        for segment in self._segments:
            segment.n_forks -= 1
            segment.give_back()


_forks: list[_Fork] = []
_looking = threading.Lock()
_forking = threading.local()


def _before_fork() -> None:
    _forking.fork = None
    _forget()
    if _in_use:
        _forking.fork = _Fork()


def _after_fork_in_parent() -> None:
    fork, _forking.fork = _forking.fork, None
    if fork is not None:
        fork.stay_in_parent()
        _forks.append(fork)


def _after_fork_in_child() -> None:
    global _looking
    fork, _forking.fork = _forking.fork, None
    if fork is not None:
        fork.stay_in_child()
    # What was received, and forked before, is the parent's.
    for other in _forks:
        other.forget()
    for forgotten in (_received, _in_use, _forks):
        forgotten.clear()
    _looking = threading.Lock()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


def _look_after_forks() -> None:
    if not _forks or not _looking.acquire(blocking=False):  # another thread is at it
        return
    try:
        for fork in [fork for fork in _forks if fork.has_ended()]:
            _forks.remove(fork)
            fork.end()
    finally:
        _looking.release()


def _new_storage(size: int) -> torch.UntypedStorage:
    try:
        storage: torch.UntypedStorage = torch.UntypedStorage._new_shared(size)
        sharing: str = torch.multiprocessing.get_sharing_strategy()
        if sharing == "file_descriptor" and hasattr(os, "posix_fallocate"):
            # Memory that is promised but not there would kill the process when it is written to.
            os.posix_fallocate(storage._share_fd_cpu_()[0], 0, size)
    except (OSError, RuntimeError) as error:
        raise MemoryError(
            f"there are no {size} bytes of shared memory for a batch ({error}). Give workers more of it (a "
            "container's --shm-size), use fewer of them or smaller batches, or num_workers=0, whose threads need none"
        ) from None
    return storage


def _as_bytes(storage: torch.UntypedStorage) -> Bytes:
    array: Bytes = torch.empty(0, dtype=torch.uint8, device="cpu").set_(storage).numpy()
    return array
