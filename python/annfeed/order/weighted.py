"""The draws of an epoch by weight, found on demand: which rows come, and in which order.

A row that is due x times comes x times rounded down or up, by chance, so that the mean over epochs is exactly x, and
all rows together come exactly n times: systematic sampling with unequal probabilities from rows in random order
(Hartley and Rao, "Sampling with unequal probabilities and without replacement", Annals of Mathematical Statistics 33,
1962). So shares of classes are as close to the weights as with independent draws, or closer. There is no limit at 2**24
rows, as torch.multinomial has, and no draw is held: an epoch costs some numbers for 64 rows. Windows and ranks are
cut in order/epoch.py.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from annfeed.arrays import Int64Array
from annfeed.order.permutation import EqualBlocks, EvenMix, Order, Permutation, shuffled
from annfeed.order.random import DrawStream, derive_key, hashes, scattered
from annfeed.order.weights import UNIT, Float64Array, Weighting, level_of

#: Cells that stay neighbours when cells are put in random order: neighbours in the file are cheap to read together.
_RUN = 16
#: Cells looked at together while draws are found: 64 rows each, a few numbers a row.
_CELLS = 4096

# Separate the streams of random numbers that one epoch's key feeds.


class WeightedOrder:
    """The draws of one epoch in the order in which they are delivered; can be entered anywhere.

    Single draws (``block_size=1``) come in a uniform pseudo-random order. Blocks are runs of neighbouring rows drawn
    that are due about equally often, permuted over the epoch so that each stretch of it has blocks of each kind in
    their shares; the copies of a row that is due often are dealt to different blocks.

    Parameters
    ----------
    weighting
        How often each row is due.
    key
        Integer in 0 .. 2**64 - 1.
    block_size
        Draws of a block.

    Examples
    --------
    >>> sorted(WeightedOrder(Weighting([1.0, 0.0, 3.0]), key=1, block_size=1).rows(0, 3).tolist())
    [0, 2, 2]
    """

    def __init__(self, weighting: Weighting, key: int, block_size: int) -> None:
        self._weighting = weighting
        self._key = derive_key(key, DrawStream.ROWS)
        self._block_size = block_size
        n = weighting.n_samples
        # Cells in random order, so that no regularity of the file meets the regular steps of systematic sampling.
        borders = weighting.level_starts
        runs = [
            (begin + _in_runs(end - begin, derive_key(key, DrawStream.RUNS, level))).astype(weighting.unit.dtype)
            for level, (begin, end) in enumerate(pairwise(borders.tolist()))
        ]
        self._cells = np.concatenate(runs)
        # Whole numbers are added as such, so that what is due for certain is drawn for certain.
        filled, whole = np.modf(weighting.due[self._cells])
        np.cumsum(filled, out=filled)
        ends = np.cumsum(whole.astype(np.int64))
        short = n - int(ends[-1]) - float(filled[-1])  # rounding errors
        # Between rounded numbers, so that no sum of weights meets it.
        start = (int(hashes(derive_key(key, DrawStream.START), 0, 1)[0]) >> 32) * 2.0**-32 + 2.0**-33
        start = min(max(start, short), 1 + min(short, 0) - 2.0**-33)
        filled += start
        np.floor(filled, out=whole)
        #: Draws up to each cell and, of the place that they stand at there, the part below one.
        self._ends = np.append(0, ends + whole.astype(np.int64))
        self._ends[-1] = n
        filled -= whole
        self._odd = np.append(start, filled)
        self._level_starts = self._ends[borders]
        place_key = derive_key(key, DrawStream.PLACES)
        self._places: Order = Permutation(n, place_key)
        if block_size > 1:
            # Every window gets blocks of rare and of common rows in their shares, not by chance.
            level_blocks = -(-self._level_starts // block_size)
            self._places = EqualBlocks(n, block_size, place_key, EvenMix(level_blocks, place_key))

    def rows(self, start: int, stop: int) -> Int64Array:
        """The rows at places start..stop-1 of the stream, int64 [stop - start]."""
        draws = self._places.rows(start, stop)
        return self._rows_of(draws if self._block_size == 1 else self._spread(draws))

    def _rows_of(self, draws: Int64Array) -> Int64Array:
        order = np.argsort(draws)
        wanted = draws[order]
        cell_of = np.searchsorted(self._ends, wanted, side="right") - 1
        cells, firsts = np.unique(cell_of, return_index=True)
        bounds = np.append(firsts, len(wanted))
        rows = np.empty(len(draws), dtype=np.int64)
        for a in range(0, len(cells), _CELLS):
            some = cells[a : a + _CELLS]
            here = slice(bounds[a], bounds[min(a + _CELLS, len(cells))])
            ends = self._ends[some, None] + self._drawn(some)
            found = np.searchsorted(ends.ravel(), wanted[here], side="right")
            units = self._weighting.unit[self._cells[some]].astype(np.int64)
            rows[order[here]] = units[found // UNIT] * UNIT + found % UNIT
        return rows

    def _drawn(self, places: Int64Array) -> Int64Array:
        """Draws up to each row of some cells, int64 [n_cells, 64]."""
        cells = self._cells[places]
        levels = np.searchsorted(self._weighting.level_starts, cells, side="right") - 1
        rows = self._weighting.unit[cells, None].astype(np.int64) * UNIT + np.arange(UNIT)
        due = self._weighting.copies(np.minimum(rows, self._weighting.n_rows - 1))
        due[(rows >= self._weighting.n_rows) | (level_of(due) != levels[:, None])] = 0.0
        # Rows in random order: the numbers' upper bits decide, the lowest six say which row it is.
        tickets = scattered(rows.astype(np.uint64), self._key)
        tickets = tickets & ~np.uint64(UNIT - 1) | np.arange(UNIT, dtype=np.uint64)
        tickets.sort(axis=1)
        order = (tickets & np.uint64(UNIT - 1)).astype(np.int64)
        filled = np.cumsum(np.take_along_axis(due, order, axis=1), axis=1)
        n_drawn = (self._ends[places + 1] - self._ends[places])[:, None]
        upto = np.minimum(np.floor(filled + self._odd[places, None]).astype(np.int64), n_drawn)
        np.copyto(upto, n_drawn, where=filled >= filled[:, -1:])
        counts = np.empty_like(upto)
        np.put_along_axis(counts, order, np.diff(upto, axis=1, prepend=0), axis=1)
        if not self._weighting.replacement:
            _once(counts, due)
        upto_here: Int64Array = np.cumsum(counts, axis=1)
        return upto_here

    def _spread(self, slots: Int64Array) -> Int64Array:
        """The draw in each slot: of every level, neighbouring draws but not the copies of a row side by side."""
        draws = slots.copy()
        level_of_slot = np.searchsorted(self._level_starts, slots, side="right") - 1
        for level in np.unique(level_of_slot[level_of_slot > 0]).tolist():
            first, last = int(self._level_starts[level]), int(self._level_starts[level + 1])
            here = level_of_slot == level
            draws[here] = first + dealt(slots[here] - first, last - first, self._block_size, 1 << level)
        return draws


def dealt(slots: Int64Array, n: int, block_size: int, most: int) -> Int64Array:
    """Return which of n neighbours is in each slot, so that up to ``most`` successive ones are in different blocks.

    The n are cut into groups of ``block_size * most`` or more, and each group is dealt to its blocks in turn, as cards.

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
    >>> dealt(np.arange(12), 12, block_size=3, most=2).tolist()
    [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]
    """
    n_groups = max(1, n // (block_size * most))
    group = ((slots + 1) * n_groups - 1) // n
    begin = group * n // n_groups
    size = (group + 1) * n // n_groups - begin
    within = slots - begin
    # Hands of a block or more: one that is cut by the borders of blocks meets its next one only in other rounds.
    n_blocks = np.maximum(size // block_size, 1)
    least, n_longer = size // n_blocks, size % n_blocks
    longer = within < n_longer * (least + 1)
    rest = within - n_longer * (least + 1)
    block = np.where(longer, within // (least + 1), n_longer + rest // np.maximum(least, 1))
    place = np.where(longer, within % (least + 1), rest % np.maximum(least, 1))
    card: Int64Array = begin + place * n_blocks + block
    return card


def _once(counts: Int64Array, due: Float64Array) -> None:
    """Give second copies, which only rounding errors make, to rows of the same cell that have none."""
    for cell in np.flatnonzero((counts > 1).any(axis=1)).tolist():
        n_over = int((counts[cell] - 1).clip(min=0).sum())
        counts[cell] = counts[cell].clip(max=1)
        free = np.flatnonzero((counts[cell] == 0) & (due[cell] > 0))
        counts[cell, free[:n_over]] = 1


def _in_runs(n: int, key: int) -> Int64Array:
    """0..n-1 with runs of neighbours in random order."""
    runs = shuffled(-(-n // _RUN), key)
    places = (runs[:, None] * _RUN + np.arange(_RUN)).ravel()
    return places[places < n]
