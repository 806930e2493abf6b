"""Rows by group, and a pseudo-random order of the rows within each group, computed on demand."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from annfeed.arrays import Int64Array, digest_of
from annfeed.order.permutation import ROUNDS, Feistel
from annfeed.order.random import GOLDEN, derive_key, mix, scattered

#: Rows that are looked at together.
_CHUNK = 1 << 20
#: Up to so many rows of a group, at most 256, their order is found by sorting hashes; above, by a Feistel network.
_SORTED = 64
#: Pairs of codes that are looked up in a table, at most.
_TABLE = 1 << 24


class Groups:
    """The rows of each group, in ascending order: 4 bytes a row, and 8 a group.

    Parameters
    ----------
    codes
        Number of each row's group, integers ``[n_rows]``; -1 for rows of none.
    n_groups
        Number of groups.

    Examples
    --------
    >>> groups = Groups(np.array([1, 0, -1, 1]), 2)
    >>> groups.sizes, groups.rows_at(np.array([1, 0]), np.array([1, 0]))
    (array([1, 2]), array([3, 1]))
    """

    def __init__(self, codes: npt.NDArray[Any], n_groups: int) -> None:
        parts = [codes[start : start + _CHUNK] for start in range(0, len(codes), _CHUNK)]
        self.sizes: Int64Array = np.zeros(n_groups, np.int64)
        for part in parts:
            self.sizes += np.bincount(part[part >= 0], minlength=n_groups)
        #: The place in ``members`` of each group's first row.
        self.starts: Int64Array = np.cumsum(self.sizes) - self.sizes
        small = np.int32 if len(codes) < 2**31 else np.int64
        self.members = np.empty(int(self.sizes.sum()), small)
        free = self.starts.copy()
        for number, part in enumerate(parts):
            order = np.argsort(part, kind="stable")
            order = order[np.searchsorted(part[order], 0) :]
            group_of = part[order]
            counts = np.bincount(group_of, minlength=n_groups)
            begins = np.cumsum(counts) - counts
            self.members[free[group_of] + np.arange(len(order)) - begins[group_of]] = order + number * _CHUNK
            free += counts

    def __len__(self) -> int:
        return len(self.sizes)

    @cached_property
    def digest(self) -> str:
        """A digest of all groups."""
        return digest_of(np.array([digest_of(self.members), digest_of(self.sizes)]))

    def rows_at(self, groups: Int64Array, places: Int64Array) -> Int64Array:
        """Return the rows of these groups at these places in them, int64 of the same length."""
        rows: Int64Array = self.members[self.starts[groups] + places].astype(np.int64)
        return rows

    def joined(self, others: Groups) -> Groups:
        """Return these groups followed by others of the same rows."""
        both = Groups(np.empty(0, np.int8), 0)
        both.sizes = np.append(self.sizes, others.sizes)
        both.starts = np.append(self.starts, others.starts + len(self.members))
        both.members = np.append(self.members, others.members)
        return both


class WithinGroups:
    """A pseudo-random order of the places 0..size-1 of each of many groups.

    Parameters
    ----------
    sizes
        int64 ``[n_groups]``.
    key
        Integer in 0 .. 2**64 - 1.

    Examples
    --------
    >>> order = WithinGroups(np.array([3, 1000]), key=1)
    >>> sorted(order.forward(np.zeros(3, np.int64), np.arange(3)).tolist())
    [0, 1, 2]
    >>> sorted(order.forward(np.ones(1000, np.int64), np.arange(1000)).tolist()) == list(range(1000))
    True
    """

    def __init__(self, sizes: Int64Array, key: int) -> None:
        self._sizes = sizes
        self._key = key

    def forward(self, groups: Int64Array, places: Int64Array) -> Int64Array:
        """Return what comes at ``places`` in the order of each of ``groups``, int64 of the same length."""
        result = np.empty(len(groups), np.int64)
        small = self._sizes[groups] <= _SORTED
        for here, order in ((small, self._by_sorting), (~small, self._by_network)):
            if here.any():
                result[here] = order(groups[here], places[here])
        return result

    def _by_sorting(self, groups: Int64Array, places: Int64Array) -> Int64Array:
        found, slots = np.unique(groups, return_inverse=True)
        sizes = self._sizes[found]
        starts = np.cumsum(sizes) - sizes
        owners = np.repeat(np.arange(len(found)), sizes)
        within = np.arange(len(owners)) - starts[owners]
        # Each ticket is the number of the group here, 32 bits of a hash, and the place, so that no two are equal.
        tickets = mix((within + 1).astype(np.uint64) * np.uint64(GOLDEN) + self._keys(found)[owners])
        tickets = tickets >> np.uint64(32) << np.uint64(8)
        tickets |= owners.astype(np.uint64) << np.uint64(40)
        tickets |= within.astype(np.uint64)
        tickets.sort()
        result: Int64Array = (tickets[starts[slots] + places] & np.uint64(255)).astype(np.int64)
        return result

    def _by_network(self, groups: Int64Array, places: Int64Array) -> Int64Array:
        n, keys = self._sizes[groups], self._keys(groups)
        left = np.sqrt((n - 1).astype(np.float64)).astype(np.int64) + 1  # exact below 2**52
        sides = left.astype(np.uint64), (-(-n // left)).astype(np.uint64)
        rounds = [keys + np.uint64(derive_key(self._key, number)) for number in range(ROUNDS)]
        return Feistel(n.astype(np.uint64), sides, rounds).walk(places)

    def _keys(self, groups: Int64Array) -> npt.NDArray[np.uint64]:
        return scattered(groups.astype(np.uint64), self._key)


def ranks_among_equals(values: Int64Array) -> Int64Array:
    """Return how many equal values come before each value, int64 of the same length.

    Examples
    --------
    >>> ranks_among_equals(np.array([5, 7, 5, 5])).tolist()
    [0, 0, 1, 2]
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    is_first = np.append(True, ordered[1:] != ordered[:-1])[: len(values)]
    first = np.maximum.accumulate(np.where(is_first, np.arange(len(values)), 0))
    ranks = np.empty(len(values), np.int64)
    ranks[order] = np.arange(len(values)) - first
    return ranks


def joined_codes(first: npt.NDArray[Any], second: npt.NDArray[Any], n_second: int) -> tuple[npt.NDArray[Any], int]:
    """Return a code for each pair of codes that occurs, numbered by first appearance, and how many there are.

    A row where either code is -1 has code -1. Codes are as narrow as they fit.

    Examples
    --------
    >>> joined_codes(np.array([0, 1, 0, -1, 1]), np.array([2, 0, 2, 0, 1]), 3)
    (array([ 0,  1,  0, -1,  2], dtype=int8), 3)
    """
    parts = [slice(start, start + _CHUNK) for start in range(0, len(first), _CHUNK)]

    def pairs(part: slice) -> Int64Array:
        both: Int64Array = first[part].astype(np.int64) * n_second + second[part]
        both[(first[part] < 0) | (second[part] < 0)] = -1
        return both

    n_pairs = (max((int(first[part].max()) for part in parts), default=-1) + 1) * n_second
    known = None
    if n_pairs > _TABLE:
        known = np.unique(np.concatenate([np.unique(pairs(part)) for part in parts]))
        n_pairs = len(known)
    number = np.full(n_pairs + 1, -1, np.int32)  # of each pair; a missing value finds the last entry, which stays -1
    codes = np.empty(len(first), np.int32)
    n_seen = 0
    for part in parts:
        both = pairs(part)
        places = both if known is None else np.where(both < 0, -1, np.searchsorted(known, both))
        new, first_places = np.unique(places[(number[places] < 0) & (places >= 0)], return_index=True)
        number[new[np.argsort(first_places)]] = n_seen + np.arange(len(new))
        n_seen += len(new)
        codes[part] = number[places]
    return codes.astype(np.min_scalar_type(-max(1, n_seen))), n_seen
