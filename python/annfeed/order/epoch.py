"""The order of an epoch: which rows this rank delivers, in which windows and batches.

Windows, not batches, are what the readers below read, so an epoch is a list of windows, each of whole batches, and each
computable alone. The order is a pure function of the plan's fields: threads, workers and machines do not enter.
Positions are counted from 0 in the dataset; no file is opened here, no torch is needed, no generator is touched, and
where seed, epoch and rank come from is decided elsewhere (`loading/loader.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import get_args

import numpy as np
import numpy.typing as npt

from annfeed.arrays import Int64Array
from annfeed.order.permutation import (
    EqualBlocks,
    Given,
    GivenBlocks,
    InOrder,
    Order,
    Permutation,
    checked_starts,
    shuffled,
)
from annfeed.order.random import EpochStream, derive_key
from annfeed.order.shards import Shard, Uneven, cut_shard
from annfeed.order.weighted import WeightedOrder
from annfeed.order.weights import Weighting
from annfeed.order.windows import Ramp, Window, integer

# Separate the streams of random numbers that one (seed, epoch) feeds.


@dataclass(frozen=True, eq=False, kw_only=True)
class EpochPlan:
    """The windows of one epoch on one rank, a pure function of these fields.

    The stream is the whole dataset in this epoch's order (or what is drawn of it, or the positions given). It is cut
    into `world` contiguous shards whose sizes differ by at most one, so that with `shuffle` each rank sees rows of the
    whole file. Every rank delivers the same number of batches, unless `uneven` is "keep". The union over ranks is the
    stream, each row exactly once, except with `drop_last`, and where `uneven` says otherwise.

    Parameters
    ----------
    n_rows
        Rows of the dataset; 0 gives no batches.
    batch_size
        Rows of a batch. At most one batch of a rank is shorter, its last.
    window
        Rows read together, rounded down to whole batches, at least one batch.
    shuffle
        False: the rows in order, `block_size` and `block_starts` unused.
    block_size
        1: a uniform pseudo-random order. k: blocks of k neighbouring rows are permuted over the whole dataset, then the
        rows of each window are shuffled among themselves.
    seed
        0 <= seed < 2**64; 0 is a seed like any other.
    epoch
        Number of the epoch, >= 0; each has an order of its own.
    rank, world
        This process among all, 0 <= rank < world.
    drop_last
        Deliver full batches only: on each rank as many as the smallest shard has.
    uneven
        What happens where shards of unequal size would give ranks unequal numbers of batches. "pad": each smaller shard
        gets one row more from the start of the stream, delivered last (see `n_padding`). "drop": each larger shard
        loses its last row. "keep": each rank delivers its shard, and some of them one batch more.
    weighting
        How often each row is due: the stream is this epoch's draws instead. Needs `shuffle`, excludes `block_starts`.
    positions
        int64 [n], an order of the user's: the stream is these positions, and `shuffle` and blocks are unused.
    first_window
        Rows of the first window, rounded as `window` is and never above it; sizes double from there up to `window`, so
        that the first batch of an epoch comes soon.
    block_starts
        int64 [n_blocks], first row of each block (0, then strictly increasing, below n_rows); replaces `block_size`.

    Raises
    ------
    TypeError
        A count that is no integer, or block borders that are none.
    ValueError
        A value out of the range above, or two options that exclude each other.

    Examples
    --------
    >>> plan = EpochPlan(n_rows=7, batch_size=2, window=4, shuffle=False, first_window=2)
    >>> [window.rows.tolist() for window in plan.windows()], len(plan)
    ([[0, 1], [2, 3, 4, 5], [6]], 4)
    """

    n_rows: int
    batch_size: int
    window: int
    shuffle: bool = True
    block_size: int = 1
    seed: int = 0
    epoch: int = 0
    rank: int = 0
    world: int = 1
    drop_last: bool = False
    uneven: Uneven = "pad"
    weighting: Weighting | None = field(default=None, repr=False)
    positions: Int64Array | None = field(default=None, repr=False)
    first_window: int = 1024
    block_starts: npt.ArrayLike | None = field(default=None, repr=False)
    _shard: Shard = field(init=False, repr=False)
    _ramp: "Ramp" = field(init=False, repr=False)

    def __post_init__(self) -> None:
        least = {"n_rows": 0, "batch_size": 1, "window": 1, "block_size": 1, "epoch": 0, "world": 1, "first_window": 1}
        for name, bound in least.items():
            self._set(name, integer(name, getattr(self, name), bound))
        self._set("rank", integer("rank", self.rank, 0, self.world - 1))
        self._set("seed", integer("seed", self.seed, 0, 2**64 - 1))
        if self.uneven not in get_args(Uneven):
            raise ValueError(f'uneven is {self.uneven!r}; expected "pad", "drop" or "keep"')
        if self.block_starts is not None:
            checked_starts(self.block_starts, self.n_rows)
        self._check_weighting()
        self._set("_ramp", Ramp(self.batch_size, self.window, self.first_window))
        self._set("_shard", self.shard(self.rank, self.world))

    def __len__(self) -> int:
        """Number of batches that this rank delivers."""
        return self.n_batches

    @property
    def n_batches(self) -> int:
        """Number of batches that this rank delivers, the same on every rank unless `uneven` is "keep"."""
        return -(-self.n_delivered // self.batch_size)

    @property
    def n_stream(self) -> int:
        """Rows of the whole stream, of all ranks."""
        if self.positions is not None:
            return len(self.positions)
        return self.n_rows if self.weighting is None else self.weighting.n_samples

    @property
    def n_delivered(self) -> int:
        """Rows that this rank delivers, padding included."""
        return self._shard.n_delivered

    @property
    def n_padding(self) -> int:
        """How many of these, the last 0 or 1, are repeats of another rank's rows."""
        return self._shard.n_padding

    def shard(self, rank: int, world: int) -> Shard:
        """The share of any rank among any number of ranks.

        Examples
        --------
        >>> EpochPlan(n_rows=10, batch_size=4, window=4).shard(1, 3).n_delivered
        3
        """
        return cut_shard(self.n_stream, self.batch_size, rank, world, drop_last=self.drop_last, uneven=self.uneven)

    @property
    def n_windows(self) -> int:
        """Number of windows of this rank."""
        return self.window_of(self.n_batches - 1) + 1 if self.n_batches else 0

    def window_of(self, batch: int) -> int:
        """The index of the window that holds this rank's batch number `batch`.

        Examples
        --------
        >>> EpochPlan(n_rows=70, batch_size=10, window=20, first_window=10).window_of(3)
        2
        """
        if not 0 <= batch < self.n_batches:
            raise IndexError(f"batch {batch} asked for; the epoch has {self.n_batches} batches on rank {self.rank}")
        return self._ramp.window_at(batch * self.batch_size)

    def windows(self, start: int = 0) -> Iterator[Window]:
        """The windows from index `start` on.

        Examples
        --------
        >>> plan = EpochPlan(n_rows=4, batch_size=1, window=2, shuffle=False, first_window=2)
        >>> [window.rows.tolist() for window in plan.windows(start=1)]
        [[2, 3]]
        """
        return map(self.window_at, range(start, self.n_windows))

    def window_at(self, index: int) -> Window:
        """Window number `index`, computed without the others.

        Raises
        ------
        IndexError
            No such window; negative numbers do not count from the end.

        Examples
        --------
        >>> EpochPlan(n_rows=6, batch_size=2, window=2, shuffle=False).window_at(1).rows.tolist()
        [2, 3]
        """
        if not 0 <= index < self.n_windows:
            raise IndexError(f"window {index} asked for; the epoch has {self.n_windows} windows on rank {self.rank}")
        begin = self._ramp.start(index)
        end = min(self._ramp.start(index + 1), self.n_delivered)
        own_end = min(end, self.n_delivered - self.n_padding)
        rows = self._order.rows(self._shard.start + begin, self._shard.start + own_end)
        if isinstance(self._order, EqualBlocks | GivenBlocks) or (self.weighting is not None and self.block_size > 1):
            rows = rows[shuffled(len(rows), derive_key(self.seed, self.epoch, EpochStream.RESHUFFLE, self.rank, index))]
        if end > own_end:
            rows = np.concatenate([rows, self._padding()])
        offsets = np.append(np.arange(0, len(rows), self.batch_size, dtype=np.int64), len(rows))
        return Window(index, begin // self.batch_size, rows, offsets, end - own_end if self.world > 1 else None)

    def _padding(self) -> Int64Array:
        # Ranks that pad take different rows, and never one of their own: they come after the ranks with a row more.
        place = (self.rank - self.n_stream % self.world) % self.n_stream
        return self._order.rows(place, place + 1)

    def _check_weighting(self) -> None:
        if self.weighting is None:
            return
        if self.weighting.n_rows != self.n_rows:
            raise ValueError(f"weights are of {self.weighting.n_rows} rows; expected {self.n_rows}, one for each row")
        if not self.shuffle:
            raise ValueError("weights given with shuffle=False; draws have no file order: use shuffle=True")
        if self.block_starts is not None:
            raise ValueError("weights given with block_starts; blocks of draws have no borders in the file")

    @cached_property
    def _order(self) -> Order:
        # When it is needed: a plan that is only asked for its length makes none.
        return self._make_order()

    def _make_order(self) -> Order:
        key = derive_key(self.seed, self.epoch, EpochStream.ORDER)
        if self.positions is not None:
            return Given(self.positions)
        if self.weighting is not None and self.n_rows:
            return WeightedOrder(self.weighting, key, self.block_size)
        if not self.shuffle:
            return InOrder()
        if self.block_starts is not None:
            return GivenBlocks(self.n_rows, self.block_starts, key)
        if self.block_size > 1 and self.n_rows:
            return EqualBlocks(self.n_rows, self.block_size, key)
        return Permutation(self.n_rows, key)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # frozen: only __post_init__ may
