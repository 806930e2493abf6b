"""One obs column of several files as one: a dtype that holds all of it, the same code for the same label.

Pure functions of Series; obs/concat.py knows the files and columns. Categories are united as `anndata.concat` does.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd
from natsort import natsorted

from annfeed.user_arrays import kind_of

#: The largest that int64 holds.
_INT64_MAX = 2**63 - 1


def check_int64(column: pd.Series[Any], where: str) -> None:
    """Raise where int64 cannot hold the integers of a column; ``where`` names it."""
    if pd.api.types.is_unsigned_integer_dtype(column.dtype) and (column > _INT64_MAX).any():
        raise ValueError(f"{where} has values above {_INT64_MAX}, which int64 cannot hold; store text")


def concat_column(columns: Sequence[pd.Series[Any] | int], where: str) -> pd.Series[Any]:
    """Return a column of several files one after the other.

    ==============================  ===============================================================================
    in the files                    in the result
    ==============================  ===============================================================================
    categoricals, none ordered      categorical; all categories, in natural order ("d2" before "d10"); True, 1, 1.0 and
                                    "1" of different files are different labels
    categoricals, some ordered      as they are, if all are ordered and alike; else text
    bool                            bool; where it is missing in a file: pandas' nullable boolean
    integers (and bool)             an integer that holds all; where it is missing in a file: nullable
    floats (and integers, bool)     float; NaN where it is missing in a file
    all of one other type           that type
    anything else                   object: text and numbers beside each other, delivered as text
    ==============================  ===============================================================================

    A file that has no such column gives its number of rows: these are missing values. ``where`` names it in errors.

    Examples
    --------
    >>> a, b = pd.Series(["T", "B"], dtype="category"), pd.Series(["NK"], dtype="category")
    >>> whole = concat_column([a, 1, b], "obs")
    >>> whole.cat.codes.tolist(), list(whole.cat.categories)
    ([2, 0, -1, 1], ['B', 'NK', 'T'])
    """
    there = _apart([plain(column) for column in columns if not isinstance(column, int)])
    has_gaps = any(isinstance(column, int) and column > 0 for column in columns)
    dtype = _common_dtype(there, has_gaps, where)
    known = iter(there)
    alike = [_missing(column, dtype) if isinstance(column, int) else _as(next(known), dtype) for column in columns]
    return pd.concat(alike, ignore_index=True)


def plain(column: Any) -> Any:
    """Return a sparse column as a dense one, lists and structs of pyarrow as texts, and any other as it is."""
    if isinstance(column.dtype, pd.SparseDtype):
        return column.sparse.to_dense()
    if getattr(column.dtype, "type", None) in (list, dict):
        texts = [None if missing else str(value) for missing, value in zip(column.isna(), column, strict=True)]
        return pd.Series(texts, dtype=object, name=column.name)
    return column


def _apart(columns: list[pd.Series[Any]]) -> list[pd.Series[Any]]:
    """Categoricals whose different labels are different values, in all columns together.

    True is 1 and 1 is 1.0 to pandas. Where categories are of several of these kinds, truth values and fractions are
    made texts, "True" and "1.0".
    """
    categories = [column.dtype.categories for column in columns if isinstance(column.dtype, pd.CategoricalDtype)]
    kinds = {kind_of(label) for index in categories for label in index.tolist()}
    to_text = {
        kind
        for kind, others in {"bool": {"integer", "float"}, "float": {"integer", "bool"}}.items()
        if kind in kinds and others & kinds
    }
    if not to_text:
        return columns
    return [_with_texts(c, to_text) if isinstance(c.dtype, pd.CategoricalDtype) else c for c in columns]


def _with_texts(column: Any, kinds: set[str]) -> pd.Series[Any]:
    labels = [str(label) if kind_of(label) in kinds else label for label in column.cat.categories.tolist()]
    distinct = list(dict.fromkeys(labels))
    # Code -1 finds the last entry.
    codes = np.array([*(distinct.index(label) for label in labels), -1])[column.cat.codes.to_numpy()]
    dtype = pd.CategoricalDtype(pd.Index(distinct, dtype=object), ordered=column.cat.ordered)
    return pd.Series(pd.Categorical.from_codes(codes, dtype=dtype))


def _common_dtype(columns: Sequence[pd.Series[Any]], has_gaps: bool, where: str) -> Any:
    dtypes: list[Any] = [column.dtype for column in columns]
    if all(isinstance(dtype, pd.CategoricalDtype) for dtype in dtypes):
        return _common_categories(dtypes)
    if any(isinstance(dtype, pd.CategoricalDtype) for dtype in dtypes):
        return np.dtype(object)
    is_type = pd.api.types
    if all(is_type.is_bool_dtype(dtype) for dtype in dtypes):
        return pd.BooleanDtype() if has_gaps or not _are_numpy(dtypes) else np.dtype(bool)
    if all(is_type.is_bool_dtype(dtype) or is_type.is_integer_dtype(dtype) for dtype in dtypes):
        return _common_integer(columns, has_gaps, where)
    if all(is_type.is_bool_dtype(dtype) or is_type.is_numeric_dtype(dtype) for dtype in dtypes):
        if any(is_type.is_complex_dtype(dtype) for dtype in dtypes):
            return np.dtype(object)
        return np.result_type(*(dtype if isinstance(dtype, np.dtype) else np.float64 for dtype in dtypes))
    if all(dtype == dtypes[0] for dtype in dtypes):
        return _with_missing(dtypes[0]) if has_gaps else dtypes[0]
    return np.dtype(object)


def _with_missing(dtype: Any) -> Any:
    """Intervals of integers, of which none can be missing, as those of floats; any other type as it is."""
    is_of_integers = isinstance(dtype, pd.IntervalDtype) and np.dtype(dtype.subtype).kind in "iu"
    return pd.IntervalDtype(np.float64, dtype.closed) if is_of_integers else dtype


def _common_categories(dtypes: Sequence[pd.CategoricalDtype]) -> Any:
    # As anndata 0.12 does (anndata/_core/merge.py, try_unifying_dtype), so that codes are those of a concatenated file.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # pandas cannot sort texts among numbers; natsort can
        united = reduce(lambda a, b: a.union(b), (dtype.categories for dtype in dict.fromkeys(dtypes)))
    if not any(dtype.ordered for dtype in dtypes):
        return pd.CategoricalDtype(natsorted(united), ordered=False)
    filled = [dtype for dtype in dtypes if len(dtype.categories)]
    alike = all(dtype.ordered and dtype == filled[0] for dtype in filled)
    return filled[0] if filled and alike else np.dtype(object)


def _common_integer(columns: Sequence[pd.Series[Any]], has_gaps: bool, where: str) -> Any:
    dtypes = [column.dtype for column in columns]
    nullable = has_gaps or not _are_numpy(dtypes)
    if all(dtype == dtypes[0] for dtype in dtypes) and not nullable:
        return dtypes[0]
    unsigned = [pd.api.types.is_unsigned_integer_dtype(dtype) for dtype in dtypes]
    if all(unsigned):
        return pd.UInt64Dtype() if nullable else np.result_type(*dtypes)  # type: ignore[arg-type]
    for column in columns:
        check_int64(column, where)
    return pd.Int64Dtype() if nullable else np.dtype(np.int64)


def _are_numpy(dtypes: Sequence[Any]) -> bool:
    return all(isinstance(dtype, np.dtype) for dtype in dtypes)


def _as(column: pd.Series[Any], dtype: Any) -> pd.Series[Any]:
    if column.dtype == dtype:
        return column
    if isinstance(dtype, np.dtype) and dtype.kind == "f" and not isinstance(column.dtype, np.dtype):
        return pd.Series(column.to_numpy(dtype, na_value=np.nan))
    return column.astype(dtype)


def _missing(n: int, dtype: Any) -> pd.Series[Any]:
    if isinstance(dtype, pd.CategoricalDtype):
        return pd.Series(pd.Categorical.from_codes(np.full(n, -1, np.int8), dtype=dtype))
    if not isinstance(dtype, np.dtype):
        nothing: Any = pd.array([], dtype=dtype)
        return pd.Series(nothing.take(np.full(n, -1), allow_fill=True))
    if dtype.kind in "mM":
        return pd.Series(np.full(n, "NaT", dtype))
    # A type that cannot say "missing" was chosen only if nothing is.
    return pd.Series(np.empty(0, dtype) if dtype.kind in "biu" else np.full(n, np.nan, dtype))
