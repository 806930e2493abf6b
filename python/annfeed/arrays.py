"""Names of array types, and what any room may need of an array. Nothing here knows of rows, files or tensors."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

#: Rows, positions, columns, counts.
Int64Array = npt.NDArray[np.int64]


def digest_of(array: npt.NDArray[Any]) -> str:
    """Return a short digest of an array's dtype, shape and values.

    Examples
    --------
    >>> digest_of(np.arange(3)) == digest_of(np.array([0, 1, 2]))
    True
    """
    found = hashlib.blake2b(f"{array.dtype.str} {array.shape} ".encode(), digest_size=8)
    found.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    return found.hexdigest()


def positions_of_slice(of: slice, n: int) -> Int64Array:
    """Return the positions that a slice of ``n`` rows or columns stands for, as an array of its own.

    A slice of an array would share its memory, with the slice's step; the core takes positions that lie side by side.

    Examples
    --------
    >>> positions_of_slice(slice(None, None, -2), 5)
    array([4, 2, 0])
    """
    return np.arange(*of.indices(n), dtype=np.int64)
