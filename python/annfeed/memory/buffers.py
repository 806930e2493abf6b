"""Memory for batches: recycled when the last tensor on it is gone, so that a kept batch stays its owner's.

A new batch of 15 MB costs more in page faults than in writing it. Small ones come from torch as usual.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch

from annfeed._core import BufferPool
from annfeed.memory.shared_batches import shared_pool

#: Below this, torch's own allocator recycles well enough.
_SMALL = 1 << 18


class BatchMemory:
    """Gives uninitialised tensors, on the CPU whatever torch's default device is.

    Pickled or forked it starts empty: memory is of one process.

    Examples
    --------
    >>> BatchMemory().empty(6, torch.float32).shape
    torch.Size([6])
    """

    def __init__(self) -> None:
        #: Give page-locked memory, from which a GPU copies without waiting; torch recycles it, also while it is copied.
        self.pinned = False
        self._pool: BufferPool | None = None
        self._pid = 0

    def empty(self, n: int, dtype: torch.dtype) -> torch.Tensor:
        """Return an uninitialised tensor ``[n]``."""
        shared = shared_pool()
        if self.pinned and shared is None:  # of a fork it is the parent's wish
            return torch.empty(n, dtype=dtype, device="cpu", pin_memory=True)
        nbytes = n * dtype.itemsize
        if nbytes < _SMALL:
            return torch.empty(n, dtype=dtype, device="cpu")
        if shared is not None:
            return shared.empty(n, dtype)
        if self._pool is None or self._pid != os.getpid():
            self._pool, self._pid = BufferPool(), os.getpid()
        # Through numpy, whose arrays keep their memory's owner alive; torch keeps the array.
        buffer: Any = self._pool.take(nbytes)  # stubs cannot tell of the buffer protocol before Python 3.12
        memory = np.frombuffer(buffer, dtype=np.uint8)
        return torch.from_numpy(memory).view(dtype)

    def __getstate__(self) -> dict[str, Any]:
        return {"pinned": False, "_pool": None, "_pid": 0}
