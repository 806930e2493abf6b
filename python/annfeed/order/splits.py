"""Random splits of rows, by group and by stratum, equal on every machine; dataset/rows.py reads the columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from annfeed.arrays import Int64Array
from annfeed.order.permutation import shuffled
from annfeed.order.random import SplitStream, derive_key, hashes

Float64Array = npt.NDArray[np.float64]

# Numbers of the random streams of one seed.


def check_fractions(fractions: Mapping[str, float]) -> dict[str, float]:
    """Return the fractions as floats.

    Examples
    --------
    >>> check_fractions({"train": 0.9, "test": 0.1})
    {'train': 0.9, 'test': 0.1}
    """
    if not isinstance(fractions, Mapping):
        raise TypeError(f"fractions are {fractions!r}; expected {{name: fraction}}, as {{'train': 0.9, …}}")
    checked = {}
    for name, fraction in fractions.items():
        if isinstance(fraction, bool) or not isinstance(fraction, int | float | np.number):
            raise TypeError(f"the fraction of {name!r} is {fraction!r}; expected a number")
        if not 0 < fraction <= 1:
            raise ValueError(f"the fraction of {name!r} is {fraction}; expected a number above 0, up to 1")
        checked[name] = float(fraction)
    total = math.fsum(checked.values())
    if abs(total - 1) > 1e-6:
        raise ValueError(f"the fractions {checked} sum to {total}; expected 1")
    return checked


def split_rows(
    n_rows: int,
    fractions: Mapping[str, float],
    *,
    groups: npt.ArrayLike | None = None,
    strata: npt.ArrayLike | None = None,
    seed: int = 0,
) -> dict[str, Int64Array]:
    """Return the rows of each part, ascending.

    Without groups each part gets its fraction of the rows, and of each stratum, to within one row. Groups are not
    divided: large ones first, each goes to the part that brings the rows (of each stratum) closest to the fractions, in
    the least squares of the relative errors. This is a greedy rule like that of sklearn's StratifiedGroupKFold.

    Parameters
    ----------
    n_rows
        Rows of the dataset.
    fractions
        Fraction of each part by name; above 0, with a sum of 1.
    groups
        Integers [n_rows] >= 0; rows of one number stay together.
    strata
        Integers [n_rows]; rows of one number are divided in proportion. Numbers below 0 are strata, too.
    seed
        0 <= seed < 2**64.

    Examples
    --------
    >>> parts = split_rows(8, {"train": 0.75, "test": 0.25}, groups=[0, 0, 1, 1, 2, 2, 3, 3])
    >>> {name: rows.tolist() for name, rows in parts.items()}
    {'train': [0, 1, 2, 3, 4, 5], 'test': [6, 7]}
    """
    fractions = check_fractions(fractions)
    shares = list(fractions.values())
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64:
        raise ValueError(f"seed is {seed!r}; expected an integer from 0 to 2**64 - 1")
    codes = np.zeros(n_rows, dtype=np.int64)
    if strata is not None:
        codes = np.unique(np.asarray(strata), return_inverse=True)[1].astype(np.int64, copy=False)
    if groups is None:
        part_of = _by_row(codes, shares, int(seed))
    else:
        part_of = _by_group(np.asarray(groups, dtype=np.int64), codes, shares, int(seed))
    parts = {name: np.flatnonzero(part_of == part) for part, name in enumerate(fractions)}
    for name, rows in parts.items():
        if not len(rows):
            of = f"{n_rows} rows" if groups is None else f"{len(np.unique(np.asarray(groups)))} groups"
            raise ValueError(
                f"part {name!r} gets no row: there are {of} for fractions {fractions}. "
                "Use fewer parts or larger fractions"
            )
    return parts


def _by_row(strata: Int64Array, shares: Sequence[float], seed: int) -> Int64Array:
    n_strata = int(strata.max()) + 1 if len(strata) else 0
    order = shuffled(len(strata), derive_key(seed, SplitStream.ROWS))
    # Narrow integers, because numpy sorts them faster.
    narrow = strata.astype(np.min_scalar_type(n_strata))
    order = order[np.argsort(narrow[order], kind="stable")]
    ends = np.cumsum(np.bincount(strata, minlength=n_strata))
    part_of = np.empty(len(strata), dtype=np.int64)
    owed = [0.0] * len(shares)
    # In random order, so that the odd rows of the small parts are not always of the same strata.
    for stratum in shuffled(n_strata, derive_key(seed, SplitStream.STRATA)).tolist():
        begin, end = int(ends[stratum - 1]) if stratum else 0, int(ends[stratum])
        sizes = _sizes(end - begin, shares, owed)
        part_of[order[begin:end]] = np.repeat(np.arange(len(shares)), sizes)
    return part_of


def _sizes(n: int, shares: Sequence[float], owed: list[float]) -> list[int]:
    """Return the rows of each part of n: its share rounded down, or up if earlier strata owe it most."""
    sizes = [math.floor(n * share + 1e-9) for share in shares]
    odd = [n * share - size for share, size in zip(shares, sizes, strict=True)]
    for part in range(len(shares)):
        owed[part] += odd[part]
    # Rounded, so that equal shares compare as equal despite rounding errors; whole shares are not rounded up.
    first = sorted(range(len(shares)), key=lambda part: (odd[part] < 1e-6, -round(owed[part], 6)))
    for part in first[: n - sum(sizes)]:
        sizes[part] += 1
        owed[part] -= 1
    return sizes


def _by_group(groups: Int64Array, strata: Int64Array, shares: Sequence[float], seed: int) -> Int64Array:
    n_groups = int(groups.max()) + 1 if len(groups) else 0
    n_strata = int(strata.max()) + 1 if len(strata) else 1
    counts = np.bincount(groups * n_strata + strata, minlength=n_groups * n_strata).reshape(n_groups, n_strata)
    targets = np.outer(shares, counts.sum(axis=0))
    found: Float64Array = np.zeros_like(targets)
    part_of_group = np.zeros(n_groups, dtype=np.int64)
    empty = set(range(len(shares)))
    sizes = counts.sum(axis=1)
    # Large groups first; groups of about one size in random order.
    order = np.lexsort((hashes(derive_key(seed, SplitStream.GROUPS), 0, n_groups), -np.frexp(sizes)[1]))
    order = order[sizes[order] > 0]
    for place, group in enumerate(order.tolist()):
        size = counts[group]
        # Growth of the sum of (found - target)^2 / target; cumsum adds in the same order on every machine.
        growth = np.cumsum(size * (size + 2 * (found - targets)) / targets, axis=1)[:, -1]
        allowed = sorted(empty) if len(order) - place <= len(empty) else range(len(shares))
        part = min(allowed, key=lambda p: float(growth[p]), default=0)
        part_of_group[group] = part
        found[part] += size
        empty.discard(part)
    return part_of_group[groups]
