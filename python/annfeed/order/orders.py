"""Orders: each class maps the places of an epoch's stream to positions.

order/epoch.py cuts ranks, windows and batches from the stream. A new order is a subclass of `Order`; the one for rows
drawn by weight is in order/weighted.py.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from annfeed.arrays import Int64Array, digest_of
from annfeed.order.permutation import EqualBlocks, GivenBlocks, Permutation, Stream
from annfeed.order.windows import integer


class Order(ABC):
    """Makes the stream of positions of an epoch."""

    @property
    def in_windows(self) -> bool:
        """Whether the rows of a window are shuffled among themselves, so that the window size changes the order."""
        return False

    def length(self, n_rows: int) -> int:
        """Return the length of the stream for ``n_rows``; ValueError if the order is for another number of rows."""
        return n_rows

    @abstractmethod
    def stream(self, key: int, n_rows: int) -> Stream:
        """Return the stream of the epoch with this key, equal for equal keys; ``n_rows`` is at least 1."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return what determines the order, for saved states, with the keys of `STATE`."""

    def proof(self) -> str | None:
        """Return a digest of the positions that a user gave for the epoch; None if the key determines the stream."""
        return None


#: Default entries of an order in saved states. Names and values are those of version 0.1.
STATE = {"shuffle": True, "block_size": 1, "weighting": None, "positions": None, "block_starts": None}


@dataclass(frozen=True)
class FileOrder(Order):
    """The order of the dataset.

    Examples
    --------
    >>> FileOrder().stream(0, n_rows=5).take(2, 5).tolist()
    [2, 3, 4]
    """

    def stream(self, key: int, n_rows: int) -> Stream:
        return self

    def take(self, start: int, stop: int) -> Int64Array:
        return np.arange(start, stop, dtype=np.int64)

    def state(self) -> dict[str, Any]:
        return {"shuffle": False}


@dataclass(frozen=True)
class Shuffled(Order):
    """All rows in pseudo-random order: single rows, or blocks of ``block_size`` neighbours.

    Blocks are permuted over the whole dataset; then the rows of each window are shuffled among themselves.

    Raises
    ------
    TypeError, ValueError
        If ``block_size`` is not an integer, or below 1.

    Examples
    --------
    >>> Shuffled(block_size=2).stream(0, n_rows=5).take(0, 5).tolist()
    [4, 2, 3, 0, 1]
    """

    block_size: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "block_size", integer("block_size", self.block_size, 1))

    @property
    def in_windows(self) -> bool:
        return self.block_size > 1

    def stream(self, key: int, n_rows: int) -> Stream:
        return EqualBlocks(n_rows, self.block_size, key) if self.in_windows else Permutation(n_rows, key)

    def state(self) -> dict[str, Any]:
        return {"block_size": self.block_size}


@dataclass(frozen=True, eq=False)
class Blocks(Order):
    """Blocks with given borders in pseudo-random order; the rows of each window are shuffled among themselves.

    Parameters
    ----------
    starts
        Integers [n_blocks], first position of each block: 0, then strictly increasing; empty for no rows.

    Raises
    ------
    TypeError, ValueError
        If they are not integers, not as above, or a block begins after the last row.

    Examples
    --------
    >>> Blocks([0, 1, 4]).stream(0, n_rows=5).take(0, 5).tolist()
    [4, 1, 2, 3, 0]
    """

    starts: npt.ArrayLike

    @property
    def in_windows(self) -> bool:
        return True

    def length(self, n_rows: int) -> int:
        _checked_starts(self.starts, n_rows)
        return n_rows

    def stream(self, key: int, n_rows: int) -> Stream:
        return GivenBlocks(n_rows, _checked_starts(self.starts, n_rows), key)

    def state(self) -> dict[str, Any]:
        return {"block_starts": digest_of(np.asarray(self.starts))}


@dataclass(frozen=True, eq=False)
class Given(Order):
    """Positions that a user gave, int64 [n], in their order and with repeats.

    Examples
    --------
    >>> Given(np.array([7, 3, 7])).stream(0, n_rows=9).take(1, 3).tolist()
    [3, 7]
    """

    positions: Int64Array

    def length(self, n_rows: int) -> int:
        return len(self.positions)

    def stream(self, key: int, n_rows: int) -> Stream:
        return self

    def take(self, start: int, stop: int) -> Int64Array:
        return self.positions[start:stop]

    def state(self) -> dict[str, Any]:
        return {"positions": self.proof()}

    def proof(self) -> str | None:
        return digest_of(self.positions)


def _checked_starts(starts: npt.ArrayLike, n_rows: int) -> Int64Array:
    array = np.asarray(starts)
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"block_starts have dtype {array.dtype}; expected integers")
    if array.ndim != 1:
        raise ValueError(f"block_starts have shape {array.shape}; expected one dimension")
    values = array.astype(np.int64)
    first = values[:1].tolist()
    if first != [0][: min(n_rows, 1)]:
        raise ValueError(f"block_starts begin with {first}; expected 0, or no blocks for no rows")
    steps = np.diff(values)
    if (steps <= 0).any():
        bad = int(np.argmax(steps <= 0)) + 1
        raise ValueError(f"block_starts[{bad}] is {values[bad]} after {values[bad - 1]}; expected strictly increasing")
    if values.size and values[-1] >= n_rows:
        raise ValueError(f"block_starts end with {values[-1]}; expected at most {n_rows - 1}, the last row")
    return values
