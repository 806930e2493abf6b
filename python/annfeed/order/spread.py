"""An order of blocks in which each window has blocks from all parts of the dataset, evenly.

If blocks are permuted over the whole dataset, chance decides how many blocks of a class are in a window: in a sorted
file two in one window, six in the next. A model then learns the class shares of the window that it saw last. Here the
dataset is cut into as many stretches as a window has blocks, and each window gets one block of each stretch. Which one
is determined by a permutation for each stretch.

Windows. The stretches follow each other in a fixed sequence, round after round. So any successive blocks, as many as
there are stretches, are from different stretches, no matter where a window or a rank's shard starts. (The first and
last block of a window may be cut; these two parts may be from one stretch.) A shorter window gets a part of a round.
The sequence is a scrambled van der Corput sequence: each part of it is spread evenly, too.

Chance. The dataset is treated as a ring that is turned by a random number of blocks. So each block is equally likely at
each place, and stretches start at other blocks in each epoch. The last block of a stretch and the first block of the
next one come in the same window: neighbours share a window as often as in a random order. They may also share a chunk,
which is then decoded once for both.

Memory: a few numbers for each stretch.
"""

import numpy as np

from annfeed.arrays import Int64Array
from annfeed.order.random import GOLDEN, SpreadStream, UInt64Array, derive_key, hashes, mix, scattered


class Spread:
    """A pseudo-random bijection of 0..n-1 whose successive values are spread evenly over 0..n-1.

    Parameters
    ----------
    n
        Number of values, at least 1.
    n_stretches
        Number of stretches of the ring 0..n-1, at least 1. As many successive values are from different stretches.
        Their lengths differ by at most one.
    key
        Integer in 0 .. 2**64 - 1.
    held
        Keep a table of 8 bytes a value, which is faster if all values are needed. The order is a different one.

    Examples
    --------
    >>> order = Spread(12, n_stretches=4, key=1)
    >>> places = np.arange(12)
    >>> order.forward(places).reshape(3, 4)
    array([[ 6, 11,  3, 10],
           [ 5,  0,  4,  9],
           [ 7,  1,  2,  8]])
    >>> order.inverse(order.forward(places)).tolist() == places.tolist()
    True
    """

    def __init__(self, n: int, n_stretches: int, key: int, *, held: bool = False) -> None:
        self._n = n
        self._n_stretches = k = min(n, n_stretches)
        self._turn = derive_key(key, SpreadStream.TURN) % n
        #: The stretch at each place of a round, and the place of each stretch.
        self._stretches = scrambled(k, derive_key(key, SpreadStream.STRETCHES))
        self._places = np.argsort(self._stretches).astype(np.int64, copy=False)
        lengths = n // k + (self._places < n % k)
        self._ends = np.cumsum(lengths)
        self._starts = self._ends - lengths
        within_key = derive_key(key, SpreadStream.BLOCKS)
        self._within = (HeldPermutations if held else SmallPermutations)(lengths, within_key)
        self._join_at_borders(lengths, derive_key(key, SpreadStream.BORDERS))

    def _join_at_borders(self, lengths: Int64Array, key: int) -> None:
        """Put the first block of each stretch into the same round as the last block of the stretch before it."""
        shortest, k = self._n // self._n_stretches, self._n_stretches
        steps = (hashes(key, 0, k) % np.uint64(max(1, shortest - 1))).astype(np.int64) + 1
        # Different at both ends of a stretch, except by chance for the last one.
        first = np.cumsum(steps) % shortest
        last = np.roll(first, -1)
        every = np.arange(k)
        #: The permutation of each stretch is followed by two swaps: of its first block, then of its last block.
        self._first_with = self._within.forward(every, first)
        self._last = lengths - 1
        last_with = _swapped(self._within.forward(every, last), 0, self._first_with)
        self._last_with = np.where(first == last, self._last, last_with)

    def forward(self, places: Int64Array) -> Int64Array:
        """Return the values at these places, int64 of the same length; places must lie in 0..n-1."""
        rounds, turns = np.divmod(places, self._n_stretches)
        stretches = self._stretches[turns]
        blocks = _swapped(self._within.forward(stretches, rounds), 0, self._first_with[stretches])
        blocks = _swapped(blocks, self._last[stretches], self._last_with[stretches])
        values: Int64Array = self._starts[stretches] + blocks + self._turn
        return np.where(values >= self._n, values - self._n, values)

    def inverse(self, values: Int64Array) -> Int64Array:
        """Return the places of these values, int64 of the same length; values must lie in 0..n-1."""
        numbers = np.where(values < self._turn, values + (self._n - self._turn), values - self._turn)
        stretches = np.searchsorted(self._ends, numbers, side="right")
        blocks = _swapped(numbers - self._starts[stretches], self._last[stretches], self._last_with[stretches])
        blocks = _swapped(blocks, 0, self._first_with[stretches])
        rounds = self._within.inverse(stretches, blocks)
        places: Int64Array = rounds * self._n_stretches + self._places[stretches]
        return places


class SmallPermutations:
    """Pseudo-random permutations of 0..n-1 for many n at once, each with its own key.

    Source: Hoang, Morris, Rogaway, "An enciphering scheme based on a card shuffle", CRYPTO 2012 (swap or not): in each
    round numbers are paired by a reflection, and each pair is swapped or not.

    Parameters
    ----------
    sizes
        int64, the n of each permutation, at least 1.
    key
        Integer in 0 .. 2**64 - 1.

    Examples
    --------
    >>> many = SmallPermutations(np.array([3, 5]), key=1)
    >>> many.forward(np.array([0, 0, 0, 1, 1, 1, 1, 1]), np.array([0, 1, 2, 0, 1, 2, 3, 4])).tolist()
    [0, 2, 1, 0, 1, 4, 3, 2]
    """

    def __init__(self, sizes: Int64Array, key: int) -> None:
        self._sizes = sizes.astype(np.uint64)
        # After r rounds, two numbers have made the same moves with probability 2**-r: small even for n**2 pairs.
        self._n_rounds = 16 + 2 * (int(sizes.max()) - 1).bit_length()
        self._keys = hashes(key, 0, len(sizes))

    def forward(self, which: Int64Array, numbers: Int64Array) -> Int64Array:
        """Return the images of these numbers under these permutations, int64 of the same length."""
        return self._walk(which, numbers, range(self._n_rounds))

    def inverse(self, which: Int64Array, numbers: Int64Array) -> Int64Array:
        """Return the numbers with these images under these permutations, int64 of the same length."""
        return self._walk(which, numbers, range(self._n_rounds - 1, -1, -1))

    def _walk(self, which: Int64Array, numbers: Int64Array, rounds: range) -> Int64Array:
        sizes, keys = self._sizes[which], self._keys[which]
        result: UInt64Array = numbers.astype(np.uint64)
        for number in rounds:
            round_keys = mix(keys + np.uint64((number * GOLDEN) & (2**64 - 1)))
            centre = round_keys % sizes
            other = np.where(centre < result, centre + sizes, centre) - result
            toss = mix(np.maximum(result, other) * np.uint64(GOLDEN) + round_keys) >> np.uint64(63)
            np.copyto(result, other, where=toss.astype(bool))
        return result.astype(np.int64)


class HeldPermutations:
    """Like `SmallPermutations`, by sorting: 8 bytes a number, faster if all numbers are needed.

    Examples
    --------
    >>> many = HeldPermutations(np.array([3, 5]), key=1)
    >>> many.forward(np.array([0, 0, 0, 1, 1, 1, 1, 1]), np.array([0, 1, 2, 0, 1, 2, 3, 4])).tolist()
    [0, 1, 2, 1, 0, 4, 2, 3]
    """

    def __init__(self, sizes: Int64Array, key: int) -> None:
        ends = np.cumsum(sizes)
        self._starts = ends - sizes
        # The upper bits of a ticket are the permutation, the others the hash of the number.
        shift = np.uint64((len(sizes) - 1).bit_length())
        tickets = hashes(key, 0, int(ends[-1])) >> shift
        tickets |= np.repeat(np.arange(len(sizes), dtype=np.uint64) << (np.uint64(64) - shift), sizes)
        self._order = np.argsort(tickets, kind="stable").astype(np.int64, copy=False)

    def forward(self, which: Int64Array, numbers: Int64Array) -> Int64Array:
        """Return the images of these numbers under these permutations, int64 of the same length."""
        starts = self._starts[which]
        there: Int64Array = self._order[starts + numbers] - starts
        return there

    def inverse(self, which: Int64Array, numbers: Int64Array) -> Int64Array:
        """Return the numbers with these images under these permutations, int64 of the same length."""
        places = np.empty_like(self._order)
        places[self._order] = np.arange(len(places))
        starts = self._starts[which]
        here: Int64Array = places[starts + numbers] - starts
        return here


def scrambled(n: int, key: int) -> Int64Array:
    """Return 0..n-1 in a random order of which every part is spread evenly, int64 [n].

    Source: Owen, "Randomly permuted (t,m,s)-nets and (t,s)-sequences", 1995: the bits of van der Corput's sequence,
    each flipped or not depending on those before it. The numbers are the ranks of its values.

    Examples
    --------
    >>> scrambled(8, key=1)
    array([6, 2, 5, 1, 7, 3, 4, 0])
    """
    places = np.arange(n, dtype=np.uint64)
    values = np.zeros(n, dtype=np.uint64)
    for bit in range((n - 1).bit_length()):
        before = places & np.uint64((1 << bit) - 1) | np.uint64(1 << bit)
        flip = scattered(before, key) >> np.uint64(63)
        values = values << np.uint64(1) | (places >> np.uint64(bit) & np.uint64(1)) ^ flip
    order = np.argsort(values)
    ranks = np.empty(n, dtype=np.int64)
    ranks[order] = np.arange(n)
    return ranks


def _swapped(values: Int64Array, some: Int64Array | int, others: Int64Array) -> Int64Array:
    """Return these values with ``some`` and ``others`` exchanged."""
    return np.where(values == some, others, np.where(values == others, some, values))
