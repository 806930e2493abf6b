"""One column of results, whatever its type, as anndata writes it: numbers, labels as a categorical, nullable numbers.

Values are collected row by row (results/rows.py): labels as codes, so that their texts are held once.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
from natsort import natsorted

from annfeed.arrays import Int64Array
from annfeed.results.rows import RowStore
from annfeed.user_arrays import first_few, kind_of

_Kind = Literal["numbers", "labels", "nullable numbers"]


#: Of labels; anndata writes no others.
_KINDS_IN_FILES = ("text", "integer", "float", "bool")


class ResultColumn:
    """The results of a column; ``place`` are the words for its rows in messages.

    Parameters
    ----------
    categories
        What integers stand for, -1 for missing; or the labels that there may be. None: integers are numbers.
    to_file
        Whether labels must be such that a file can hold them.

    Examples
    --------
    >>> column = ResultColumn(3, "AnnData")
    >>> column.put("result 0", np.array([2, 0]), ["T", "B"])
    >>> column.finish(None)
    ['B', NaN, 'T']
    Categories (2, object): ['B', 'T']
    """

    def __init__(self, n_rows: int, place: str, categories: Any = None, *, to_file: bool = False) -> None:
        self._n_rows, self._place, self._to_file = n_rows, place, to_file
        self._fixed = None if categories is None else _dtype_of(categories)
        self._label_kind: str | None = None
        if self._fixed is not None:
            self._check_labels("categories", self._fixed.categories.tolist())
        self._store = RowStore(n_rows, place)
        self._nulls = RowStore(n_rows, place)
        self._kind: _Kind | None = None
        self._codes: dict[tuple[type, Any], int] = {}
        #: What categoricals came with, as long as it is one thing.
        self._dtype: pd.CategoricalDtype | None = self._fixed
        self._from_text = False

    def put(self, what: str, rows: Int64Array, values: Any) -> None:
        """Set some rows to values, a list, array, Series or categorical of which ``what`` are the words in messages."""
        column: pd.Series[Any] = _typed(what, values)
        kind = self._kind_of(what, column)
        if self._kind is None:
            self._kind = kind
        if {kind, self._kind} == {"numbers", "nullable numbers"}:
            kind = "nullable numbers"
            if self._kind == "numbers":
                there = np.setdiff1d(np.arange(self._n_rows), self._store.missing())
                if len(there):
                    self._nulls.put(what, there, np.zeros((len(there), 1), bool))
                self._kind = kind
        if kind != self._kind:
            raise TypeError(f"{what} holds {kind}, those before hold {self._kind}: all must be of one kind")
        if kind == "labels":
            self._store.put(what, rows, self._coded(what, column)[:, None])
        elif kind == "numbers":
            self._store.put(what, rows, column.to_numpy()[:, None])
        else:
            null = column.isna().to_numpy()
            dtype: Any = getattr(column.dtype, "numpy_dtype", column.dtype)
            plain: Any = column.fillna(False if column.dtype.kind == "b" else 0)
            self._store.put(what, rows, plain.to_numpy(dtype)[:, None])
            self._nulls.put(what, rows, null[:, None])

    def finish(self, fill: Any, *, must_have_all: bool = False, texts: bool = False) -> Any:
        """Return the whole column, as what anndata writes.

        Parameters
        ----------
        fill
            For rows without a result; None for "missing", where the type can say that.
        must_have_all
            With no ``fill``, rows without a result are an error for all types.
        texts
            Return labels that came as text, and none of them missing, as text.
        """
        missing = self._store.missing()
        if len(missing) and fill is None:
            can = self._kind != "numbers" or self._store.dtype.kind == "f"
            if must_have_all or not can:
                raise ValueError(no_result(self._place, missing, self._n_rows, "" if can else self._store.dtype))
        if self._kind == "labels":
            return self._labels(fill, missing, texts)
        if len(missing):
            nothing = float("nan") if self._store.dtype.kind == "f" else 0
            self._store.fill(nothing if fill is None else _number(fill), missing)
        values = self._store.whole()[:, 0]
        if self._kind == "numbers":
            return values
        if len(missing):
            self._nulls.fill(fill is None, missing)
        null = self._nulls.whole()[:, 0].astype(bool)
        if values.dtype.kind == "f":  # of integers with some missing, and of floats
            values[null] = np.nan
            return values
        return pd.arrays.BooleanArray(values, null) if values.dtype == bool else pd.arrays.IntegerArray(values, null)

    def _kind_of(self, what: str, column: pd.Series[Any]) -> _Kind:
        if isinstance(column.dtype, pd.CategoricalDtype) or pd.api.types.is_object_dtype(column.dtype):
            return "labels"
        if self._fixed is None:
            return "numbers" if isinstance(column.dtype, np.dtype) else "nullable numbers"
        if pd.api.types.is_integer_dtype(column.dtype):
            return "labels"
        raise TypeError(
            f"{what} has dtype {column.dtype}; expected codes (integers) or labels, as categories= is given"
        )

    def _coded(self, what: str, column: pd.Series[Any]) -> npt.NDArray[np.int32]:
        """Labels as codes of our own."""
        if pd.api.types.is_integer_dtype(column.dtype):
            return self._given_codes(what, column)
        if isinstance(column.dtype, pd.CategoricalDtype):
            codes, labels = column.cat.codes.to_numpy(), column.cat.categories.tolist()
            if self._dtype is None and not self._codes:
                self._dtype = column.dtype
            elif self._fixed is None and self._dtype != column.dtype:
                self._dtype = None
            if self._fixed is not None:
                # Categories that no row has do not matter.
                used = np.unique(codes[codes >= 0])
                labels, codes = [labels[code] for code in used], np.where(codes < 0, -1, np.searchsorted(used, codes))
        else:
            codes, found = pd.factorize(column)
            labels, self._from_text = found.tolist(), True
            self._dtype = self._fixed
        if self._fixed is not None:
            place = self._fixed.categories.get_indexer(pd.Index(labels, dtype=object))
            if (place < 0).any():
                raise ValueError(
                    f"{what} has the label {labels[int(np.argmin(place))]!r}, which is not among the categories; "
                    f"expected one of {first_few(self._fixed.categories, 8)}"
                )
        else:
            self._check_labels(what, labels)
            place = np.array([self._codes.setdefault((type(n), n), len(self._codes)) for n in labels], np.int64)
        return np.append(place, -1)[codes].astype(np.int32)

    def _check_labels(self, what: str, labels: list[Any]) -> None:
        for label in labels:
            kind = kind_of(label)
            if self._to_file and kind not in _KINDS_IN_FILES:
                raise TypeError(
                    f"{what} has the label {label!r}, a {kind}, where a file can hold labels of "
                    f"{', '.join(_KINDS_IN_FILES)} only. Make texts of them, as with str(label)"
                )
            if self._label_kind is None:
                self._label_kind = kind
            if kind != self._label_kind:
                raise TypeError(
                    f"{what} has the label {label!r}, a {kind}, those before are of {self._label_kind}: all must be of "
                    "one kind"
                )

    def _given_codes(self, what: str, column: pd.Series[Any]) -> npt.NDArray[np.int32]:
        assert self._fixed is not None
        if column.isna().any():
            column = column.fillna(-1)
        codes = column.to_numpy(np.int64)
        n = len(self._fixed.categories)
        outside = codes[(codes < -1) | (codes >= n)]
        if len(outside):
            raise ValueError(f"{what} has the code {outside[0]}; expected 0 to {n - 1}, or -1 for missing")
        return codes.astype(np.int32)

    def _labels(self, fill: Any, missing: Int64Array, texts: bool) -> Any:
        if len(missing):
            self._store.fill(-1, missing)
        codes = self._store.whole()[:, 0]
        labels = [label for _, label in self._codes]
        if self._dtype is not None and (self._fixed is not None or labels == self._dtype.categories.tolist()):
            dtype = self._dtype
        else:
            # In the order in which anndata puts the categories that it makes of text.
            order = natsorted(range(len(labels)), key=lambda code: labels[code])
            place = np.empty(len(labels) + 1, np.int32)
            place[order], place[-1] = np.arange(len(labels)), -1
            codes = place[codes]
            dtype = pd.CategoricalDtype(_categories([labels[code] for code in order]))
        if len(missing) and fill is not None:
            dtype = self._with_fill(dtype, fill)
            codes[missing] = dtype.categories.tolist().index(fill)
        labelled = pd.Categorical.from_codes(codes, dtype=dtype)
        # As anndata does: texts that are all different gain nothing from being a categorical.
        distinct = self._from_text and self._fixed is None and len(dtype.categories) >= self._n_rows
        if (distinct or (texts and self._from_text)) and not (codes < 0).any():
            return np.asarray(labelled, dtype=object)
        return labelled

    def _with_fill(self, dtype: pd.CategoricalDtype, fill: Any) -> pd.CategoricalDtype:
        labels = dtype.categories.tolist()
        if fill in labels:
            return dtype
        if self._fixed is not None:
            known = first_few(dtype.categories, 8)
            raise ValueError(f"fill is {fill!r}, which is not among the categories; expected one of {known}")
        return pd.CategoricalDtype(_categories([*labels, fill]), dtype.ordered)


def no_result(place: str, missing: Int64Array, n_rows: int, dtype: Any = "") -> str:
    """Say that rows have no result."""
    why = f", and {dtype} has no missing values" if dtype else ""
    fill = "fill=-1, say, fills them" if dtype else "fill=float('nan') fills them"
    return (
        f"{place}: {len(missing)} of {n_rows} rows have no result{why}, the first is row {missing[0]}. Were the "
        f"results of all ranks gathered? Otherwise {fill}"
    )


def _typed(what: str, values: Any) -> Any:
    """Values as a Series of a numpy number, a nullable number, a categorical, or object with text."""
    column: Any = values if isinstance(values, pd.Series) else _series(values)
    dtype = column.dtype
    if isinstance(dtype, pd.SparseDtype):
        column = column.sparse.to_dense()
        dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return column
    if isinstance(dtype, np.dtype) and dtype.kind in "biuf":
        return column
    if isinstance(dtype, pd.BooleanDtype) or hasattr(dtype, "numpy_dtype"):
        return column.astype(dtype.numpy_dtype) if dtype.kind == "f" else column
    kind = pd.api.types.infer_dtype(column, skipna=True)
    is_object = pd.api.types.is_object_dtype(dtype)
    if kind == "string" or (kind == "empty" and (is_object or isinstance(dtype, pd.StringDtype))):
        return column.astype(object)
    if is_object and kind in ("boolean", "integer"):
        return column.astype("boolean" if kind == "boolean" else "Int64")
    if is_object and kind in ("floating", "mixed-integer-float"):
        return column.astype("Float64").astype(np.float64)
    found = f"{kind} values" if is_object else f"dtype {dtype}"
    raise TypeError(f"{what} has {found}; expected numbers, bools or text")


def _series(values: Any) -> Any:
    """A Series in which integers stay integers where a value is missing: pandas itself makes floats of them."""
    if isinstance(values, list | tuple) and any(value is None or value is pd.NA for value in values):
        return pd.Series(values, dtype=object)
    if isinstance(values, np.ma.MaskedArray) and values.dtype.kind in "biu":
        nullable: Any = pd.array(values.data).copy()
        nullable[np.ma.getmaskarray(values)] = pd.NA
        return pd.Series(nullable)
    return pd.Series(values)


def _dtype_of(categories: Any) -> pd.CategoricalDtype:
    if isinstance(categories, pd.CategoricalDtype):
        dtype = categories
    elif isinstance(categories, str):
        raise TypeError(f"categories is the text {categories!r}; expected a list of labels")
    else:
        # As plain Python values, which messages show without their type.
        dtype = pd.CategoricalDtype(_categories(pd.Index(categories).tolist()))
    if dtype.categories is None:
        raise ValueError("categories is a CategoricalDtype without categories; expected the labels")
    return dtype


def _categories(labels: list[Any]) -> pd.Index[Any]:
    # Texts as objects: anndata writes these as plain strings, which all its versions read.
    if all(isinstance(label, str) for label in labels):
        return cast("pd.Index[Any]", pd.Index(labels, dtype=object))
    return cast("pd.Index[Any]", pd.Index(labels))


def _number(fill: Any) -> float:
    if isinstance(fill, bool | int | float | np.number | np.bool_):
        return fill  # type: ignore[return-value]
    raise TypeError(f"fill is {fill!r}; expected a number, as the results are numbers")
