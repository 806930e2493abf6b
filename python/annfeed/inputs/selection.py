"""Which rows, which columns: what users write (masks, names, negative numbers) as checked int64 positions.

Pure functions of arrays; every mistake is told here, before anything is read.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from annfeed.arrays import Int64Array, positions_of_slice
from annfeed.errors import UnknownNameError
from annfeed.user_arrays import as_array, by_index, index_of, is_of, one_axis

if TYPE_CHECKING:
    import pandas as pd

#: Gives the names of rows or columns, which may have to be read.
Names = Callable[[], "pd.Index[Any]"]


def row_subset(
    subset: Any,
    n_rows: int,
    names: Names | None = None,
    *,
    what: str = "obs_subset",
    from_end: bool = False,
    named: str = "adata.obs_names",
) -> Int64Array | None:
    """Return the rows that ``subset`` names, in its order; None for all.

    Parameters
    ----------
    subset
        None, integer positions, a slice, or a boolean mask of length ``n_rows``; list, numpy, pandas or torch. A mask
        that is a Series goes by its index.
    n_rows
        Rows that there are.
    names
        Gives their names; called only if ``subset`` is a Series whose index is not the default one.
    what, named
        The argument, and the expression that gives the names, for messages.
    from_end
        Whether negative positions count from the end; else they are an error.

    Raises
    ------
    TypeError
        If it is neither positions nor a mask.
    ValueError
        If a mask has another length, a missing value, or the index of other rows.
    IndexError
        If a position is out of range.

    Examples
    --------
    >>> row_subset([2, 0, 2], 3), row_subset([True, False, True], 3)
    (array([2, 0, 2]), array([0, 2]))
    """
    if subset is None:
        return None
    if isinstance(subset, slice):
        return positions_of_slice(subset, n_rows)
    values, index = one_axis(what, subset), index_of(subset)
    if values.dtype == bool:
        _check_length(what, values, n_rows, "rows", index)
        return _true(by_index(what, values, subset, names, named))
    _refuse_numbers_of_all(what, values, index, n_rows, names)
    positions = _integers(what, values, "of names, use adata.obs_names.get_indexer(names)")
    _check_range(
        positions,
        -n_rows if from_end else 0,
        n_rows,
        lambda p: (
            f"index {p} is out of range for a dataset of {n_rows} rows"
            if from_end
            else f"{what} holds {p}; expected 0 to {n_rows - 1}"
        ),
    )
    return np.where(positions < 0, positions + n_rows, positions)


def column_subset(subset: Any, n_cols: int, names: Names | None, place: str) -> Int64Array | None:
    """Return the columns that ``var_subset`` names, in its order; None for all.

    Parameters
    ----------
    subset
        None, names, integer positions (negative ones count from the end), a slice, or a boolean mask of length
        ``n_cols``; list, numpy, pandas or torch. A mask that is a Series goes by its index.
    n_cols
        Columns that there are.
    names
        Gives their names; called only if ``subset`` is of names, or a Series. None where they have none.
    place
        Where they are, for messages.

    Raises
    ------
    TypeError
        If it is none of these.
    ValueError
        If a mask has another length, a missing value or the index of other columns, a column is asked for twice, or a
        name belongs to several columns.
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
    if isinstance(subset, slice):
        if any(isinstance(bound, str) for bound in (subset.start, subset.stop, subset.step)):
            raise TypeError(f"var_subset is {subset!r}, a slice of names; expected one of positions")
        return positions_of_slice(subset, n_cols)
    values, index = one_axis("var_subset", subset), index_of(subset)
    if values.dtype == bool:
        _check_length("var_subset", values, n_cols, "columns", index)
        named = f"range({n_cols})" if names is None else "adata.var_names"
        return _true(by_index("var_subset", values, subset, names, named))
    if values.dtype.kind in "OU":
        if names is None:
            raise UnknownNameError(
                f"var_subset holds {values.tolist()[0]!r}, but the columns of {place} have no names; expected "
                "positions, a slice or a mask. Of several matrices give each its own: var_subset={key: …}"
            )
        columns = _find_names([str(v) for v in values], names(), place)
    else:
        _refuse_numbers_of_all("var_subset", values, index, n_cols, names)
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
    values = one_axis("the index", indices)
    positions = _integers("the index", values, "")
    _check_range(positions, -n, n, lambda p: f"index {p} is out of range for a dataset of {n} rows")
    return np.where(positions < 0, positions + n, positions)


def row_indices(indices: Any, n: int, names: Names | None = None) -> Int64Array:
    """Return the rows that ``indices`` names, in its order: as scvi-tools takes them, all of them where it is None.

    Parameters
    ----------
    indices
        As in `row_subset`; negative positions count from the end.
    n
        Rows that there are.
    names
        Gives their names.

    Examples
    --------
    >>> row_indices([2, -3, 2], 3), row_indices([True, False, True], 3)
    (array([2, 0, 2]), array([0, 2]))
    """
    chosen = row_subset(indices, n, names, what="indices", from_end=True)
    return np.arange(n, dtype=np.int64) if chosen is None else chosen


def numbers_of_rows(what: str, values: Any, n_rows: int, names: Names) -> npt.NDArray[Any]:
    """Return a number for each row of a dataset, those of a Series by its index.

    Raises
    ------
    ValueError
        If there are more or less, or the index is that of other rows.

    Examples
    --------
    >>> import pandas as pd
    >>> numbers_of_rows("weights", pd.Series({"b": 1.0, "a": 2.0}), 2, lambda: pd.Index(["a", "b"]))
    array([2., 1.])
    """
    array = as_array(what, values)
    if array.shape != (n_rows,):
        raise ValueError(
            f"{what} have shape {array.shape}; expected ({n_rows},), one for each row of the dataset "
            "(of its obs_subset, where there is one)"
        )
    return by_index(what, array, values, names, "dataset.obs_names")


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


def _integers(what: str, values: npt.NDArray[Any], hint: str) -> Int64Array:
    if len(values) == 0:
        return np.empty(0, np.int64)
    if values.dtype.kind not in "iu":
        expected = "integer positions or a boolean mask" if what != "the index" else "integers"
        raise TypeError(f"{what} holds {values.dtype}; expected {expected}{'; ' + hint if hint else ''}")
    return values.astype(np.int64)


def _check_length(what: str, mask: npt.NDArray[Any], n: int, of: str, index: pd.Index[Any] | None) -> None:
    # Of an index of its own, that is what differs.
    if len(mask) != n and index is None:
        raise ValueError(f"{what} is a mask of length {len(mask)}, but there are {n} {of}")


def _true(mask: npt.NDArray[Any]) -> Int64Array:
    return np.flatnonzero(mask).astype(np.int64)


def _refuse_numbers_of_all(
    what: str, values: npt.NDArray[Any], index: pd.Index[Any] | None, n: int, names: Names | None
) -> None:
    """Positions are values by themselves; but a number under each name is none: a mask of 0 and 1, mostly."""
    if len(values) == n and values.dtype.kind in "iu" and is_of(index, names):
        raise ValueError(
            f"{what} is a Series of {values.dtype} with a value for each name; expected positions or a mask. "
            "Pass series.astype(bool) for a mask, series.to_numpy() for positions"
        )


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
