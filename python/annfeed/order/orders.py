"""Orders: each class maps the places of an epoch's stream to positions.

order/epoch.py cuts ranks, windows and batches from the stream. A new order is a subclass of `Order`; the one for rows
drawn by weight is in order/weighted.py.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from annfeed.arrays import Int64Array, digest_of, integer
from annfeed.order.permutation import EqualBlocks, GivenBlocks, Permutation, Stream
from annfeed.order.spread import Spread
from annfeed.order.windows import Window


class Order(ABC):
    """Makes the stream of positions of an epoch."""

    @property
    def in_windows(self) -> bool:
        """Whether the rows of a window are shuffled among themselves, so that the window size changes the order."""
        return False

    @property
    def is_spread(self) -> bool:
        """Whether each window has blocks from all parts of the dataset; if so, there is no short last window."""
        return False

    def length(self, n_rows: int) -> int:
        """Return the length of the stream for ``n_rows``; ValueError if the order is for another number of rows."""
        return n_rows

    def rows_per_unit(self, n_rows: int) -> int:
        """Return how many rows a unit of the stream has on average: 1, or those of a set."""
        return 1

    def opened(self, units: Window, stream: Stream) -> Window:
        """Return the rows of a window of units of the stream: the window itself, if the units are rows."""
        return units

    @abstractmethod
    def stream(self, key: int, n_rows: int, window: int) -> Stream:
        """Return the stream of the epoch with this key, equal for equal keys.

        ``n_rows`` is at least 1; ``window`` is the number of rows of a full window.
        """

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return what determines the order, for saved states, with the keys of `STATE`."""

    def as_saved(self, state: Mapping[str, Any]) -> Self:
        """Return this order with the version of ``state``, the order in a saved state."""
        return self

    def proof(self) -> str | None:
        """Return a digest of the positions that a user gave for the epoch; None if the key determines the stream."""
        return None


#: Default entries of an order in saved states. Names and values are those of version 0.1.
STATE = {"shuffle": True, "block_size": 1, "weighting": None, "positions": None, "block_starts": None}

#: Versions of the order of blocks: permuted over the dataset (states without "block_order"), or spread evenly.
PERMUTED, SPREAD = 1, 2


@dataclass(frozen=True)
class FileOrder(Order):
    """The order of the dataset.

    Examples
    --------
    >>> FileOrder().stream(0, n_rows=5, window=2).take(2, 5).tolist()
    [2, 3, 4]
    """

    def stream(self, key: int, n_rows: int, window: int) -> Stream:
        return self

    def take(self, start: int, stop: int) -> Int64Array:
        return np.arange(start, stop, dtype=np.int64)

    def state(self) -> dict[str, Any]:
        return {"shuffle": False}


@dataclass(frozen=True)
class Shuffled(Order):
    """All rows in pseudo-random order: single rows, or blocks of ``block_size`` neighbours.

    Blocks are spread, so that each window has blocks from all parts of the dataset; then the rows of each window are
    shuffled among themselves.

    Raises
    ------
    TypeError, ValueError
        If ``block_size`` is not an integer, or below 1.

    Examples
    --------
    >>> Shuffled(block_size=2).stream(0, n_rows=8, window=4).take(0, 8).tolist()
    [0, 1, 2, 3, 6, 7, 4, 5]
    """

    block_size: int = 1
    block_order: int = SPREAD

    def __post_init__(self) -> None:
        object.__setattr__(self, "block_size", integer("block_size", self.block_size, 1))

    @property
    def in_windows(self) -> bool:
        return self.block_size > 1

    @property
    def is_spread(self) -> bool:
        return self.in_windows and self.block_order == SPREAD

    def stream(self, key: int, n_rows: int, window: int) -> Stream:
        if not self.in_windows:
            return Permutation(n_rows, key)
        n_blocks, n_together = -(-n_rows // self.block_size), -(-window // self.block_size)
        spread = Spread(n_blocks, n_together, key) if self.is_spread else None
        return EqualBlocks(n_rows, self.block_size, key, spread)

    def state(self) -> dict[str, Any]:
        return {"block_size": self.block_size, **_version(self)}

    def as_saved(self, state: Mapping[str, Any]) -> Self:
        return replace(self, block_order=_block_order(state)) if self.in_windows else self


@dataclass(frozen=True, eq=False)
class Blocks(Order):
    """Blocks with given borders, spread as those of `Shuffled`; the rows of each window are shuffled among themselves.

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
    >>> Blocks([0, 1, 4]).stream(0, n_rows=5, window=2).take(0, 5).tolist()
    [0, 4, 1, 2, 3]
    """

    starts: npt.ArrayLike
    block_order: int = SPREAD

    @property
    def in_windows(self) -> bool:
        return True

    @property
    def is_spread(self) -> bool:
        return self.block_order == SPREAD

    def length(self, n_rows: int) -> int:
        _checked_starts(self.starts, n_rows)
        return n_rows

    def stream(self, key: int, n_rows: int, window: int) -> Stream:
        starts = _checked_starts(self.starts, n_rows)
        n_together = -(-window * len(starts) // n_rows)
        spread = Spread(len(starts), n_together, key, held=True) if self.is_spread else None
        return GivenBlocks(n_rows, starts, key, spread)

    def state(self) -> dict[str, Any]:
        return {"block_starts": digest_of(np.asarray(self.starts)), **_version(self)}

    def as_saved(self, state: Mapping[str, Any]) -> Self:
        return replace(self, block_order=_block_order(state))


@dataclass(frozen=True, eq=False)
class Given(Order):
    """Positions that a user gave, int64 [n], in their order and with repeats.

    Examples
    --------
    >>> Given(np.array([7, 3, 7])).stream(0, n_rows=9, window=2).take(1, 3).tolist()
    [3, 7]
    """

    positions: Int64Array

    def length(self, n_rows: int) -> int:
        return len(self.positions)

    def stream(self, key: int, n_rows: int, window: int) -> Stream:
        return self

    def take(self, start: int, stop: int) -> Int64Array:
        return self.positions[start:stop]

    def state(self) -> dict[str, Any]:
        return {"positions": self.proof()}

    def proof(self) -> str | None:
        return digest_of(self.positions)


def _version(order: Shuffled | Blocks) -> dict[str, int]:
    # States of blocks that are permuted are those of version 0.1, which had no such name.
    return {"block_order": order.block_order} if order.is_spread else {}


def _block_order(state: Mapping[str, Any]) -> int:
    # Another one than these is left to the comparison, which finds it different.
    return PERMUTED if state.get("block_order", PERMUTED) == PERMUTED else SPREAD


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
