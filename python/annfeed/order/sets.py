"""`Sets`: an order of sets of cells, each of one group, with controls that match them.

The stream is of sets. In each epoch the cells of a group come in another order, and are cut into sets; the sets of all
groups come in random order. What a set has is computed when it is opened: the order keeps 4 bytes for each cell.

Controls of a pool come in an order of their own, from its beginning again when it is at its end. So any successive
draws from a pool, no more than it has controls, are different controls. The number of earlier draws is counted along
the stream: a window counts on from the one before, and the first window of a rank, or after a saved state, from the
beginning of the epoch.

Pools of fallbacks count apart from those of matches, whose controls they have, too. A set that would have a control
twice by that has the next ones of the fallback's order instead: this depends on the set and these numbers only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from annfeed.arrays import Int64Array
from annfeed.order.groups import Groups, WithinGroups, ranks_among_equals
from annfeed.order.orders import Order
from annfeed.order.permutation import Permutation, Stream
from annfeed.order.random import SetsStream, derive_key
from annfeed.order.weighted import WeightedStream
from annfeed.order.weights import Weighting
from annfeed.order.windows import BoolArray, SetMarks, Window

Short = Literal["repeat", "drop", "keep"]
#: Sets whose draws are counted together.
_TOGETHER = 1 << 13
#: Sets that are drawn together by weight.
_DRAWN = 1 << 20


@dataclass(frozen=True, eq=False)
class Pools:
    """Controls in pools.

    Parameters
    ----------
    pools
        The controls of each pool.
    pool_of
        Number of the pool of each row, integers ``[n_rows]``; or of each group, if ``of_groups``.
    of_groups
        Whether all cells of a group have one pool.
    first_fallback
        Number of the first pool that is a fallback; these are the last ones.
    size
        Controls of a set; None for as many as it has cells.
    """

    pools: Groups
    pool_of: npt.NDArray[Any]
    of_groups: bool
    first_fallback: int
    size: int | None = None


@dataclass(frozen=True, eq=False)
class Sets(Order):
    """Sets of ``size`` cells of one group, in random order, with other cells together in each epoch.

    Parameters
    ----------
    groups
        The cells of each group.
    n_rows
        Rows of the dataset.
    size
        Cells of a set; None for all of its group.
    short
        What becomes of the last set of a group if it is short: "repeat" fills it with cells of earlier sets, "drop"
        leaves it out, "keep" delivers it.
    shuffle
        False: groups follow each other, and the rows of each are in ascending order, in every epoch.
    pools
        Controls; None for none.
    weighting
        Expected count of each set; None for one. Sets are counted group by group.
    name, in_words
        What it is, for saved states, and for people.

    Examples
    --------
    >>> order = Sets(Groups(np.array([0, 1, 0, 0]), 2), 4, size=2, shuffle=False)
    >>> stream = order.stream(0, n_rows=4, window=4)
    >>> window = order.opened(Window(0, 0, stream.take(0, 3), np.array([0, 2, 3])), stream)
    >>> [batch.tolist() for batch in window.batches], window.sets.set_of.tolist()
    ([[0, 2, 3, 0], [1, 1]], [0, 0, 1, 1, 0, 0])
    """

    groups: Groups
    n_rows: int
    size: int | None = 64
    short: Short = "repeat"
    shuffle: bool = True
    pools: Pools | None = None
    weighting: Weighting | None = None
    name: str = ""
    in_words: str = "sets"

    def length(self, n_rows: int) -> int:
        if n_rows != self.n_rows:
            raise ValueError(f"sets are of {self.n_rows} rows; expected {n_rows}")
        return int(self.n_sets().sum()) if self.weighting is None else self.weighting.n_samples

    def n_sets(self) -> Int64Array:
        """Return how many sets the cells of each group make, int64 ``[n_groups]``."""
        return sets_of(self.groups.sizes, self.size, self.short)

    def rows_per_unit(self, n_rows: int) -> int:
        cells = self.size
        if cells is None or self.short == "keep":
            cells = len(self.groups.members) // max(1, int(self.n_sets().sum()))
        controls = 0 if self.pools is None else cells if self.pools.size is None else self.pools.size
        return max(1, cells + controls)

    def stream(self, key: int, n_rows: int, window: int) -> Stream:
        return SetStream(self, key)

    def opened(self, units: Window, stream: Stream) -> Window:
        assert isinstance(stream, SetStream)
        return stream.opened(units)

    def state(self) -> dict[str, Any]:
        groups = [self.groups.digest, *([] if self.pools is None else [self.pools.pools.digest])]
        weights = None if self.weighting is None else self.weighting.digest
        return {"shuffle": self.shuffle, "weighting": weights, "sets": self.name, "set_groups": "-".join(groups)}


def sets_of(sizes: Int64Array, size: int | None, short: Short) -> Int64Array:
    """Return how many sets groups of these sizes make.

    Examples
    --------
    >>> sets_of(np.array([5, 4, 1]), 2, "keep"), sets_of(np.array([5, 4, 1]), 2, "drop")
    (array([3, 2, 1]), array([2, 2, 0]))
    """
    if size is None:
        return (sizes > 0).astype(np.int64)
    return sizes // size if short == "drop" else -(-sizes // size)


class Cells(NamedTuple):
    """The cells of some sets, those of a set following each other."""

    groups: Int64Array  # of each set
    lengths: Int64Array  # of each set
    set_of: Int64Array  # of each cell, counted among these sets
    rows: Int64Array  # of each cell
    is_repeat: BoolArray  # of each cell


class SetStream:
    """The sets of one epoch in their order. Units of the stream are places in it, which `opened` opens.

    Parameters
    ----------
    order
        What the sets are.
    key
        Integer in 0 .. 2**64 - 1.
    """

    def __init__(self, order: Sets, key: int) -> None:
        self._order = order
        #: Sets of each group without weights, and the end of each group's sets in this epoch.
        self._natural = counts = order.n_sets()
        if order.weighting is not None:
            counts = _drawn_counts(order.weighting, self._natural, derive_key(key, SetsStream.DRAWS))
        self._ends: Int64Array = np.cumsum(counts)
        self._begins = self._ends - counts
        self._sets: Permutation | None = None
        self._cells = self._controls = None
        if order.shuffle:
            self._sets = Permutation(int(counts.sum()), derive_key(key, SetsStream.SETS))
            self._cells = WithinGroups(order.groups.sizes, derive_key(key, SetsStream.CELLS))
            if order.pools is not None:
                self._controls = WithinGroups(order.pools.pools.sizes, derive_key(key, SetsStream.CONTROLS))
        #: The place up to which draws were counted, and the draws from each pool before it.
        self._counted, self._draws = 0, self._no_draws()

    def take(self, start: int, stop: int) -> Int64Array:
        """Return the sets at places start..stop-1: these places."""
        return np.arange(start, stop, dtype=np.int64)

    def opened(self, units: Window) -> Window:
        """Return the window of the rows of a window of sets."""
        # A set that repeats one of another rank comes last.
        n_own = len(units.positions) - (units.n_padding or 0)
        cells = self._cells_of(units.positions)
        rows, set_of, is_repeat = cells.rows, cells.set_of, cells.is_repeat
        by_fallback = np.zeros(len(rows), np.bool_)
        pools = self._order.pools
        if pools is not None:
            owners, pool_of = self._pools_of(cells)
            cut = int(np.searchsorted(owners, n_own))
            controls = np.concatenate(
                [
                    self._drawn(units.positions[:n_own], owners[:cut], pool_of[:cut]),
                    self._drawn(units.positions[n_own:], owners[cut:], pool_of[cut:]),
                ]
            )
            rows, set_of = np.append(rows, controls), np.append(set_of, owners)
            is_repeat = np.append(is_repeat, np.zeros(len(controls), np.bool_))
            by_fallback = np.append(by_fallback, pool_of >= pools.first_fallback)
        is_control = np.arange(len(rows)) >= len(cells.rows)
        batch_of = np.repeat(np.arange(units.n_batches), np.diff(units.offsets))[set_of]
        order = np.argsort(batch_of * 2 + is_control, kind="stable")
        set_of = set_of[order]
        marks = SetMarks(
            n_cells=None if pools is None else np.bincount(batch_of[~is_control], minlength=units.n_batches),
            set_of=set_of - units.offsets[batch_of[order]],
            is_repeat=is_repeat[order],
            is_padding=None if units.n_padding is None else set_of >= n_own,
            by_fallback=by_fallback[order],
        )
        offsets = np.append(0, np.cumsum(np.bincount(batch_of, minlength=units.n_batches))).astype(np.int64)
        return Window(units.index, units.first_batch, rows[order], offsets, units.n_padding, marks)

    def _shapes_of(self, places: Int64Array) -> tuple[Int64Array, Int64Array, Int64Array]:
        """Return group, first cell and number of cells of the sets at these places; cells are counted on and on."""
        order = self._order
        numbers = places if self._sets is None else self._sets.forward(places)
        groups = np.searchsorted(self._ends, numbers, side="right")
        number, n = numbers - self._begins[groups], order.groups.sizes[groups]
        if order.size is not None and order.short != "keep":
            return groups, number * order.size, np.full(len(places), order.size)
        natural, size = self._natural[groups], n if order.size is None else np.full(len(n), order.size)
        first = number % natural * size
        return groups, first + number // natural * n, np.minimum(size, n - first)

    def _cells_of(self, places: Int64Array) -> Cells:
        """Return the cells of the sets at these places."""
        groups, first, lengths = self._shapes_of(places)
        set_of = np.repeat(np.arange(len(places)), lengths)
        places_in_group = np.arange(len(set_of)) + (first - np.cumsum(lengths) + lengths)[set_of]
        group_of = groups[set_of]
        n = self._order.groups.sizes[group_of]
        # From the beginning of the same order again, so that no set has a cell twice if its group has enough.
        within = places_in_group % n
        if self._cells is not None:
            within = self._cells.forward(group_of, within)
        rows = self._order.groups.rows_at(group_of, within)
        return Cells(groups, lengths, set_of, rows, places_in_group >= n)

    def _pools_of(self, cells: Cells) -> tuple[Int64Array, Int64Array]:
        """Return the set and the pool of each control."""
        pools = self._order.pools
        assert pools is not None
        owners, matched = cells.set_of, np.arange(len(cells.rows))
        if pools.size is not None:
            # Control i is for cell i of the set; after the last cell come the first ones again.
            owners = np.repeat(np.arange(len(cells.groups)), pools.size)
            starts = np.cumsum(cells.lengths) - cells.lengths
            matched = starts[owners] + np.arange(len(owners)) % pools.size % cells.lengths[owners]
        known = cells.groups[owners] if pools.of_groups else cells.rows[matched]
        return owners, pools.pool_of[known].astype(np.int64)

    def _drawn(self, places: Int64Array, owners: Int64Array, pool_of: Int64Array) -> Int64Array:
        """Return the controls of the sets at successive places, which are from these pools."""
        pools = self._order.pools
        assert pools is not None
        if not len(places):
            return np.empty(0, np.int64)
        self._count_up_to(int(places[0]))
        numbers = self._draws[pool_of] + ranks_among_equals(pool_of)
        self._draws += np.bincount(pool_of, minlength=len(self._draws))
        self._counted += len(places)
        controls = self._controls_at(pool_of, numbers)
        if (pool_of >= pools.first_fallback).any():
            # Once for each set that has a control twice; its own controls and numbers follow each other.
            for owner in _with_equals(owners, controls, self._order.n_rows):
                here = slice(*np.searchsorted(owners, [owner, owner + 1]))
                controls[here] = self._told_apart(controls[here], pool_of[here], numbers[here])
        return controls

    def _controls_at(self, pool_of: Int64Array, numbers: Int64Array) -> Int64Array:
        """Return the controls at these numbers in the order of each pool, counted on and on."""
        pools = self._order.pools
        assert pools is not None
        within = numbers % pools.pools.sizes[pool_of]
        if self._controls is not None:
            within = self._controls.forward(pool_of, within)
        return pools.pools.rows_at(pool_of, within)

    def _told_apart(self, controls: Int64Array, pool_of: Int64Array, numbers: Int64Array) -> Int64Array:
        """Return the controls of a set, those of fallbacks other ones than it has from other pools, if there are."""
        pools = self._order.pools
        assert pools is not None
        result = controls.copy()
        for pool in np.unique(pool_of[pool_of >= pools.first_fallback]):
            here, others = np.flatnonzero(pool_of == pool), result[pool_of < pool]
            n = min(int(pools.pools.sizes[pool]), len(here) + len(others))
            found = self._controls_at(np.full(n, pool), numbers[here[0]] + np.arange(n))
            is_there = np.isin(found, others)
            result[here] = np.resize(np.append(found[~is_there], found[is_there]), len(here))
        return result

    def _count_up_to(self, place: int) -> None:
        """Count the draws of the sets before ``place``."""
        pools = self._order.pools
        assert pools is not None
        if place < self._counted:
            self._counted, self._draws = 0, self._no_draws()
        while self._counted < place:
            places = self.take(self._counted, min(self._counted + _TOGETHER, place))
            if pools.of_groups:
                groups, _, lengths = self._shapes_of(places)
                draws = np.repeat(pools.pool_of[groups], lengths if pools.size is None else pools.size)
            else:
                draws = self._pools_of(self._cells_of(places))[1]
            self._draws += np.bincount(draws, minlength=len(self._draws))
            self._counted += len(places)

    def _no_draws(self) -> Int64Array:
        return np.zeros(0 if self._order.pools is None else len(self._order.pools.pools), np.int64)


def _with_equals(owners: Int64Array, rows: Int64Array, n_rows: int) -> Int64Array:
    """Return the owners that have a row more than once."""
    both = np.sort(owners * n_rows + rows)
    return np.unique(both[1:][both[1:] == both[:-1]] // n_rows)


def _drawn_counts(weighting: Weighting, natural: Int64Array, key: int) -> Int64Array:
    """Return how many sets of each group are drawn, int64 [n_groups]."""
    ends = np.cumsum(natural)
    draws = WeightedStream(weighting, key, block_size=1)
    counts = np.zeros(len(natural), np.int64)
    for start in range(0, weighting.n_samples, _DRAWN):
        sets = draws.take(start, min(start + _DRAWN, weighting.n_samples))
        counts += np.bincount(np.searchsorted(ends, sets, side="right"), minlength=len(natural))
    return counts
