"""Rows drawn by weight: how often each is to come, and which rows an epoch draws, found on demand.

Of n draws a row of weight w is due ``x = n * w / sum(w)`` times. It comes x times rounded down or up, by chance, so
that the mean over epochs is exactly x, and all rows together come exactly n times: systematic sampling with unequal
probabilities from rows in random order (Hartley and Rao, "Sampling with unequal probabilities and without replacement",
Annals of Mathematical Statistics 33, 1962). So shares of classes are as close to the weights as with independent draws,
or closer. There is no limit at 2**24 rows, as torch.multinomial has, and no draw is held: an epoch costs some numbers
for 64 rows. Windows and ranks are epoch.py's.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from annfeed.permutation import (
    EqualBlocks,
    EvenMix,
    Int64Array,
    Order,
    Permutation,
    derive_key,
    hashes,
    scattered,
    shuffled,
)

Float64Array = npt.NDArray[np.float64]

#: Rows whose draws are found together.
_UNIT = 64
#: Cells that stay neighbours when cells are put in random order: neighbours in the file are cheap to read together.
_RUN = 16
#: Rows looked at together while sums are made.
_CHUNK = 1 << 20
#: Cells looked at together while draws are found: 64 rows each, a few numbers a row.
_CELLS = 4096
#: Nearer to one copy than this is one copy, where no row may come twice.
_CERTAIN = 1 - 1e-9

# Separate the streams of random numbers that one epoch's key feeds.
_START, _ROWS, _PLACES, _RUNS = 0, 1, 2, 3


class Weighting:
    """How often each row is due in an epoch of draws.

    Parameters
    ----------
    weights
        Real numbers [n_rows], finite and not negative, not all 0; kept by reference, not copied. With ``codes``:
        [n_classes], the weight of each row of a class.
    codes
        Integers [n_rows], the class of each row.
    n_samples
        Draws in an epoch. None: n_rows with replacement; without, as many as leave every row's share in proportion to
        its weight: the sum of the weights by the largest one (for equal shares of classes, the rarest class whole).
    replacement
        Whether a row may be due more than once. Where not, and one would be, it comes once, and the others share the
        rest in proportion.

    Raises
    ------
    TypeError
        If weights are no real numbers.
    ValueError
        If weights are not as above, or n_samples is below 1 or, without replacement, above the number of rows with a
        weight.

    Examples
    --------
    >>> weighting = Weighting([1.0, 0.0, 3.0])
    >>> weighting.copies(np.arange(3)).tolist()
    [0.75, 0.0, 2.25]
    >>> Weighting([1.0, 1.0, 2.0], replacement=False).n_samples
    2
    """

    def __init__(
        self,
        weights: npt.ArrayLike,
        *,
        codes: npt.NDArray[Any] | None = None,
        n_samples: int | None = None,
        replacement: bool = True,
    ) -> None:
        self._values = _real(weights)
        self._codes = codes
        self.n_rows = len(self._values if codes is None else codes)
        self.replacement = replacement
        largest = self._check()
        self._largest = largest
        total = math.fsum(float(np.cumsum(part)[-1]) for part in self._parts(1.0))
        if n_samples is None:
            # A hair more, lest rounding errors make one less of a whole number.
            n_samples = self.n_rows if replacement else min(self.n_rows, int(total * (1 + 1e-12)))
        if n_samples < min(1, self.n_rows):
            raise ValueError(f"n_samples is {n_samples}; expected at least 1")
        self.n_samples = n_samples
        self._scale = n_samples / total if total else 0.0
        if not replacement:
            self._scale = self._clipped_scale(total)
        self._sum_cells()

    def copies(self, rows: Int64Array) -> Float64Array:
        """How often each of ``rows`` is due in an epoch, float64 of the same shape."""
        return self._scaled(self._values[rows] if self._codes is None else self._values[self._codes[rows]])

    def order(self, key: int, block_size: int) -> WeightedOrder:
        """Return the stream of one epoch's draws, blocks of ``block_size`` neighbouring ones kept together."""
        return WeightedOrder(self, key, block_size)

    @cached_property
    def digest(self) -> str:
        """A short text that differs for other weights."""
        found = hashlib.blake2b(f"{self.n_rows} {self.n_samples} {self.replacement}".encode(), digest_size=8)
        for array in (self._values, self._codes):
            if array is not None:
                found.update(array.dtype.str.encode())
                found.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
        return found.hexdigest()

    def _scaled(self, weights: npt.NDArray[Any]) -> Float64Array:
        # By the largest first: neither tiny nor huge weights overflow.
        due: Float64Array = np.divide(weights, self._largest, dtype=np.float64) * self._scale
        if not self.replacement:
            due[due > _CERTAIN] = 1.0
        return due

    def _check(self) -> float:
        """The largest weight, having looked at each."""
        what = "weights" if self._codes is None else "weights of classes"
        largest = 0.0
        for start in range(0, len(self._values), _CHUNK):
            part = self._values[start : start + _CHUNK].astype(np.float64)
            good = np.isfinite(part) & (part >= 0)
            if not good.all():
                bad = int(np.argmin(good))
                raise ValueError(f"{what}[{start + bad}] is {part[bad]}; expected a finite number that is not negative")
            largest = max(largest, float(part.max()))
        if self.n_rows and not largest:
            raise ValueError(f"all {len(self._values)} {what} are 0; expected at least one above")
        return largest or 1.0

    def _parts(self, scale: float) -> Iterator[Float64Array]:
        """The weights of all rows by the largest one, times ``scale``, some rows at a time."""
        for start in range(0, self.n_rows, _CHUNK):
            part = slice(start, start + _CHUNK)
            values = self._values[part] if self._codes is None else self._values[self._codes[part]]
            yield np.divide(values, self._largest, dtype=np.float64) * scale

    def _clipped_scale(self, total: float) -> float:
        """The scale at which rows, each at most once, are due ``n_samples`` times together."""
        n_certain, scale = 0, self._scale
        while True:
            certain, rest, n_weighted = 0, [0.0], 0
            for due in self._parts(scale):
                above = due > _CERTAIN
                certain += int(np.count_nonzero(above))
                n_weighted += int(np.count_nonzero(due))
                rest.append(float(np.cumsum(np.where(above, 0.0, due))[-1]))
            if self.n_samples > n_weighted:
                raise ValueError(
                    f"n_samples is {self.n_samples}, but only {n_weighted} rows have a weight above 0; "
                    "draw fewer, or with replacement=True"
                )
            if certain == n_certain:
                return scale
            n_certain, left = certain, math.fsum(rest)
            scale *= (self.n_samples - certain) / left if left else 1.0

    def _sum_cells(self) -> None:
        """Sum what is due by cell: the rows of a unit that are due about equally often (the same power of two)."""
        small = np.int32 if self.n_rows < 2**31 else np.int64
        units: dict[int, list[npt.NDArray[Any]]] = {}
        sums: dict[int, list[npt.NDArray[Any]]] = {}
        for start in range(0, self.n_rows, _CHUNK):
            rows = np.arange(start, min(start + _CHUNK, self.n_rows), dtype=np.int64)
            due = self.copies(rows)
            level = level_of(due)
            n_levels = int(level.max()) + 1
            # bincount adds in the order of rows, so the sums are the same on every machine.
            found = np.bincount((rows - start) // _UNIT * n_levels + level, weights=due)
            for number in range(n_levels):
                of_level = found[number::n_levels]
                there = np.flatnonzero(of_level)
                units.setdefault(number, []).append((start // _UNIT + there).astype(small))
                sums.setdefault(number, []).append(of_level[there])
        there_are = range(max(units, default=-1) + 1)
        #: Cells level by level: of level l those from level_starts[l] to level_starts[l + 1].
        self.level_starts = np.cumsum([0, *(sum(map(len, units.get(number, []))) for number in there_are)])
        #: The unit of each cell, and how often its rows are due together.
        self.unit = np.concatenate([np.empty(0, small), *(p for level in there_are for p in units.pop(level, []))])
        self.due = np.concatenate([np.empty(0), *(p for level in there_are for p in sums.pop(level, []))])


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
    >>> sorted(Weighting([1.0, 0.0, 3.0]).order(key=1, block_size=1).rows(0, 3).tolist())
    [0, 2, 2]
    """

    def __init__(self, weighting: Weighting, key: int, block_size: int) -> None:
        self._weighting = weighting
        self._key = derive_key(key, _ROWS)
        self._block_size = block_size
        n = weighting.n_samples
        # Cells in random order, so that no regularity of the file meets the regular steps of systematic sampling.
        borders = weighting.level_starts
        runs = [
            (begin + _in_runs(end - begin, derive_key(key, _RUNS, level))).astype(weighting.unit.dtype)
            for level, (begin, end) in enumerate(pairwise(borders.tolist()))
        ]
        self._cells = np.concatenate(runs)
        # Whole numbers are added as such, so that what is due for certain is drawn for certain.
        filled, whole = np.modf(weighting.due[self._cells])
        np.cumsum(filled, out=filled)
        ends = np.cumsum(whole.astype(np.int64))
        short = n - int(ends[-1]) - float(filled[-1])  # rounding errors
        # Between rounded numbers, so that no sum of weights meets it.
        start = (int(hashes(derive_key(key, _START), 0, 1)[0]) >> 32) * 2.0**-32 + 2.0**-33
        start = min(max(start, short), 1 + min(short, 0) - 2.0**-33)
        filled += start
        np.floor(filled, out=whole)
        #: Draws up to each cell and, of the place that they stand at there, the part below one.
        self._ends = np.append(0, ends + whole.astype(np.int64))
        self._ends[-1] = n
        filled -= whole
        self._odd = np.append(start, filled)
        self._level_starts = self._ends[borders]
        place_key = derive_key(key, _PLACES)
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
            rows[order[here]] = units[found // _UNIT] * _UNIT + found % _UNIT
        return rows

    def _drawn(self, places: Int64Array) -> Int64Array:
        """Draws up to each row of some cells, int64 [n_cells, 64]."""
        cells = self._cells[places]
        levels = np.searchsorted(self._weighting.level_starts, cells, side="right") - 1
        rows = self._weighting.unit[cells, None].astype(np.int64) * _UNIT + np.arange(_UNIT)
        due = self._weighting.copies(np.minimum(rows, self._weighting.n_rows - 1))
        due[(rows >= self._weighting.n_rows) | (level_of(due) != levels[:, None])] = 0.0
        # Rows in random order: the numbers' upper bits decide, the lowest six say which row it is.
        tickets = scattered(rows.astype(np.uint64), self._key)
        tickets = tickets & ~np.uint64(_UNIT - 1) | np.arange(_UNIT, dtype=np.uint64)
        tickets.sort(axis=1)
        order = (tickets & np.uint64(_UNIT - 1)).astype(np.int64)
        filled = np.cumsum(np.take_along_axis(due, order, axis=1), axis=1)
        n_drawn = (self._ends[places + 1] - self._ends[places])[:, None]
        upto = np.minimum(np.floor(filled + self._odd[places, None]).astype(np.int64), n_drawn)
        np.copyto(upto, n_drawn, where=filled >= filled[:, -1:])
        counts = np.empty_like(upto)
        np.put_along_axis(counts, order, np.diff(upto, axis=1, prepend=0), axis=1)
        if not self._weighting.replacement:
            _once(counts, due)
        return np.cumsum(counts, axis=1)

    def _spread(self, slots: Int64Array) -> Int64Array:
        """The draw in each slot: of every level, neighbouring draws but not the copies of a row side by side."""
        draws = slots.copy()
        level_of_slot = np.searchsorted(self._level_starts, slots, side="right") - 1
        for level in np.unique(level_of_slot[level_of_slot > 0]).tolist():
            first, last = int(self._level_starts[level]), int(self._level_starts[level + 1])
            here = level_of_slot == level
            draws[here] = first + dealt(slots[here] - first, last - first, self._block_size, 1 << level)
        return draws


def level_of(due: Float64Array) -> npt.NDArray[np.int16]:
    """Return 0 where at most one copy is due, else the power of two that is above.

    Examples
    --------
    >>> level_of(np.array([0.0, 0.7, 1.0, 1.5, 3.0, 4.5])).tolist()
    [0, 0, 0, 1, 2, 3]
    """
    level: npt.NDArray[np.int16] = np.where(due > 1, np.frexp(due)[1], 0).astype(np.int16)
    return level


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


def _real(weights: npt.ArrayLike) -> npt.NDArray[Any]:
    array = np.asarray(weights)
    if array.dtype.kind not in "biuf" and array.size:
        raise TypeError(f"weights have dtype {array.dtype}; expected real numbers")
    if array.ndim != 1:
        raise ValueError(f"weights have shape {array.shape}; expected one dimension, a weight for each row")
    return array if array.dtype.kind in "biuf" else array.astype(np.float64)
