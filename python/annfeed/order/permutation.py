"""Keyed permutations of numbers and of blocks of numbers, computed on demand.

A permutation of 100 million rows must not be stored in every process. Each class here computes `take(start, stop)` for
any stretch of its stream from a 64-bit key, in time and memory proportional to the stretch.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import gcd, isqrt
from typing import Any, NamedTuple, Protocol

import numpy as np

from annfeed.arrays import Int64Array
from annfeed.order.random import GOLDEN, UInt64Array, derive_key, hashes, mix

#: Rounds of a Feistel network.
ROUNDS = 8
# Below this many values a sorted table of hashes is cheap (32 KiB) and exact; a Feistel network with tiny halves is not
# (with two odd sides it only makes even permutations).
_TABLE_LIMIT = 4096


class Stream(Protocol):
    """The positions of an epoch in their order, with random access."""

    def take(self, start: int, stop: int) -> Int64Array:
        """Return the positions at places start..stop-1 of the stream, int64 [stop - start]."""
        ...


class Bijection(Protocol):
    """A permutation of 0..n-1 with its inverse."""

    def forward(self, places: Int64Array, /) -> Int64Array:
        """Return the values at these places, int64 of the same length."""
        ...

    def inverse(self, values: Int64Array, /) -> Int64Array:
        """Return the places of these values, int64 of the same length."""
        ...


def shuffled(n: int, key: int) -> Int64Array:
    """Return the numbers 0..n-1 in the order of their hashes under `key`, int64 [n], in O(n log n).

    Examples
    --------
    >>> sorted(shuffled(4, key=7).tolist())
    [0, 1, 2, 3]
    """
    # Hashes under one key are distinct, so the result does not depend on the sorting algorithm.
    return np.argsort(hashes(key, 0, n)).astype(np.int64, copy=False)


class Feistel(NamedTuple):
    """An alternating Feistel network over two mixed-radix halves, with cycle walking for results that are not below n.

    Source: Black, Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002, method 3.

    Parameters
    ----------
    n
        Number of values: uint64, or, for a permutation of its own for each value that is mapped, uint64 ``[m]``.
    sides
        Sizes of the two halves, each of the shape of ``n``; their product is at least n.
    round_keys
        Keys of the rounds, each of the shape of ``n``.

    Examples
    --------
    >>> network = Feistel(np.uint64(5), (np.uint64(3), np.uint64(2)), [np.uint64(key) for key in range(8)])
    >>> sorted(network.walk(np.arange(5)).tolist())
    [0, 1, 2, 3, 4]
    """

    n: Any
    sides: tuple[Any, Any]
    round_keys: Sequence[Any]

    def walk(self, values: Int64Array, *, inverse: bool = False) -> Int64Array:
        """Return the values after the permutation, or before it, int64 of the same length."""
        result = self._rounds(values.astype(np.uint64), inverse=inverse)
        outside = np.flatnonzero(result >= self.n)
        while outside.size:
            result[outside] = self._at(outside)._rounds(result[outside], inverse=inverse)
            outside = outside[result[outside] >= self._at(outside).n]
        return result.astype(np.int64)

    def _at(self, some: Int64Array) -> "Feistel":
        if not self.n.ndim:
            return self
        sides = self.sides[0][some], self.sides[1][some]
        return Feistel(self.n[some], sides, [key[some] for key in self.round_keys])

    def _rounds(self, values: UInt64Array, *, inverse: bool) -> UInt64Array:
        width = self.sides[1]
        left = values // width
        halves = [left, values - left * width]
        rounds: Iterable[int] = range(len(self.round_keys) - 1, -1, -1) if inverse else range(len(self.round_keys))
        for i in rounds:
            moved, fixed = i % 2, 1 - i % 2
            side = self.sides[moved]
            # Multiply-shift maps 32 hash bits to 0..side-1; sides stay below 2**32 because n stays below 2**63.
            shift = mix(halves[fixed] * np.uint64(GOLDEN) + self.round_keys[i]) >> np.uint64(32)
            shift = (shift * side) >> np.uint64(32)
            total = halves[moved] + (side - shift if inverse else shift)
            halves[moved] = np.where(total >= side, total - side, total)
        result: UInt64Array = halves[0] * width + halves[1]
        return result


class Permutation:
    """A pseudo-random bijection of 0..n-1 that is computed, not stored.

    Up to 4,096 values it is a table; above, a `Feistel` network over two halves of about sqrt(n) values each.

    Parameters
    ----------
    n
        Number of values, 0 <= n < 2**63.
    key
        Integer in 0 .. 2**64 - 1.

    Examples
    --------
    >>> order = Permutation(100_000_000, key=1)
    >>> places = np.array([0, 1, 99_999_999])
    >>> order.inverse(order.forward(places)).tolist()
    [0, 1, 99999999]
    """

    def __init__(self, n: int, key: int) -> None:
        self._n = n
        self._table: Int64Array | None = None
        if n <= _TABLE_LIMIT:
            self._table = shuffled(n, key)
            self._inverse_table = np.argsort(self._table).astype(np.int64, copy=False)
            return
        left = isqrt(n - 1) + 1
        self._network = Feistel(
            np.uint64(n),
            (np.uint64(left), np.uint64(-(-n // left))),
            [np.uint64(derive_key(key, i)) for i in range(ROUNDS)],
        )

    def forward(self, places: Int64Array) -> Int64Array:
        """Return the values at these places, int64 of the same length; places must lie in 0..n-1."""
        return self._network.walk(places) if self._table is None else self._table[places]

    def inverse(self, values: Int64Array) -> Int64Array:
        """Return the places of these values, int64 of the same length; values must lie in 0..n-1."""
        return self._network.walk(values, inverse=True) if self._table is None else self._inverse_table[values]

    def take(self, start: int, stop: int) -> Int64Array:
        """Return the positions at places start..stop-1 of the stream, int64 [stop - start]."""
        return self.forward(np.arange(start, stop, dtype=np.int64))


class EvenMix:
    """A pseudo-random order of the numbers of several classes, in which every stretch has each class in its share.

    Places are assigned in steps of about the golden ratio, which fall evenly into any interval; a `Permutation` chooses
    the number within the class. Source of the steps: Knuth, "The art of computer programming" 3, section 6.4, on
    Fibonacci hashing.

    Parameters
    ----------
    starts
        int64 [n_classes + 1], class c has the numbers starts[c] .. starts[c + 1] - 1; the first is 0.
    key
        Integer in 0 .. 2**64 - 1.

    Examples
    --------
    >>> mix = EvenMix(np.array([0, 8, 12]), key=1)
    >>> order = mix.forward(np.arange(12))
    >>> (order >= 8).astype(int).tolist(), sorted(order.tolist()) == list(range(12))
    ([0, 0, 1, 0, 1, 0, 0, 1, 0, 1, 0, 0], True)
    """

    def __init__(self, starts: Int64Array, key: int) -> None:
        self._starts = starts
        self._n = n = int(starts[-1])
        step = max(1, round(n * (5**0.5 - 1) / 2))
        while gcd(step, n) > 1:
            step += 1
        self._step, self._back = step, pow(step, -1, n)
        self._first = derive_key(key, len(starts)) % n
        self._classes = [
            Permutation(end - begin, derive_key(key, number))
            for number, (begin, end) in enumerate(pairwise(starts.tolist()))
        ]

    def forward(self, places: Int64Array) -> Int64Array:
        """Return the numbers at these places, int64 of the same length; places must lie in 0..n-1."""
        return self._within((places * self._step + self._first) % self._n, inverse=False)

    def inverse(self, values: Int64Array) -> Int64Array:
        """Return the places of these numbers, int64 of the same length; numbers must lie in 0..n-1."""
        return (self._within(values, inverse=True) - self._first) * self._back % self._n

    def _within(self, numbers: Int64Array, *, inverse: bool) -> Int64Array:
        class_of = np.searchsorted(self._starts, numbers, side="right") - 1
        result = np.empty_like(numbers)
        for number in np.unique(class_of).tolist():
            here, begin = class_of == number, int(self._starts[number])
            order = self._classes[number]
            result[here] = begin + (order.inverse if inverse else order.forward)(numbers[here] - begin)
        return result


class EqualBlocks:
    """Blocks of `size` neighbouring rows (the last one may be short) in permuted order; nothing is stored per block.

    Parameters
    ----------
    n_rows
        Rows of the file, at least one.
    size
        Rows of a block.
    key
        Integer in 0 .. 2**64 - 1.
    blocks
        The order of the blocks, a bijection of their numbers; None for a `Permutation` under ``key``.

    Examples
    --------
    >>> EqualBlocks(5, 2, key=0).take(0, 5).tolist()
    [4, 2, 3, 0, 1]
    """

    def __init__(self, n_rows: int, size: int, key: int, blocks: Bijection | None = None) -> None:
        n_blocks = -(-n_rows // size)
        self._size = size
        self._blocks = Permutation(n_blocks, key) if blocks is None else blocks
        last_slot = int(self._blocks.inverse(np.array([n_blocks - 1], dtype=np.int64))[0])
        # After the short block, places are ahead of those of whole blocks by the rows that it lacks.
        self._missing = n_blocks * size - n_rows
        self._short_end = (last_slot + 1) * size - self._missing

    def take(self, start: int, stop: int) -> Int64Array:
        """Return the positions at places start..stop-1 of the stream, int64 [stop - start]."""
        places = np.arange(start, stop, dtype=np.int64)
        if not places.size:
            return places
        places[places >= self._short_end] += self._missing
        slots = places // self._size
        first = int(slots[0])
        blocks = self._blocks.forward(np.arange(first, int(slots[-1]) + 1, dtype=np.int64))
        rows: Int64Array = blocks[slots - first] * self._size + (places - slots * self._size)
        return rows


class GivenBlocks:
    """Blocks with explicit borders in permuted order; keeps three int64 per block, and nothing per row.

    Parameters
    ----------
    n_rows
        Rows of the file.
    starts
        int64 [n_blocks], first row of each block: 0, then strictly increasing, below n_rows.
    key
        Integer in 0 .. 2**64 - 1.
    blocks
        The order of the blocks, a bijection of their numbers; None for that of their hashes under ``key``.

    Examples
    --------
    >>> GivenBlocks(5, np.array([0, 1, 4]), key=0).take(0, 5).tolist()
    [4, 1, 2, 3, 0]
    """

    def __init__(self, n_rows: int, starts: Int64Array, key: int, blocks: Bijection | None = None) -> None:
        # A table, because starts are one anyway.
        order = shuffled(len(starts), key) if blocks is None else blocks.forward(np.arange(len(starts)))
        lengths = np.diff(starts, append=n_rows)[order]
        self._first_rows = starts[order]
        self._ends = np.cumsum(lengths)
        self._begins = self._ends - lengths

    def take(self, start: int, stop: int) -> Int64Array:
        """Return the positions at places start..stop-1 of the stream, int64 [stop - start]."""
        places = np.arange(start, stop, dtype=np.int64)
        slots = np.searchsorted(self._ends, places, side="right")
        rows: Int64Array = self._first_rows[slots] + (places - self._begins[slots])
        return rows
