"""Names of array types, and what any room may need of arrays and integers. Nothing here knows of rows or files."""

from __future__ import annotations

import hashlib
import operator
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


def integer(name: str, value: Any, least: int = 1, most: int | None = None, or_else: str = "") -> int:
    """Return a user's integer as an int; TypeError if it is of no integer type, ValueError if it is not in the range.

    ``or_else`` names other values that are allowed, for messages: " or None".

    Examples
    --------
    >>> integer("epoch", np.int64(3), least=0)
    3
    """
    wanted = "a positive integer" if (least, most) == (1, None) else f"an integer of {least} or more"
    if most is not None:
        wanted = f"an integer from {least} to {most}"
    try:
        number = operator.index(None if isinstance(value, bool | np.bool_) else value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} is {value!r}; expected {wanted}{or_else}") from None
    if number < least or (most is not None and number > most):
        raise ValueError(f"{name} is {number}; expected {wanted}{or_else}")
    return number


def number(name: str, value: Any) -> float:
    """Return a user's number as a float; TypeError if it is a text or a bool, or no number.

    Examples
    --------
    >>> number("target_sum", np.float32(1e4))
    10000.0
    """
    try:
        if isinstance(value, str | bytes | bool | np.bool_):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {value!r}; expected a number") from None
