"""`sets_order`: obs columns become the groups and pools of an order of sets. The order is in order/sets.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from annfeed.arrays import Int64Array
from annfeed.batches.keys import FALLBACK, check_set_keys
from annfeed.loading.cell_sets import CellSets, Controls
from annfeed.loading.description import in_a_line
from annfeed.loading.label_columns import Columns
from annfeed.loading.set_groups import Found, listed
from annfeed.loading.set_weights import weighting_of_sets
from annfeed.loading.weighting import draws_of
from annfeed.order.groups import Groups
from annfeed.order.sets import Pools, Sets, sets_of
from annfeed.order.windows import Window
from annfeed.user_arrays import near_matches
from annfeed.user_warnings import warn

if TYPE_CHECKING:
    from annfeed.loading.protocols import Rows

#: Labels that a message names.
_NAMED = 5


def sets_order(
    dataset: Rows,
    sets: Any,
    shuffle: bool = True,
    weights: Any = None,
    balance: str | None = None,
    temperature: float = 1.0,
    replacement: bool = True,
    n_samples: int | None = None,
    columns: Columns | None = None,
) -> Sets:
    """Return the order of ``sets`` over the rows of a dataset.

    Parameters
    ----------
    dataset
        The dataset; its obs columns are read.
    sets
        A `CellSets`.
    shuffle
        As in `annfeed.order.sets.Sets`.
    weights, balance, temperature, replacement, n_samples
        As in `AnnDataset.get_optimized_dataloader`, with sets for rows.
    columns
        The dataset's obs columns, to keep what is read of them.

    Raises
    ------
    TypeError
        If ``sets`` is no `CellSets`, or ``weights`` are not given by group.
    UnknownNameError
        If there is no such obs column.
    ValueError
        If there are no sets or no controls, cells have no control, or a matrix has a key that batches of sets need.

    Examples
    --------
    >>> import anndata, pandas as pd
    >>> from annfeed import AnnDataset
    >>> obs = pd.DataFrame({"drug": list("aabDD")}, index=list("12345"))
    >>> dataset = AnnDataset(anndata.AnnData(np.eye(5, dtype="float32"), obs=obs))
    >>> sets_order(dataset, CellSets(by="drug", size=2, controls=Controls(where={"drug": "D"})), shuffle=True).length(5)
    2
    """
    if not isinstance(sets, CellSets):
        raise TypeError(f"sets is a {type(sets).__name__}; expected annfeed.CellSets")
    check_set_keys(dataset.reader.matrices, has_controls=sets.controls is not None)
    columns = Columns(dataset) if columns is None else columns
    codes, n_groups = columns.joined(cast("tuple[str, ...]", sets.by))
    is_control = None if sets.controls is None else _controls(columns, sets.controls)
    n_missing = int(np.count_nonzero(codes < 0 if is_control is None else (codes < 0) & ~is_control))
    if is_control is not None:
        codes = codes.copy()
        codes[is_control] = -1
    groups = Groups(codes, n_groups)
    notes = [f"{n_missing:,} rows without a value in {listed(sets.by)} are in no set"] if n_missing else []
    n_controls = 0 if is_control is None else int(np.count_nonzero(is_control))
    found = Found(columns, cast("tuple[str, ...]", sets.by), codes, groups)
    pools = None
    if sets.controls is not None and is_control is not None:
        n_sets = sets_of(groups.sizes, sets.size, sets.short)
        pools = _pools(found, n_sets, sets.controls, is_control, notes)
    order = Sets(groups, len(dataset), sets.size, sets.short, shuffle, pools, name=repr(sets), in_words=sets.in_words())
    n_sets = order.n_sets()
    left_out = np.flatnonzero((n_sets == 0) & (groups.sizes > 0))
    if len(left_out):
        n_cells = int(groups.sizes[left_out].sum())
        notes.append(
            f'short="drop" leaves out {found.told(left_out)} with {n_cells:,} cells, as they have fewer than '
            f"size={sets.size} each"
        )
    if not n_sets.any():
        notes += [f"{n_controls:,} rows are controls"] if n_controls else []
        raise ValueError(
            f"{in_a_line(dataset)}: {sets!r} makes no set of {len(dataset):,} rows ({'; '.join(notes) or 'no rows'}). "
            "Choose other columns, or a smaller size"
        )
    how = draws_of(weights, balance, temperature, replacement, n_samples)
    if how is not None:
        if not shuffle:
            raise ValueError("weights given with shuffle=False; draws have no file order: use shuffle=True")
        weighting = weighting_of_sets(found, n_sets, weights, balance, temperature, **how)
        order = replace(order, weighting=weighting)
    _report(dataset, notes)
    return order


def _controls(columns: Columns, controls: Controls) -> npt.NDArray[np.bool_]:
    """Return which rows are controls."""
    masks = []
    for name, wanted in controls.where.items():
        codes, labels = columns.one(name)
        values = [wanted] if isinstance(wanted, str) or not isinstance(wanted, Iterable) else list(wanted)
        numbers = []
        for value in values:
            number = next((number for number, label in enumerate(labels) if label == value), None)
            if number is None:
                raise ValueError(
                    f"{columns.place}: Controls(where=…): no row has {value!r} in obs[{name!r}]. {_near(value, labels)}"
                )
            numbers.append(number)
        masks.append(np.isin(codes, numbers))
    is_control: npt.NDArray[np.bool_] = np.logical_and.reduce(masks)
    if not is_control.any():
        raise ValueError(
            f"{columns.place}: no row has all of {controls.where}; expected controls. Leave a column out of where="
        )
    return is_control


def _near(value: Any, labels: list[Any]) -> str:
    """Return the end of a message: labels like a value, as Python writes them, with their types unless all are text."""
    plain = [label.item() if isinstance(label, np.generic) else label for label in labels]
    if isinstance(value, str) and all(isinstance(label, str) for label in plain):
        return near_matches(value, plain)
    types = ", ".join(sorted({type(label).__name__ for label in plain}))
    like = [label for label in plain if _reads_alike(label, value)]
    given = f"{value!r} is of type {type(value).__name__}"
    if like:
        return f"Its values are of type {types}, and {given}; expected {like[0]!r}"
    named = ", ".join(map(repr, plain[:_NAMED])) + (", …" if len(plain) > _NAMED else "")
    return f"Its values are of type {types}, and {given}; expected one of {named}"


def _reads_alike(label: Any, value: Any) -> bool:
    if str(label) == str(value):
        return True
    try:
        return float(label) == float(value)
    except (TypeError, ValueError):
        return False


def _pools(
    found: Found, n_sets: Int64Array, controls: Controls, is_control: npt.NDArray[np.bool_], notes: list[str]
) -> Pools:
    """Return the pools of controls, and the pool of each cell of the groups that make sets."""
    levels = cast("tuple[tuple[str, ...], ...]", (controls.match, *cast("tuple[Any, ...]", controls.fallback)))
    in_sets = (found.codes >= 0) & (n_sets > 0)[found.codes]
    pool_of = np.full(len(found.codes), -1, np.int32)
    pools: Groups | None = None
    first_fallback = 0
    for number, names in enumerate(levels):
        codes, n = found.columns.joined(names)
        there = np.zeros(n + 1, np.bool_)  # code -1 finds the last entry
        there[codes[is_control]] = True
        there[n] = False
        n_before = 0 if pools is None else len(pools)
        number_of = np.where(there, np.cumsum(there) - 1, -1).astype(np.int32)
        own = Groups(np.where(is_control, number_of[codes], np.int32(-1)), int(there.sum()))
        pools = own if pools is None else pools.joined(own)
        here = in_sets & (pool_of < 0)
        pool_of[here] = np.where(there, number_of + np.int32(n_before), np.int32(-1))[codes[here]]
        if number == 0:
            first_fallback = len(pools)
        elif n_now := int(np.count_nonzero(here & (pool_of >= n_before))):
            notes.append(
                f"{n_now:,} cells have no control with their {listed(levels[number - 1])}; theirs have "
                f"{f'their {listed(names)}' if names else 'any value'} (fallback)"
            )
        if not (in_sets & (pool_of < 0)).any():
            break
    assert pools is not None
    without = np.unique(found.codes[in_sets & (pool_of < 0)]).astype(np.int64)
    if len(without):
        n_cells = int(np.count_nonzero(in_sets & (pool_of < 0)))
        raise ValueError(
            f"{found.columns.place}: {n_cells:,} cells of {found.told(without)} have no control with their "
            f"{' or '.join(map(listed, levels))}; expected one for each cell. Add a fallback to Controls "
            "(fallback=[[]] takes any control), or leave these cells out with obs_subset= or subset()"
        )
    of_groups = all(set(names) <= set(found.by) for names in levels)
    if of_groups:
        pool_of = pool_of[found.first_rows]
    narrow = pool_of.astype(np.min_scalar_type(-max(1, len(pools))))
    return Pools(pools, narrow, of_groups, first_fallback, controls.size)


def counted(windows: Iterator[Window], counts: Counter[str]) -> Iterator[Window]:
    """Yield windows of sets, and count the controls in them that are from fallback pools."""
    for window in windows:
        if window.sets is not None:
            counts[FALLBACK] += int(np.count_nonzero(window.sets.by_fallback))
        yield window


def _report(dataset: Rows, notes: list[str]) -> None:
    """Give each note as a warning, once for a dataset and its parts."""
    for note in notes:
        if note not in dataset.reader.told:
            dataset.reader.told.add(note)
            warn(f"{in_a_line(dataset)}: {note}")
