"""An order of blocks in which every window has its share of every part of the dataset.

Blocks that are permuted over the whole fall into windows by chance: of a class of 40 blocks one window has two, the
next has six, and a model follows the shares of the window that it saw last. So blocks are dealt: the dataset, thought
of as a ring, is cut into as many stretches as a window has blocks, and each stretch gives one block to each window.
Which one is for a permutation of the stretch's own to say.

What a window holds. Stretches take turns in the same sequence, round after round, so a round's number of successive
blocks are of different stretches, wherever a window or a rank's share begins. (A window may cut its first and its last
block: the two parts may be of one stretch.) A shorter window has a part of a round; the sequence is a scrambled van der
Corput sequence, whose parts lie evenly in the whole.

What is left to chance. The ring is turned by a random number of blocks: each block is equally likely at each place, and
in each epoch the borders of stretches lie elsewhere. Neighbours of which a border is between come in one window, which
is as often as neighbours meet by chance. They may share a chunk, which is then decoded once for both.

Nothing is held but some numbers for each stretch.
"""

import numpy as np

from annfeed.arrays import Int64Array
from annfeed.order.random import GOLDEN, SpreadStream, UInt64Array, derive_key, hashes, mix, scattered


class Spread:
    """A pseudo-random bijection of 0..n-1 whose successive values lie evenly in 0..n-1.

    Parameters
    ----------
    n
        Number of values, at least 1.
    n_stretches
        So many successive values are of different stretches of the ring 0..n-1, which differ in length by at most
        one; at least 1.
    key
        Integer in 0 .. 2**64 - 1.
    held
        Hold 8 bytes a value, where all values are wanted: that is faster. The order is another one.

    Examples
    --------
    >>> order = Spread(12, n_stretches=4, key=1)
    >>> places = np.arange(12)
    >>> order.forward(places).reshape(3, 4)
    array([[ 5,  0, 10,  3],
           [ 7,  1,  9,  4],
           [ 6, 11,  8,  2]])
    >>> order.inverse(order.forward(places)).tolist() == places.tolist()
    True
    """

    def __init__(self, n: int, n_stretches: int, key: int, *, held: bool = False) -> None:
        self._n = n
        self._n_stretches = k = min(n, n_stretches)
        self._turn = derive_key(key, SpreadStream.TURN) % n
        #: The stretch whose turn it is at each place of a round, and the place of each stretch.
        self._stretches = scrambled(k, derive_key(key, SpreadStream.STRETCHES))
        self._places = np.argsort(self._stretches).astype(np.int64, copy=False)
        lengths = n // k + (self._places < n % k)
        self._ends = np.cumsum(lengths)
        self._starts = self._ends - lengths
        within_key = derive_key(key, SpreadStream.BLOCKS)
        self._within = (HeldPermutations if held else SmallPermutations)(lengths, within_key)
        self._join_at_borders(lengths, derive_key(key, SpreadStream.BORDERS))

    def _join_at_borders(self, lengths: Int64Array, key: int) -> None:
        """Draw the round in which the first block of each stretch meets the last one of the stretch before."""
        shortest, k = self._n // self._n_stretches, self._n_stretches
        steps = (hashes(key, 0, k) % np.uint64(max(1, shortest - 1))).astype(np.int64) + 1
        first = (
            np.cumsum(steps) % shortest
        )  # another one at each border, but for that of the last stretch and the first
        last = np.roll(first, -1)
        every = np.arange(k)
        #: Each stretch's permutation is mended by two swaps: of its first block, then of its last.
        self._first_with = self._within.forward(every, first)
        self._last = lengths - 1
        last_with = _swapped(self._within.forward(every, last), 0, self._first_with)
        self._last_with = np.where(first == last, self._last, last_with)

    def forward(self, places: Int64Array) -> Int64Array:
        """The values at these places, int64 of the same length; places must lie in 0..n-1."""
        rounds, turns = np.divmod(places, self._n_stretches)
        stretches = self._stretches[turns]
        blocks = _swapped(self._within.forward(stretches, rounds), 0, self._first_with[stretches])
        blocks = _swapped(blocks, self._last[stretches], self._last_with[stretches])
        values: Int64Array = self._starts[stretches] + blocks + self._turn
        return np.where(values >= self._n, values - self._n, values)

    def inverse(self, values: Int64Array) -> Int64Array:
        """The places of these values, int64 of the same length; values must lie in 0..n-1."""
        numbers = np.where(values < self._turn, values + (self._n - self._turn), values - self._turn)
        stretches = np.searchsorted(self._ends, numbers, side="right")
        blocks = _swapped(numbers - self._starts[stretches], self._last[stretches], self._last_with[stretches])
        blocks = _swapped(blocks, 0, self._first_with[stretches])
        rounds = self._within.inverse(stretches, blocks)
        places: Int64Array = rounds * self._n_stretches + self._places[stretches]
        return places


class SmallPermutations:
    """Pseudo-random permutations of 0..n-1 for many n at once, each under a key of its own.

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
    [2, 1, 0, 4, 0, 1, 2, 3]
    """

    def __init__(self, sizes: Int64Array, key: int) -> None:
        self._sizes = sizes.astype(np.uint64)
        # After r rounds two numbers were always swapped together with a chance of 2**-r: little for any of n**2 pairs.
        self._n_rounds = 16 + 2 * (int(sizes.max()) - 1).bit_length()
        self._keys = hashes(key, 0, len(sizes))

    def forward(self, which: Int64Array, numbers: Int64Array) -> Int64Array:
        """Where these permutations take these numbers, int64 of the same length."""
        return self._walk(which, numbers, range(self._n_rounds))

    def inverse(self, which: Int64Array, numbers: Int64Array) -> Int64Array:
        """What these permutations take to these numbers, int64 of the same length."""
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
    """What `SmallPermutations` are, found by sorting: faster where all numbers are wanted, and 8 bytes each.

    Examples
    --------
    >>> many = HeldPermutations(np.array([3, 5]), key=1)
    >>> many.forward(np.array([0, 0, 0, 1, 1, 1, 1, 1]), np.array([0, 1, 2, 0, 1, 2, 3, 4])).tolist()
    [2, 1, 0, 4, 0, 1, 2, 3]
    """

    def __init__(self, sizes: Int64Array, key: int) -> None:
        ends = np.cumsum(sizes)
        self._starts = ends - sizes
        # The upper bits of a ticket tell the permutation, the others are its number's hash.
        shift = np.uint64((len(sizes) - 1).bit_length())
        tickets = hashes(key, 0, int(ends[-1])) >> shift
        tickets |= np.repeat(np.arange(len(sizes), dtype=np.uint64) << (np.uint64(64) - shift), sizes)
        self._order = np.argsort(tickets, kind="stable").astype(np.int64, copy=False)

    def forward(self, which: Int64Array, numbers: Int64Array) -> Int64Array:
        """Where these permutations take these numbers, int64 of the same length."""
        starts = self._starts[which]
        there: Int64Array = self._order[starts + numbers] - starts
        return there

    def inverse(self, which: Int64Array, numbers: Int64Array) -> Int64Array:
        """What these permutations take to these numbers, int64 of the same length."""
        places = np.empty_like(self._order)
        places[self._order] = np.arange(len(places))
        starts = self._starts[which]
        here: Int64Array = places[starts + numbers] - starts
        return here


def scrambled(n: int, key: int) -> Int64Array:
    """The numbers 0..n-1 in a random order of which every part lies evenly among them, int64 [n].

    Source: Owen, "Randomly permuted (t,m,s)-nets and (t,s)-sequences", 1995: the bits of van der Corput's sequence,
    each flipped or not by those before it. Here numbers are the ranks of its values.

    Examples
    --------
    >>> scrambled(8, key=1)
    array([4, 2, 7, 0, 5, 3, 6, 1])
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
    """These values, with ``some`` and ``others`` in each other's place."""
    return np.where(values == some, others, np.where(values == others, some, values))
