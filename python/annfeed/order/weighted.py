"""`Weighted`: an order of rows drawn by weight, computed on demand.

Draws. In n draws, a row of weight w has the expected count x = n * w / sum(w). It is drawn x times rounded down or up,
exactly x times on average over epochs, and all rows together exactly n times. This is systematic sampling with unequal
probabilities, of rows in random order (Hartley and Rao, "Sampling with unequal probabilities and without replacement",
Annals of Mathematical Statistics 33, 1962): put the rows on a line, each as long as its expected count, and mark the
points u, u + 1, ..., u + n - 1, with one random u between 0 and 1. A row is drawn once for each point on it. So shares
of classes are as close to the weights as with independent draws, or closer.

Strata. A line of single rows would need a number for each row. Only the ends of strata are stored. A stratum is the
rows, among 64 neighbours in the file, of one multiplicity: expected at most 1, 2, 4, 8, ... times. Where the rows of a
stratum are on the line is computed again, from their weights, when a draw falls into it. Strata, and the rows of a
stratum, are in random order, so that no regular pattern of the file coincides with the regular steps of the points.
Runs of 16 strata stay together, because neighbours in the file are cheap to read together.

Sums. Whole parts of expected counts are added as integers and fractions as floats, so that a row with a whole expected
count is drawn exactly so often; u is moved by the rounding error of n.

Order. Draws are numbered along the line. With single draws the epoch is a permutation of these numbers. With blocks it
is a permutation of blocks of neighbouring draws, mixed so that each stretch of the epoch has blocks of each
multiplicity in their share. The copies of a row are neighbours on the line; `interleaved` puts them into different
blocks.

Why each part is needed (tests/order/test_weighting.py has a test of each). With strata or rows in file order, classes
in a regular pattern get wrong shares. With floats alone, equal weights do not give each row once. Without
multiplicities, copies of a row stay side by side in a block, or rows that come once are separated from their
neighbours. Without the mix of blocks, windows differ in their number of rare rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from annfeed.arrays import Int64Array, integer
from annfeed.order.orders import Order
from annfeed.order.permutation import EqualBlocks, EvenMix, Permutation, Stream, shuffled
from annfeed.order.random import DrawStream, derive_key, hashes, scattered
from annfeed.order.weights import RUN_ROWS, Float64Array, Weighting, multiplicity_of

#: Neighbouring strata that stay together in the random order of strata.
_RUN = 16
#: Strata of 64 rows that are processed at a time.
_TOGETHER = 4096


@dataclass(frozen=True, eq=False)
class Weighted(Order):
    """Rows drawn by weight: single draws, or blocks of ``block_size`` draws of neighbouring rows.

    Examples
    --------
    >>> sorted(Weighted(Weighting([1.0, 0.0, 3.0])).stream(1, n_rows=3, window=3).take(0, 3).tolist())
    [0, 2, 2]
    """

    weighting: Weighting
    block_size: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "block_size", integer("block_size", self.block_size, 1))

    @property
    def in_windows(self) -> bool:
        return self.block_size > 1

    def length(self, n_rows: int) -> int:
        if self.weighting.n_rows != n_rows:
            raise ValueError(f"weights are of {self.weighting.n_rows} rows; expected {n_rows}, one for each row")
        return self.weighting.n_samples

    def stream(self, key: int, n_rows: int, window: int) -> Stream:
        return WeightedStream(self.weighting, key, self.block_size)

    def state(self) -> dict[str, Any]:
        return {"weighting": self.weighting.digest, "block_size": self.block_size}


class WeightedStream:
    """The draws of one epoch in their order, with random access.

    Parameters
    ----------
    weighting
        Expected count of each row.
    key
        Integer in 0 .. 2**64 - 1.
    block_size
        Draws of a block.

    Examples
    --------
    >>> sorted(WeightedStream(Weighting([1.0, 0.0, 3.0]), key=1, block_size=1).take(0, 3).tolist())
    [0, 2, 2]
    """

    def __init__(self, weighting: Weighting, key: int, block_size: int) -> None:
        self._weighting = weighting
        self._key = derive_key(key, DrawStream.ROWS)
        self._block_size = block_size
        n = weighting.n_samples
        # Strata in random order: no regular pattern of the file may coincide with the steps of systematic sampling.
        borders = weighting.multiplicity_starts
        runs = [
            (begin + _in_runs(end - begin, derive_key(key, DrawStream.RUNS, number))).astype(weighting.run_of.dtype)
            for number, (begin, end) in enumerate(pairwise(borders.tolist()))
        ]
        self._strata = np.concatenate(runs)
        # Whole parts are added as integers, so that whole expected counts are drawn exactly.
        length, whole = np.modf(weighting.expected[self._strata])
        np.cumsum(length, out=length)
        ends = np.cumsum(whole.astype(np.int64))
        short = n - int(ends[-1]) - float(length[-1])  # rounding errors
        # Between rounded numbers, so that no sum of weights is equal to it.
        start = (int(hashes(derive_key(key, DrawStream.START), 0, 1)[0]) >> 32) * 2.0**-32 + 2.0**-33
        start = min(max(start, short), 1 + min(short, 0) - 2.0**-33)
        length += start
        np.floor(length, out=whole)
        #: Draws before each stratum, and the part of a draw by which its start on the line exceeds them.
        self._ends = np.append(0, ends + whole.astype(np.int64))
        self._ends[-1] = n
        length -= whole
        self._carry = np.append(start, length)
        self._multiplicity_starts = self._ends[borders]
        place_key = derive_key(key, DrawStream.PLACES)
        self._draws: Stream = Permutation(n, place_key)
        if block_size > 1:
            # Every window gets its share of blocks of rare and of common rows.
            block_starts = -(-self._multiplicity_starts // block_size)
            self._draws = EqualBlocks(n, block_size, place_key, EvenMix(block_starts, place_key))

    def take(self, start: int, stop: int) -> Int64Array:
        """Return the positions at places start..stop-1 of the stream, int64 [stop - start]."""
        draws = self._draws.take(start, stop)
        return self._rows_of(draws if self._block_size == 1 else self._interleave(draws))

    def _rows_of(self, draws: Int64Array) -> Int64Array:
        order = np.argsort(draws)
        wanted = draws[order]
        stratum_of = np.searchsorted(self._ends, wanted, side="right") - 1
        strata, firsts = np.unique(stratum_of, return_index=True)
        bounds = np.append(firsts, len(wanted))
        rows = np.empty(len(draws), dtype=np.int64)
        for a in range(0, len(strata), _TOGETHER):
            some = strata[a : a + _TOGETHER]
            here = slice(bounds[a], bounds[min(a + _TOGETHER, len(strata))])
            ends = self._ends[some, None] + self._draws_up_to(some)
            found = np.searchsorted(ends.ravel(), wanted[here], side="right")
            runs_of = self._weighting.run_of[self._strata[some]].astype(np.int64)
            rows[order[here]] = runs_of[found // RUN_ROWS] * RUN_ROWS + found % RUN_ROWS
        return rows

    def _draws_up_to(self, places: Int64Array) -> Int64Array:
        """Return the draws up to each row of some strata, int64 [n_strata, 64]."""
        strata = self._strata[places]
        multiplicities = np.searchsorted(self._weighting.multiplicity_starts, strata, side="right") - 1
        rows = self._weighting.run_of[strata, None].astype(np.int64) * RUN_ROWS + np.arange(RUN_ROWS)
        expected = self._weighting.expected_counts(np.minimum(rows, self._weighting.n_rows - 1))
        expected[(rows >= self._weighting.n_rows) | (multiplicity_of(expected) != multiplicities[:, None])] = 0.0
        # Rows in random order: the lowest six bits of each number are the row, the others its sort key.
        tickets = scattered(rows.astype(np.uint64), self._key)
        tickets = tickets & ~np.uint64(RUN_ROWS - 1) | np.arange(RUN_ROWS, dtype=np.uint64)
        tickets.sort(axis=1)
        order = (tickets & np.uint64(RUN_ROWS - 1)).astype(np.int64)
        length = np.cumsum(np.take_along_axis(expected, order, axis=1), axis=1)
        n_drawn = (self._ends[places + 1] - self._ends[places])[:, None]
        upto = np.minimum(np.floor(length + self._carry[places, None]).astype(np.int64), n_drawn)
        np.copyto(upto, n_drawn, where=length >= length[:, -1:])
        counts = np.empty_like(upto)
        np.put_along_axis(counts, order, np.diff(upto, axis=1, prepend=0), axis=1)
        if not self._weighting.replacement:
            _once(counts, expected)
        upto_here: Int64Array = np.cumsum(counts, axis=1)
        return upto_here

    def _interleave(self, slots: Int64Array) -> Int64Array:
        """Return the draw in each slot: near the draw of that number, but with copies of a row in different blocks."""
        draws = slots.copy()
        multiplicity_of_slot = np.searchsorted(self._multiplicity_starts, slots, side="right") - 1
        for multiplicity in np.unique(multiplicity_of_slot[multiplicity_of_slot > 0]).tolist():
            first, last = int(self._multiplicity_starts[multiplicity]), int(self._multiplicity_starts[multiplicity + 1])
            here = multiplicity_of_slot == multiplicity
            draws[here] = first + interleaved(slots[here] - first, last - first, self._block_size, 1 << multiplicity)
        return draws


def interleaved(slots: Int64Array, n: int, block_size: int, most: int) -> Int64Array:
    """Return which of n neighbours is in each slot, so that up to ``most`` successive ones are in different blocks.

    The n are cut into groups of ``block_size * most`` or more. Within a group, the first slots of all blocks take the
    first neighbours, then the second slots, and so on.

    Parameters
    ----------
    slots
        int64, in 0..n-1.
    n
        Number of neighbours, and of slots.
    block_size
        Slots of a block.
    most
        Successive neighbours that belong in different blocks.

    Examples
    --------
    >>> interleaved(np.arange(12), 12, block_size=3, most=2).tolist()
    [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]
    """
    n_groups = max(1, n // (block_size * most))
    group = ((slots + 1) * n_groups - 1) // n
    begin = group * n // n_groups
    size = (group + 1) * n // n_groups - begin
    within = slots - begin
    # Each part of a group is at least one block long. A block across two parts takes neighbours of different rounds, so
    # successive ones are still in different blocks.
    n_blocks = np.maximum(size // block_size, 1)
    least, n_longer = size // n_blocks, size % n_blocks
    longer = within < n_longer * (least + 1)
    rest = within - n_longer * (least + 1)
    block = np.where(longer, within // (least + 1), n_longer + rest // np.maximum(least, 1))
    place = np.where(longer, within % (least + 1), rest % np.maximum(least, 1))
    draw: Int64Array = begin + place * n_blocks + block
    return draw


def _once(counts: Int64Array, expected: Float64Array) -> None:
    """Move second copies, which are rounding errors, to rows of the same stratum that have none."""
    for stratum in np.flatnonzero((counts > 1).any(axis=1)).tolist():
        n_over = int((counts[stratum] - 1).clip(min=0).sum())
        counts[stratum] = counts[stratum].clip(max=1)
        free = np.flatnonzero((counts[stratum] == 0) & (expected[stratum] > 0))
        counts[stratum, free[:n_over]] = 1


def _in_runs(n: int, key: int) -> Int64Array:
    """Return 0..n-1 with runs of neighbours in random order."""
    runs = shuffled(-(-n // _RUN), key)
    places = (runs[:, None] * _RUN + np.arange(_RUN)).ravel()
    return places[places < n]
