"""Keyed orders on demand: which row stands at which place of an epoch's stream.

An epoch over 100 million rows must not cost a permutation of 100 million numbers in every process. Each class here
answers `rows(start, stop)` for any stretch of its stream by arithmetic on a 64-bit key, in time and memory proportional
to the stretch. All randomness is splitmix64 of a key and a counter, so the numbers depend on no library's version,
no global generator and no earlier call. Neither ranks nor windows are known here (see `epoch.py`), and nothing here is
fit for cryptography.
"""

from collections.abc import Iterable
from math import isqrt
from typing import Protocol

import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]
_UInt64Array = npt.NDArray[np.uint64]

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15
_ROUNDS = 8
# Below this many values a sorted table of hashes is cheap (32 KiB) and exact; a Feistel network with tiny halves is not
# (with two odd sides it only makes even permutations).
_TABLE_LIMIT = 4096


class Order(Protocol):
    """A stream of rows that can be entered anywhere."""

    def rows(self, start: int, stop: int) -> Int64Array:
        """The rows at places start..stop-1 of the stream, int64 [stop - start]."""
        ...


def _mix(values: _UInt64Array) -> _UInt64Array:
    """The finaliser of splitmix64: a bijection of 64 bits. Overwrites `values`."""
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def derive_key(*parts: int) -> int:
    """Fold integers into one 64-bit key that changes with each of them and with their order.

    Parameters
    ----------
    parts
        Integers in 0 .. 2**64 - 1.

    Examples
    --------
    >>> derive_key(0, 1) != derive_key(1, 0)
    True
    """
    key = 0
    for part in parts:
        key = int(_mix(np.array([((key ^ part) + _GOLDEN) & _MASK], dtype=np.uint64))[0])
    return key


def hashes(key: int, start: int, stop: int) -> _UInt64Array:
    """Numbers start..stop-1 of the splitmix64 sequence seeded with `key`; within one key they never repeat.

    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014; constants of Vigna's
    public-domain `splitmix64.c`.

    Parameters
    ----------
    key
        Integer in 0 .. 2**64 - 1.
    start, stop
        Counters; the result is uint64 [stop - start].

    Examples
    --------
    >>> hashes(1234567, 1, 2).tolist()
    [3203168211198807973]
    """
    counters = np.arange(start + 1, stop + 1, dtype=np.uint64)
    counters *= np.uint64(_GOLDEN)
    counters += np.uint64(key)
    return _mix(counters)


def shuffled(n: int, key: int) -> Int64Array:
    """The numbers 0..n-1 in the order of their hashes under `key`, int64 [n], in O(n log n).

    Examples
    --------
    >>> sorted(shuffled(4, key=7).tolist())
    [0, 1, 2, 3]
    """
    # Hashes under one key are distinct, so the result does not depend on the sorting algorithm.
    return np.argsort(hashes(key, 0, n)).astype(np.int64, copy=False)


class InOrder:
    """The stream 0, 1, 2, ...

    Examples
    --------
    >>> InOrder().rows(2, 5).tolist()
    [2, 3, 4]
    """

    def rows(self, start: int, stop: int) -> Int64Array:
        """The rows at places start..stop-1 of the stream, int64 [stop - start]."""
        return np.arange(start, stop, dtype=np.int64)


class Permutation:
    """A pseudo-random bijection of 0..n-1 that is computed, not stored.

    Up to 4,096 values it is a table; above, an alternating Feistel network over two mixed-radix halves of about sqrt(n)
    values each, with cycle walking for the few results that are not below n. Source: Black, Rogaway, "Ciphers with
    arbitrary finite domains", CT-RSA 2002, method 3.

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
        self._sides = (left, -(-n // left))
        self._round_keys = [derive_key(key, i) for i in range(_ROUNDS)]

    def forward(self, places: Int64Array) -> Int64Array:
        """The values at these places, int64 of the same length; places must lie in 0..n-1."""
        return self._walk(places, inverse=False) if self._table is None else self._table[places]

    def inverse(self, values: Int64Array) -> Int64Array:
        """The places of these values, int64 of the same length; values must lie in 0..n-1."""
        return self._walk(values, inverse=True) if self._table is None else self._inverse_table[values]

    def rows(self, start: int, stop: int) -> Int64Array:
        """The rows at places start..stop-1 of the stream, int64 [stop - start]."""
        return self.forward(np.arange(start, stop, dtype=np.int64))

    def _walk(self, values: Int64Array, *, inverse: bool) -> Int64Array:
        result = self._network(values.astype(np.uint64), inverse=inverse)
        outside = np.flatnonzero(result >= self._n)
        while outside.size:
            result[outside] = self._network(result[outside], inverse=inverse)
            outside = outside[result[outside] >= self._n]
        return result.astype(np.int64)

    def _network(self, values: _UInt64Array, *, inverse: bool) -> _UInt64Array:
        width = np.uint64(self._sides[1])
        left = values // width
        halves = [left, values - left * width]
        rounds: Iterable[int] = range(_ROUNDS - 1, -1, -1) if inverse else range(_ROUNDS)
        for i in rounds:
            moved, fixed = i % 2, 1 - i % 2
            side = np.uint64(self._sides[moved])
            # Multiply-shift maps 32 hash bits to 0..side-1; sides stay below 2**32 because n stays below 2**63.
            shift = _mix(halves[fixed] * np.uint64(_GOLDEN) + np.uint64(self._round_keys[i])) >> np.uint64(32)
            shift = (shift * side) >> np.uint64(32)
            total = halves[moved] + (side - shift if inverse else shift)
            halves[moved] = np.where(total >= side, total - side, total)
        result: _UInt64Array = halves[0] * width + halves[1]
        return result


class EqualBlocks:
    """Blocks of `size` neighbouring rows (the last one may be short) in permuted order, found by arithmetic alone.

    Parameters
    ----------
    n_rows
        Rows of the file, at least one.
    size
        Rows of a block.
    key
        Integer in 0 .. 2**64 - 1.

    Examples
    --------
    >>> EqualBlocks(5, 2, key=0).rows(0, 5).tolist()
    [4, 2, 3, 0, 1]
    """

    def __init__(self, n_rows: int, size: int, key: int) -> None:
        n_blocks = -(-n_rows // size)
        self._size = size
        self._blocks = Permutation(n_blocks, key)
        last_slot = int(self._blocks.inverse(np.array([n_blocks - 1], dtype=np.int64))[0])
        # From the end of the short block on, the stream runs ahead of a grid of whole blocks by what that block lacks.
        self._missing = n_blocks * size - n_rows
        self._short_end = (last_slot + 1) * size - self._missing

    def rows(self, start: int, stop: int) -> Int64Array:
        """The rows at places start..stop-1 of the stream, int64 [stop - start]."""
        places = np.arange(start, stop, dtype=np.int64)
        if not places.size:
            return places
        places[places >= self._short_end] += self._missing
        slots = places // self._size
        first = int(slots[0])
        blocks = self._blocks.rows(first, int(slots[-1]) + 1)
        rows: Int64Array = blocks[slots - first] * self._size + (places - slots * self._size)
        return rows


class GivenBlocks:
    """Blocks with explicit borders in permuted order; keeps three int64 per block, and nothing per row.

    Parameters
    ----------
    n_rows
        Rows of the file.
    starts
        Integers [n_blocks], first row of each block: 0, then strictly increasing, below n_rows; empty for no rows.
    key
        Integer in 0 .. 2**64 - 1.

    Raises
    ------
    TypeError, ValueError
        Starts that are no integers, or not as above.

    Examples
    --------
    >>> GivenBlocks(5, [0, 1, 4], key=0).rows(0, 5).tolist()
    [4, 1, 2, 3, 0]
    """

    def __init__(self, n_rows: int, starts: npt.ArrayLike, key: int) -> None:
        first_rows = _checked_starts(starts, n_rows)
        order = shuffled(len(first_rows), key)  # held whole anyway, and sorting is faster than the network here
        lengths = np.diff(first_rows, append=n_rows)[order]
        self._first_rows = first_rows[order]
        self._ends = np.cumsum(lengths)
        self._begins = self._ends - lengths

    def rows(self, start: int, stop: int) -> Int64Array:
        """The rows at places start..stop-1 of the stream, int64 [stop - start]."""
        places = np.arange(start, stop, dtype=np.int64)
        slots = np.searchsorted(self._ends, places, side="right")
        rows: Int64Array = self._first_rows[slots] + (places - self._begins[slots])
        return rows


class WeightedDraws:
    """Independent draws with replacement, each row with probability proportional to its weight.

    Inverse-transform sampling on a float64 cumulative sum: any number of rows (torch.multinomial stops at 2**24).

    Parameters
    ----------
    n_rows
        Rows of the file.
    weights
        Real numbers [n_rows], non-negative and finite, with a positive sum; their float64 sums are kept.
    key
        Integer in 0 .. 2**64 - 1.

    Raises
    ------
    TypeError, ValueError
        Weights that are no real numbers, or not as above.

    Examples
    --------
    >>> WeightedDraws(3, [0.0, 1.0, 0.0], key=0).rows(0, 4).tolist()
    [1, 1, 1, 1]
    """

    def __init__(self, n_rows: int, weights: npt.ArrayLike, key: int) -> None:
        self._key = key
        self._cumulative = np.cumsum(_checked_weights(weights, n_rows))

    def rows(self, start: int, stop: int) -> Int64Array:
        """The rows at places start..stop-1 of the stream, int64 [stop - start]."""
        points = (hashes(self._key, start, stop) >> np.uint64(11)) * 2.0**-53
        if not points.size:
            return np.empty(0, dtype=np.int64)
        total = self._cumulative[-1]
        # A product with a subnormal total can round up to it, which would be a row after the last.
        points = np.minimum(points * total, np.nextafter(total, 0.0))
        # side="right" gives the first row whose sum exceeds the point: a row of weight 0 adds nothing and is never it.
        rows: Int64Array = np.searchsorted(self._cumulative, points, side="right").astype(np.int64, copy=False)
        return rows


def _checked_weights(weights: npt.ArrayLike, n_rows: int) -> npt.NDArray[np.float64]:
    array = np.asarray(weights)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"weights have dtype {array.dtype}; expected real numbers")
    if array.shape != (n_rows,):
        raise ValueError(f"weights have shape {array.shape}; expected ({n_rows},), one for each row")
    values: npt.NDArray[np.float64] = array.astype(np.float64, copy=False)
    good = np.isfinite(values) & (values >= 0)
    if not good.all():
        bad = int(np.argmin(good))
        raise ValueError(f"weights[{bad}] is {values[bad]}; expected a finite number that is not negative")
    with np.errstate(over="ignore"):
        total = float(values.sum())
    if n_rows and not 0 < total < np.inf:
        raise ValueError(f"weights sum to {total}; expected a positive finite sum")
    return values


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
