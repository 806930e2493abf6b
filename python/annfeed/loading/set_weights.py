"""The weights of sets of cells, from ``balance=`` or ``weights=`` of a loader; order/weighted.py draws by them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from annfeed.arrays import Int64Array, number
from annfeed.loading.set_groups import Found, listed
from annfeed.loading.weighting import weights_of_counts
from annfeed.order.weights import Float64Array, Weighting
from annfeed.user_arrays import first_few, is_series, near_matches


def weighting_of_sets(
    found: Found, n_sets: Int64Array, weights: Any, balance: str | None, temperature: float, **how: Any
) -> Weighting:
    """Return the expected count of each set, counted group by group.

    Parameters
    ----------
    found
        The groups.
    n_sets
        Sets that each group makes, int64 ``[n_groups]``.
    weights, balance, temperature
        As in `AnnDataset.get_optimized_dataloader`: ``weights`` by group.
    **how
        ``n_samples`` and ``replacement`` of `Weighting`.

    Raises
    ------
    TypeError
        If ``weights`` are not given by group.
    ValueError
        If a group has no weight, or several values in the column ``balance``.
    """
    of_group = _by_group(found, n_sets, weights) if balance is None else _balanced(found, n_sets, balance, temperature)
    codes = np.repeat(np.arange(len(n_sets)), n_sets).astype(np.min_scalar_type(max(1, len(n_sets))))
    return Weighting(of_group, codes=codes, drawn="sets", **how)


def _balanced(found: Found, n_sets: Int64Array, column: str, temperature: float) -> Float64Array:
    """Return the weight of the sets of each group, by which the values of a column get equal shares of sets."""
    codes, labels = found.columns.one(column)
    value_of = codes[found.first_rows]
    # Groups that make no set have no share, whatever their values are.
    in_sets = (found.codes >= 0) & (n_sets > 0)[found.codes]
    other = in_sets & (codes != value_of[found.codes])
    missing = np.flatnonzero((n_sets > 0) & (value_of < 0))
    if other.any() or len(missing):
        groups = np.unique(found.codes[other]).astype(np.int64) if other.any() else missing
        raise ValueError(
            f"{found.columns.place}: balance={column!r}: {found.told(groups)} have several values there, or none; "
            "expected one in each group of CellSets(by=…). Add the column to by, or balance another one"
        )
    sets_of_value = np.zeros(max(1, len(labels)), np.int64)
    np.add.at(sets_of_value, value_of[n_sets > 0], n_sets[n_sets > 0])
    return weights_of_counts(np.maximum(sets_of_value, 1), float(temperature))[value_of]


def _by_group(found: Found, n_sets: Int64Array, weights: Any) -> Float64Array:
    """Return the weight of the sets of each group, by which groups get shares in proportion to a user's numbers."""
    if not isinstance(weights, Mapping) and not is_series(weights):
        raise TypeError(
            f"weights is a {type(weights).__name__}; expected, with sets=, a dict or a Series of a number for each "
            "group: its keys are the values of by, of several columns tuples"
        )
    if is_series(weights) and not weights.index.is_unique:
        repeated = list(weights.index[weights.index.duplicated()].unique())
        raise ValueError(f"weights is a Series whose index repeats {first_few(repeated)}; expected each group once")
    given = dict(weights.items())
    here = np.flatnonzero(n_sets > 0).tolist()
    labels = [found.labels(group) for group in here]
    lacking = [label for label in labels if label not in given]
    known = set(labels)
    unknown = [label for label in given if label not in known]
    if lacking or unknown:
        what = f"no number for the group {lacking[0]!r}" if lacking else f"a number for {unknown[0]!r}, no group"
        near = "" if lacking else f" {near_matches(str(unknown[0]), map(str, labels))}"
        raise ValueError(
            f"{found.columns.place}: weights have {what}; expected a number for each of the {len(labels):,} groups by "
            f"{listed(found.by)} that make sets, and no other.{near}"
        )
    numbers = [number(f"weights[{label!r}]", given[label]) for label in labels]
    bad = next((label for label, one in zip(labels, numbers, strict=True) if not 0 <= one < math.inf), None)
    if bad is not None:
        raise ValueError(f"weights: {bad!r} has {given[bad]!r}; expected a finite number that is not negative")
    if not any(numbers):
        raise ValueError(
            f"{found.columns.place}: weights are 0 for each of {len(labels):,} groups; expected one above 0"
        )
    result = np.zeros(len(n_sets))
    result[here] = np.array(numbers) / n_sets[here]
    return result
