"""`Window`: rows that are read together, cut into batches; and `WarmUp`: small windows at the beginning of an epoch."""

import operator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from annfeed.arrays import Int64Array


@dataclass(frozen=True, eq=False)
class Window:
    """Rows that are read together, in the order of delivery, cut into batches.

    Parameters
    ----------
    index
        Number of the window in the epoch of this rank.
    first_batch
        Number of batches of this rank before this window.
    positions
        Positions in the dataset, int64 [n]; repeats allowed.
    offsets
        int64 [n_batches + 1], batch b is positions[offsets[b]:offsets[b + 1]].
    n_padding
        How many of the last ``positions`` repeat another rank's rows; None without ranks.

    Examples
    --------
    >>> window = Window(0, 0, np.array([7, 3, 5]), np.array([0, 2, 3]))
    >>> [batch.tolist() for batch in window.batches]
    [[7, 3], [5]]
    """

    index: int
    first_batch: int
    positions: Int64Array
    offsets: Int64Array
    n_padding: int | None = None

    @property
    def n_batches(self) -> int:
        """Number of batches in this window."""
        return len(self.offsets) - 1

    @property
    def batches(self) -> list[Int64Array]:
        """Positions of each batch, int64 views of `positions`."""
        return [self.positions[start:stop] for start, stop in pairwise(self.offsets.tolist())]

    def after(self, n_done: int) -> "Window":
        """Return the rest of this window after ``n_done`` batches of the epoch."""
        return self if n_done <= self.first_batch else self.of_batches(n_done - self.first_batch, self.n_batches)

    def of_batches(self, first: int, last: int) -> "Window":
        """Return the batches ``first`` to ``last`` (exclusive) of this window."""
        offsets = self.offsets[first : last + 1]
        positions = self.positions[offsets[0] : offsets[-1]]
        # Padding is in the last batch.
        padding = self.n_padding if self.n_padding is None or last == self.n_batches else 0
        return Window(self.index, self.first_batch + first, positions, offsets - offsets[0], padding)


class WarmUp:
    """The first row of each window. Windows are whole batches, and double up to `window` rows."""

    def __init__(self, batch_size: int, window: int, first_window: int) -> None:
        self._full = max(window // batch_size, 1) * batch_size
        self._first = min(max(first_window // batch_size, 1) * batch_size, self._full)
        self._n_small = (-(-self._full // self._first) - 1).bit_length()
        self._small_rows = self._first * ((1 << self._n_small) - 1)

    def start(self, index: int) -> int:
        """Return the first row of window `index`."""
        if index <= self._n_small:
            return self._first * ((1 << index) - 1)
        return self._small_rows + (index - self._n_small) * self._full

    def window_at(self, row: int) -> int:
        """Return the index of the window that contains `row`."""
        if row < self._small_rows:
            return (row // self._first + 1).bit_length() - 1
        return self._n_small + (row - self._small_rows) // self._full


def joined(index: int, first_batch: int, batches: list[Int64Array], n_padding: int | None = None) -> Window:
    """Return the window of some batches; the parameters are those of `Window`.

    Examples
    --------
    >>> joined(0, 0, [np.array([7, 3]), np.array([5])]).offsets
    array([0, 2, 3])
    """
    offsets = np.cumsum([0, *map(len, batches)], dtype=np.int64)
    return Window(index, first_batch, np.concatenate(batches), offsets, n_padding)


def integer(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Return ``value`` as an int; TypeError if it is not an integer, ValueError if it is not in ``least`` to ``most``.

    Examples
    --------
    >>> integer("epoch", np.int64(3), 0)
    3
    """
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} is {value!r}; expected an integer")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}; expected an integer") from None
    if number < least or (most is not None and number > most):
        wanted = f"at least {least}" if most is None else f"{least} to {most}"
        raise ValueError(f"{name} is {number}; expected {wanted}")
    return number
