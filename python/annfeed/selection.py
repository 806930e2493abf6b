"""Which rows, which columns: what users write (masks, names, negative numbers) as checked int64 positions.

Pure functions of arrays; every mistake is told here, before anything is read.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from annfeed.errors import UnknownNameError

if TYPE_CHECKING:
    import pandas as pd

Int64Array = npt.NDArray[np.int64]


def row_subset(subset: Any, n_rows: int) -> Int64Array | None:
    """Return the rows that ``obs_subset`` names, in its order; None for all.

    Parameters
    ----------
    subset
        None, integer positions from 0, or a boolean mask of length ``n_rows``; list, numpy, pandas or torch.
    n_rows
        Rows that there are.

    Raises
    ------
    TypeError
        If it is neither positions nor a mask.
    ValueError
        If a mask has another length.
    IndexError
        If a position is negative or out of range.

    Examples
    --------
    >>> row_subset([2, 0, 2], 3), row_subset([True, False, True], 3)
    (array([2, 0, 2]), array([0, 2]))
    """
    if subset is None:
        return None
    values = _one_axis("obs_subset", subset)
    if values.dtype == bool:
        return _from_mask("obs_subset", values, n_rows, "rows")
    positions = _integers("obs_subset", values, "of names, use adata.obs_names.get_indexer(names)")
    _check_range(positions, 0, n_rows, lambda p: f"obs_subset holds {p}, where 0 to {n_rows - 1} was expected")
    return positions


def column_subset(subset: Any, n_cols: int, names: Callable[[], pd.Index[Any]], place: str) -> Int64Array | None:
    """Return the columns that ``var_subset`` names, in its order; None for all.

    Parameters
    ----------
    subset
        None, names, integer positions (negative ones count from the end), or a boolean mask of length ``n_cols``.
    n_cols
        Columns that there are.
    names
        Gives their names; called only if ``subset`` is of names.
    place
        Where they are, for messages.

    Raises
    ------
    TypeError
        If it is none of these.
    ValueError
        If a mask has another length, a column is asked for twice, or a name belongs to several columns.
    IndexError
        If a position is out of range.
    UnknownNameError
        If there is no such name; the message lists near ones.

    Examples
    --------
    >>> import pandas as pd
    >>> column_subset(["CD4", "CD3E"], 3, lambda: pd.Index(["CD3E", "CD8A", "CD4"]), "atlas.h5ad")
    array([2, 0])
    """
    if subset is None:
        return None
    values = _one_axis("var_subset", subset)
    if values.dtype == bool:
        return _from_mask("var_subset", values, n_cols, "columns")
    if values.dtype.kind in "OUT":
        columns = _find_names([str(v) for v in values], names(), place)
    else:
        columns = _integers("var_subset", values, "")
        _check_range(columns, -n_cols, n_cols, lambda p: f"var_subset holds {p}, but {place} has {n_cols} columns")
        columns = np.where(columns < 0, columns + n_cols, columns)
    distinct, counts = np.unique(columns, return_counts=True)
    if len(distinct) < len(columns):
        twice = distinct[counts > 1][0]
        raise ValueError(f"var_subset asks for column {twice} twice; ask for each column once")
    return columns


def as_positions(indices: Any, n: int) -> Int64Array:
    """Return positions in a dataset of ``n`` rows; negative ones count from the end.

    Raises
    ------
    TypeError
        If they are not integers.
    IndexError
        If one is out of range.

    Examples
    --------
    >>> as_positions([0, -1], 5)
    array([0, 4])
    """
    values = _one_axis("the index", indices)
    positions = _integers("the index", values, "")
    _check_range(positions, -n, n, lambda p: f"index {p} is out of range for a dataset of {n} rows")
    return np.where(positions < 0, positions + n, positions)


def row_indices(indices: Any, n: int) -> Int64Array:
    """Return the rows that ``indices`` names, in its order: as scvi-tools takes them, all of them where it is None.

    Parameters
    ----------
    indices
        None, integer positions (order and repeats kept, negative ones count from the end), or a boolean mask of length
        ``n``; list, numpy, pandas or torch.
    n
        Rows that there are.

    Raises
    ------
    TypeError
        If it is neither positions nor a mask.
    ValueError
        If a mask has another length.
    IndexError
        If a position is out of range.

    Examples
    --------
    >>> row_indices([2, -3, 2], 3), row_indices([True, False, True], 3)
    (array([2, 0, 2]), array([0, 2]))
    """
    if indices is None:
        return np.arange(n, dtype=np.int64)
    values = _one_axis("indices", indices)
    if values.dtype == object and len(values) and all(isinstance(value, bool | np.bool_) for value in values):
        values = values.astype(bool)  # pandas' nullable booleans
    if values.dtype == bool:
        return _from_mask("indices", values, n, "rows")
    positions = _integers("indices", values, "of names, use adata.obs_names.get_indexer(names)")
    _check_range(positions, -n, n, lambda p: f"indices holds {p}, which is out of range for {n} rows")
    return np.where(positions < 0, positions + n, positions)


def near_matches(name: str, names: Iterable[Any]) -> str:
    """Return the end of a message: names like ``name``, or the first ones that there are.

    What is not text is left out, as the None that stands for X in the layers of an AnnData from anndata 0.13 on.

    Examples
    --------
    >>> near_matches("CD3e", ["CD3E", "CD8A"])
    "Did you mean 'CD3E'?"
    >>> near_matches("count", [None])
    'There are none.'
    """
    names = [n for n in names if isinstance(n, str)]
    if not names:
        return "There are none."
    folded = {n.casefold(): n for n in names}
    near = [folded[n] for n in difflib.get_close_matches(name.casefold(), folded, 3)]
    if near:
        return "Did you mean " + " or ".join(map(repr, near)) + "?"
    return f"There are {len(names)}: {', '.join(map(repr, names[:5]))}{', …' if len(names) > 5 else ''}"


def _one_axis(what: str, values: Any) -> npt.NDArray[Any]:
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    if isinstance(values, str | bytes):
        raise TypeError(f"{what} is the text {values!r}, where a list or an array was expected")
    if not hasattr(values, "__len__"):
        if not hasattr(values, "__iter__"):
            raise TypeError(f"{what} is {values!r}, where a list or an array was expected")
        values = list(values)
    array = np.asarray(values)
    if array.ndim != 1:
        raise TypeError(f"{what} has {array.ndim} axes, where a list or a one-dimensional array was expected")
    return array


def _integers(what: str, values: npt.NDArray[Any], hint: str) -> Int64Array:
    if len(values) == 0:
        return np.empty(0, np.int64)
    if values.dtype.kind not in "iu":
        expected = "integer positions or a boolean mask" if what != "the index" else "integers"
        raise TypeError(f"{what} holds {values.dtype}, where {expected} were expected{'; ' + hint if hint else ''}")
    return values.astype(np.int64)


def _from_mask(what: str, mask: npt.NDArray[Any], n: int, of: str) -> Int64Array:
    if len(mask) != n:
        raise ValueError(f"{what} is a mask of length {len(mask)}, but there are {n} {of}")
    return np.flatnonzero(mask).astype(np.int64)


def _check_range(positions: Int64Array, low: int, high: int, message: Callable[[int], str]) -> None:
    wrong = positions[(positions < low) | (positions >= high)]
    if len(wrong):
        raise IndexError(message(int(wrong[0])))


def _find_names(wanted: list[str], names: pd.Index[Any], place: str) -> Int64Array:
    known = names.astype(str)
    # A name that stands for several columns is only a problem if it is asked for.
    first: dict[str, int] = {}
    repeated = set(known[known.duplicated()])
    for position, name in enumerate(known):
        first.setdefault(name, position)
    for name in wanted:
        if name not in first:
            raise UnknownNameError(f"{place} has no gene {name!r}. {near_matches(name, list(first))}")
        if name in repeated:
            raise ValueError(f"{place} has several genes named {name!r}; pass var_subset as positions")
    return np.array([first[name] for name in wanted], dtype=np.int64)
