"""Random numbers as functions of a key and a counter, equal on every machine.

All of them are splitmix64, which is not for cryptography. They do not depend on versions of libraries or on global
generators. The enums number the streams of one key. Orders, splits and saved states depend on all of these numbers,
which therefore never change.
"""

from enum import IntEnum

import numpy as np
import numpy.typing as npt

UInt64Array = npt.NDArray[np.uint64]

_MASK = 2**64 - 1
#: The step of splitmix64's counter.
GOLDEN = 0x9E3779B97F4A7C15


class EpochStream(IntEnum):
    """Streams of the key of an epoch (its seed and number)."""

    ORDER = 0
    RESHUFFLE = 1
    WORKERS = 2
    ROWS = 3


class DrawStream(IntEnum):
    """Streams of the key of an order of rows drawn by weight."""

    START = 0
    ROWS = 1
    PLACES = 2
    RUNS = 3


class SpreadStream(IntEnum):
    """Streams of the key of an epoch's order, where blocks are spread."""

    TURN = 0
    STRETCHES = 1
    BLOCKS = 2
    BORDERS = 3


class SetsStream(IntEnum):
    """Streams of the key of an epoch's order, where it is of sets of cells."""

    SETS = 0
    CELLS = 1
    CONTROLS = 2
    DRAWS = 3


class SplitStream(IntEnum):
    """Streams of the seed of a split."""

    ROWS = 0
    STRATA = 1
    GROUPS = 2


def mix(values: UInt64Array) -> UInt64Array:
    """Apply the finaliser of splitmix64, a bijection of 64 bits, to `values` in place."""
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
        key = int(mix(np.array([((key ^ part) + GOLDEN) & _MASK], dtype=np.uint64))[0])
    return key


def row_key(seed: int, epoch: int) -> int:
    """Return the key of what is drawn in each row in an epoch, such as the genes of its tokens.

    Examples
    --------
    >>> row_key(0, 0) != row_key(0, 1)
    True
    """
    return derive_key(seed, epoch, EpochStream.ROWS)


def hashes(key: int, start: int, stop: int) -> UInt64Array:
    """Return numbers start..stop-1 of the splitmix64 sequence seeded with `key`; they are distinct for one key.

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
    counters *= np.uint64(GOLDEN)
    counters += np.uint64(key)
    return mix(counters)


def scattered(values: UInt64Array, key: int) -> UInt64Array:
    """Return a hash of each value, uint64 of the same shape; for one key, different values have different hashes.

    Examples
    --------
    >>> int(scattered(np.array([1], dtype=np.uint64), 1234567)[0]) == int(hashes(1234567, 0, 1)[0])
    True
    """
    return mix(values * np.uint64(GOLDEN) + np.uint64(key))
