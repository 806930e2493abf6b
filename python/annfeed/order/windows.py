"""`Window`: rows that are read together, cut into batches; and `WarmUp`: small windows at the beginning of an epoch."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from annfeed.arrays import Int64Array

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class SetMarks:
    """What each position of a window is for, if batches are of sets. A batch has first all cells, then all controls.

    Parameters
    ----------
    n_cells
        Cells of each batch, int64 [n_batches]; None if there are no controls.
    set_of
        Number of the set in its batch, int64 [n].
    is_repeat
        Whether the cell is repeated, bool [n]: each cell of an epoch is unmarked once. False for controls.
    is_padding
        Whether the set repeats one of another rank, bool [n]; None without ranks.
    by_fallback
        Whether it is a control from a fallback pool, bool [n].
    """

    n_cells: Int64Array | None
    set_of: Int64Array
    is_repeat: BoolArray
    is_padding: BoolArray | None
    by_fallback: BoolArray

    def part(self, batches: slice, positions: slice) -> "SetMarks":
        """Return the marks of some batches, which have these positions."""
        return SetMarks(
            None if self.n_cells is None else self.n_cells[batches],
            self.set_of[positions],
            self.is_repeat[positions],
            None if self.is_padding is None else self.is_padding[positions],
            self.by_fallback[positions],
        )


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
    sets
        What each position is for, if batches are of sets; None if they are of rows.

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
    sets: SetMarks | None = None

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
        rows = slice(int(offsets[0]), int(offsets[-1]))
        sets = None if self.sets is None else self.sets.part(slice(first, last), rows)
        # Padding is in the last batch.
        padding = self.n_padding if self.n_padding is None or last == self.n_batches else 0
        return Window(self.index, self.first_batch + first, self.positions[rows], offsets - offsets[0], padding, sets)


class WarmUp:
    """The first row of each window. Windows are whole batches, and double up to `window` rows.

    Parameters
    ----------
    batch_size, window, first_window
        As in `annfeed.order.epoch.EpochPlan`.
    n_rows
        Rows of the epoch, for windows of equal size after the small first ones, to within one batch: no window at the
        end is short. None: all windows have `window` rows, and the last one has the remaining rows.

    Examples
    --------
    >>> [WarmUp(1, window=40, first_window=10).start(index) for index in range(5)]
    [0, 10, 30, 70, 110]
    >>> [WarmUp(1, window=40, first_window=10, n_rows=120).start(index) for index in range(6)]
    [0, 10, 30, 60, 90, 120]
    """

    def __init__(self, batch_size: int, window: int, first_window: int, n_rows: int | None = None) -> None:
        whole = max(window // batch_size, 1)
        first = min(max(first_window // batch_size, 1), whole)
        n_small = (-(-whole // first) - 1).bit_length()
        # After the small windows, each has batches / windows batches, rounded up or down.
        batches, windows = whole, 1
        if n_rows is not None:
            n_batches = max(1, -(-n_rows // batch_size))
            while n_small and n_batches - first * ((1 << n_small) - 1) < min(first << n_small, whole):
                n_small -= 1
            batches = n_batches - first * ((1 << n_small) - 1)
            windows = -(-batches // whole)
        self._batch_size, self._first, self._n_small = batch_size, first, n_small
        self._n_first, self._batches, self._windows = first * ((1 << n_small) - 1), batches, windows

    @property
    def rows(self) -> int:
        """Rows of a window after the small ones; the maximum, if they differ."""
        return -(-self._batches // self._windows) * self._batch_size

    def start(self, index: int) -> int:
        """Return the first row of window `index`."""
        if index <= self._n_small:
            return self._first * ((1 << index) - 1) * self._batch_size
        return (self._n_first + (index - self._n_small) * self._batches // self._windows) * self._batch_size

    def window_at(self, row: int) -> int:
        """Index of the window that holds `row`."""
        batch = row // self._batch_size
        if batch < self._n_first:
            return (batch // self._first + 1).bit_length() - 1
        return self._n_small + ((batch - self._n_first + 1) * self._windows - 1) // self._batches


def joined(index: int, first_batch: int, batches: list[Int64Array], n_padding: int | None = None) -> Window:
    """Return the window of some batches; the parameters are those of `Window`.

    Examples
    --------
    >>> joined(0, 0, [np.array([7, 3]), np.array([5])]).offsets
    array([0, 2, 3])
    """
    offsets = np.cumsum([0, *map(len, batches)], dtype=np.int64)
    return Window(index, first_batch, np.concatenate(batches), offsets, n_padding)
