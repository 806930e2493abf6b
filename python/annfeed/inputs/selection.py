"""Which rows, which columns: what users write (masks, names, negative numbers) as checked int64 positions.

Pure functions of arrays; every mistake is told here, before anything is read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from annfeed.arrays import Int64Array, positions_of_slice
from annfeed.errors import UnknownNameError
from annfeed.user_arrays import as_array, by_index, index_of, is_of, near_matches, one_axis

if TYPE_CHECKING:
    import pandas as pd

    from annfeed.inputs.gene_table import GeneTable

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

    It is None, integer positions, a slice, or a boolean mask of length ``n_rows``; list, numpy, pandas or torch. A mask
    that is a Series goes by its index. Negative positions count ``from_end``; else they are an error.

    Parameters
    ----------
    names
        Gives the names of the rows; called only if ``subset`` is a Series whose index is not the default one.
    what, named
        The argument, and the expression that gives the names, for messages.

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
        return np.flatnonzero(by_index(what, values, subset, names, named))
    _refuse_numbers_of_all(what, values, index, n_rows, names)
    positions = _integers(what, values, "of names, use adata.obs_names.get_indexer(names)")
    if from_end:
        return _from_start(positions, n_rows, lambda p: f"index {p} is out of range for a dataset of {n_rows} rows")
    return _from_start(positions, n_rows, lambda p: f"{what} holds {p}; expected 0 to {n_rows - 1}", least=0)


def column_subset(
    subset: Any, n_cols: int, names: Names | None, place: str, table: GeneTable | None = None, by: str | None = None
) -> Int64Array | None:
    """Return the columns that ``var_subset`` names, in its order; None for all.

    It is None, names, integer positions (negative ones count from the end), a slice, or a boolean mask of length
    ``n_cols``; list, numpy, pandas or torch. A mask that is a Series goes by its index. ``names``, called only if
    ``subset`` is of names or a Series, gives those of the columns; None where they have none. ``table`` is the var of
    the genes; with ``by``, names are values of that column of it.

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
        return np.flatnonzero(by_index("var_subset", values, subset, names, named))
    if values.dtype.kind in "OU":
        if names is None:
            raise UnknownNameError(
                f"var_subset holds {values.tolist()[0]!r}, but the columns of {place} have no names; expected "
                "positions, a slice or a mask. Of several matrices give each its own: var_subset={key: …}"
            )
        texts = [str(v) for v in values]
        columns = _find_names(texts, names(), place, table) if by is None or table is None else table.find(texts, by)
    else:
        if by is not None and len(values):  # identifiers may be numbers
            raise TypeError(
                f"var_subset is of numbers, but var_column is {by!r}; expected values of that column, as texts. "
                "Pass ['7157', …], or leave var_column out to give positions"
            )
        _refuse_numbers_of_all("var_subset", values, index, n_cols, names)
        columns = _integers("var_subset", values, "")
        columns = _from_start(columns, n_cols, lambda p: f"var_subset holds {p}, but {place} has {n_cols} columns")
    distinct, counts = np.unique(columns, return_counts=True)
    if len(distinct) < len(columns):
        twice = distinct[counts > 1][0]
        raise ValueError(f"var_subset asks for column {twice} twice; ask for each column once")
    return columns


def as_positions(indices: Any, n: int) -> Int64Array:
    """Return positions in a dataset of ``n`` rows; negative ones count from the end.

    Examples
    --------
    >>> as_positions([0, -1], 5)
    array([0, 4])
    """
    positions = _integers("the index", one_axis("the index", indices), "")
    return _from_start(positions, n, lambda p: f"index {p} is out of range for a dataset of {n} rows")


def row_indices(indices: Any, n: int, names: Names | None = None) -> Int64Array:
    """Return the rows that ``indices`` names as `row_subset` does, but as scvi-tools takes them: for None all.

    Examples
    --------
    >>> row_indices([2, -3, 2], 3), row_indices([True, False, True], 3)
    (array([2, 0, 2]), array([0, 2]))
    """
    chosen = row_subset(indices, n, names, what="indices", from_end=True)
    return np.arange(n, dtype=np.int64) if chosen is None else chosen


def numbers_of_rows(what: str, values: Any, n_rows: int, names: Names) -> npt.NDArray[Any]:
    """Return a number for each row of a dataset, those of a Series by its index.

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


def _refuse_numbers_of_all(
    what: str, values: npt.NDArray[Any], index: pd.Index[Any] | None, n: int, names: Names | None
) -> None:
    """Positions are values by themselves; but a number under each name is none: a mask of 0 and 1, mostly."""
    if len(values) == n and values.dtype.kind in "iu" and is_of(index, names):
        raise ValueError(
            f"{what} is a Series of {values.dtype} with a value for each name; expected positions or a mask. "
            "Pass series.astype(bool) for a mask, series.to_numpy() for positions"
        )


def _from_start(positions: Int64Array, n: int, message: Callable[[int], str], least: int | None = None) -> Int64Array:
    """Positions of which negative ones counted from the end, or those below ``least`` were not allowed."""
    wrong = positions[(positions < (-n if least is None else least)) | (positions >= n)]
    if len(wrong):
        raise IndexError(message(int(wrong[0])))
    # Of each batch of a plain DataLoader: a copy is much quicker than `where`.
    return np.where(positions < 0, positions + n, positions) if (positions < 0).any() else positions.copy()


def _find_names(wanted: list[str], names: pd.Index[Any], place: str, table: GeneTable | None) -> Int64Array:
    known = names.astype(str)
    # A name that stands for several columns is only a problem if it is asked for.
    first: dict[str, int] = {}
    repeated = set(known[known.duplicated()])
    for position, name in enumerate(known):
        first.setdefault(name, position)
    for name in wanted:
        if name not in first:
            where = "" if table is None else table.where(name)
            raise UnknownNameError(f"{place} has no gene {name!r}. {where or near_matches(name, list(first))}")
        if name in repeated:
            remedy = "" if table is None else table.telling_apart(name)
            raise ValueError(f"{place} has several genes named {name!r}; pass var_subset as positions{remedy}")
    return np.array([first[name] for name in wanted], dtype=np.int64)
