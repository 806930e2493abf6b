"""One epoch on one rank: the stream of an order is cut into a shard, the shard into windows, and these into batches.

An epoch is a pure function of the plan's fields, and each window can be computed alone. loading/sampler.py finds seed,
epoch and rank.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, get_args

import numpy as np

from annfeed.arrays import Int64Array, integer
from annfeed.order.orders import STATE, Order, Shuffled
from annfeed.order.permutation import Stream, shuffled
from annfeed.order.random import EpochStream, derive_key
from annfeed.order.shards import Shard, Uneven, cut_shard
from annfeed.order.windows import WarmUp, Window


@dataclass(frozen=True, eq=False, kw_only=True)
class EpochPlan:
    """The windows of one epoch on one rank, a pure function of these fields.

    The stream of the order is cut into `world` contiguous shards whose sizes differ by at most one. Every rank delivers
    the same number of batches, unless `uneven` is "keep". Together the ranks deliver the stream, each row exactly once,
    except for rows that `drop_last` or `uneven` leave out or repeat.

    The stream is of units: rows, or in `order/sets.py` sets of rows. Shards, windows and batches have whole units, and
    the order opens those of a window. "Rows" stands for units below, but in `n_rows`, `window` and `first_window`.

    Parameters
    ----------
    n_rows
        Rows of the dataset; 0 gives no batches.
    batch_size
        Rows of a batch. At most one batch of a rank is shorter, its last.
    window
        Rows read together, rounded down to whole batches, at least one batch. Orders that are spread have windows of
        equal size instead of a short last one.
    order
        Order of the positions: see `order/orders.py`.
    seed
        0 <= seed < 2**64.
    epoch
        Number of the epoch, >= 0.
    rank, world
        Rank of this process and number of ranks, 0 <= rank < world.
    drop_last
        Deliver full batches only: on each rank as many as the smallest shard has.
    uneven
        What to do if shards of unequal size give ranks unequal numbers of batches. "pad": each smaller shard
        gets one row more from the start of the stream, delivered last (see `n_padding`). "drop": each larger shard
        loses its last row. "keep": each rank delivers its shard, some of them one batch more.
    first_window
        Rows of the first window, rounded like `window` and at most as large; sizes double up to `window`, so that the
        first batch of an epoch comes soon.

    Raises
    ------
    TypeError
        If a count is not an integer.
    ValueError
        If a value is out of range, or the order is for another number of rows.

    Examples
    --------
    >>> from annfeed.order.orders import FileOrder
    >>> plan = EpochPlan(n_rows=7, batch_size=2, window=4, order=FileOrder(), first_window=2)
    >>> [window.positions.tolist() for window in plan.windows()], len(plan)
    ([[0, 1], [2, 3, 4, 5], [6]], 4)
    """

    n_rows: int
    batch_size: int
    window: int
    order: Order = field(default_factory=Shuffled)
    seed: int = 0
    epoch: int = 0
    rank: int = 0
    world: int = 1
    drop_last: bool = False
    uneven: Uneven = "pad"
    first_window: int = 1024
    n_stream: int = field(init=False, repr=False)
    _shard: Shard = field(init=False, repr=False)
    _warm_up: WarmUp = field(init=False, repr=False)

    def __post_init__(self) -> None:
        least = {"n_rows": 0, "batch_size": 1, "window": 1, "epoch": 0, "world": 1, "first_window": 1}
        for name, bound in least.items():
            self._set(name, integer(name, getattr(self, name), bound))
        self._set("rank", integer("rank", self.rank, 0, self.world - 1))
        self._set("seed", integer("seed", self.seed, 0, 2**64 - 1))
        if self.uneven not in get_args(Uneven):
            raise ValueError(f'uneven is {self.uneven!r}; expected "pad", "drop" or "keep"')
        self._set("n_stream", self.order.length(self.n_rows))
        self._set("_shard", self.shard(self.rank, self.world))
        self._set("_warm_up", self._warm_up_of(self._shard))

    def __len__(self) -> int:
        """Number of batches that this rank delivers."""
        return self.n_batches

    @property
    def n_batches(self) -> int:
        """Number of batches that this rank delivers, the same on every rank unless `uneven` is "keep"."""
        return -(-self.n_delivered // self.batch_size)

    @property
    def n_delivered(self) -> int:
        """Rows that this rank delivers, padding included."""
        return self._shard.n_delivered

    @property
    def n_padding(self) -> int:
        """How many of these rows repeat another rank's rows: 0, or 1 for the last row."""
        return self._shard.n_padding

    def shard(self, rank: int, world: int) -> Shard:
        """Return the shard of any rank among any number of ranks.

        Examples
        --------
        >>> EpochPlan(n_rows=10, batch_size=4, window=4).shard(1, 3).n_delivered
        3
        """
        return cut_shard(self.n_stream, self.batch_size, rank, world, drop_last=self.drop_last, uneven=self.uneven)

    @property
    def rows_per_unit(self) -> int:
        """Rows of a unit of the stream, on average."""
        return self.order.rows_per_unit(self.n_rows)

    @property
    def n_windows(self) -> int:
        """Number of windows of this rank."""
        return self.window_of(self.n_batches - 1) + 1 if self.n_batches else 0

    def window_of(self, batch: int) -> int:
        """Return the index of the window that contains this rank's batch number `batch`.

        Examples
        --------
        >>> EpochPlan(n_rows=70, batch_size=10, window=20, first_window=10).window_of(3)
        2
        """
        if not 0 <= batch < self.n_batches:
            raise IndexError(f"batch {batch} asked for; the epoch has {self.n_batches} batches on rank {self.rank}")
        return self._warm_up.window_at(batch * self.batch_size)

    def windows(self, n_done: int = 0, proof: str | None = None) -> Iterator[Window]:
        """Return the windows that are left after ``n_done`` batches; of the first window only the rest.

        Parameters
        ----------
        n_done
            Batches of this rank that were delivered.
        proof
            The `next_proof` of the last of them; None if unknown.

        Raises
        ------
        ValueError
            If a user's order gave other positions then.

        Examples
        --------
        >>> from annfeed.order.orders import FileOrder
        >>> plan = EpochPlan(n_rows=8, batch_size=2, window=4, order=FileOrder(), first_window=4)
        >>> [window.positions.tolist() for window in plan.windows(n_done=1)]
        [[2, 3], [4, 5, 6, 7]]
        """
        if n_done and self._proof is not None and proof not in (None, self._proof):
            raise ValueError(
                f"order({self.epoch}) gives other positions than it gave before the state was saved, after {n_done} "
                "batches of them. Let it depend on the number of the epoch alone, or begin anew without the state"
            )
        first = self.window_of(n_done) if n_done < self.n_batches else self.n_windows
        return (self.window_at(index).after(n_done) for index in range(first, self.n_windows))

    def next_proof(self) -> str | None:
        """Return a digest of the order up to the delivered batch; None if seed and epoch determine the order."""
        return self._proof

    def state(self) -> dict[str, Any]:
        """Return what determines the order, for saved states; with the window only if it matters."""
        cut = {"n_rows": self.n_rows, "batch_size": self.batch_size, "drop_last": self.drop_last, "uneven": self.uneven}
        window = {"chunk_size": self.window if self.order.in_windows else None}
        return {**STATE, **self.order.state(), **cut, **window}

    def window_at(self, index: int) -> Window:
        """Return window number `index`, computed without the others; IndexError if there is none.

        Examples
        --------
        >>> from annfeed.order.orders import FileOrder
        >>> EpochPlan(n_rows=6, batch_size=2, window=2, order=FileOrder()).window_at(1).positions.tolist()
        [2, 3]
        """
        if not 0 <= index < self.n_windows:
            raise IndexError(f"window {index} asked for; the epoch has {self.n_windows} windows on rank {self.rank}")
        begin = self._warm_up.start(index)
        end = min(self._warm_up.start(index + 1), self.n_delivered)
        own_end = min(end, self.n_delivered - self.n_padding)
        positions = self._stream.take(self._shard.start + begin, self._shard.start + own_end)
        if self.order.in_windows:
            key = derive_key(self.seed, self.epoch, EpochStream.RESHUFFLE, self.rank, index)
            positions = positions[shuffled(len(positions), key)]
        if end > own_end:
            positions = np.concatenate([positions, self._padding()])
        offsets = np.append(np.arange(0, len(positions), self.batch_size, dtype=np.int64), len(positions))
        padding = end - own_end if self.world > 1 else None
        return self.order.opened(Window(index, begin // self.batch_size, positions, offsets, padding), self._stream)

    def _warm_up_of(self, shard: Shard) -> WarmUp:
        n_units = shard.n_delivered if self.order.is_spread else None
        rows = self.rows_per_unit
        return WarmUp(self.batch_size, max(1, self.window // rows), max(1, self.first_window // rows), n_units)

    def _padding(self) -> Int64Array:
        # Ranks that pad take different rows, none of their own, because they come after the ranks with one row more.
        place = (self.rank - self.n_stream % self.world) % self.n_stream
        return self._stream.take(place, place + 1)

    @cached_property
    def _stream(self) -> Stream:
        # Not needed for the length of a plan.
        key = derive_key(self.seed, self.epoch, EpochStream.ORDER)
        # All ranks share one stream, so rank 0 determines how it is spread.
        return self.order.stream(key, self.n_rows, self._warm_up_of(self.shard(0, self.world)).rows)

    @cached_property
    def _proof(self) -> str | None:
        return self.order.proof()

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # frozen: only __post_init__ may
