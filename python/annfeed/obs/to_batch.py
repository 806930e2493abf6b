"""What obs columns become in a batch: converted once, whole; numbers as arrays, texts as codes and what they stand for.

Conversion and look-up only; columns are read in obs/file.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from annfeed.arrays import Int64Array
from annfeed.obs.dtypes import check_int64, plain
from annfeed.user_arrays import as_text

CategoriesAs = Literal["str", "code"]

MISSING = "nan"


@dataclass(frozen=True, slots=True)
class Numbers:
    """Values in the dtype they came in (an int8 column of 100 M rows stays 100 MB); a batch gets ``dtype``."""

    values: npt.NDArray[Any]
    dtype: torch.dtype | None  # None: torch's default dtype, as it is when a batch is made

    def take(self, rows: Int64Array, categories: CategoriesAs) -> torch.Tensor:
        """Return the numbers at ``rows``."""
        values = self.values[rows]
        if self.dtype is torch.int64:
            values = values.astype(np.int64, copy=False)  # torch before 2.3 knows no uint16
        return torch.from_numpy(values).to(self.dtype or torch.get_default_dtype())

    def is_of(self, array: Any) -> bool:
        """Whether this is the memory of a pandas array itself, and not a copy."""
        return isinstance(array, pd.arrays.NumpyExtensionArray) and np.may_share_memory(self.values, array.to_numpy())


class Labels:
    """Codes into a list of different texts, -1 for missing."""

    def __init__(self, codes: Any, texts: list[str], stored: pd.Index[Any] | None) -> None:
        self._codes = codes
        # Code -1 finds the last entry.
        self._texts = np.array([*texts, MISSING], dtype=object)
        self._stored = stored

    @cached_property
    def _sorted(self) -> tuple[npt.NDArray[Any], pd.Index[Any]]:
        # Only wanted with categories="code": a column of barcodes has as many texts as rows to sort.
        if self._stored is not None:
            return self._codes, self._stored
        texts, rank = np.unique(self._texts[:-1], return_inverse=True)
        codes = np.append(rank, -1).astype(self._codes.dtype)[self._codes]
        return codes, pd.Index(texts, dtype=object)

    @property
    def categories(self) -> pd.Index[Any]:
        """What the codes stand for."""
        return self._sorted[1]

    def take(self, rows: Int64Array, categories: CategoriesAs) -> torch.Tensor | list[str]:
        """Return the texts at ``rows``, or their codes."""
        if categories == "code":
            return torch.from_numpy(self._sorted[0][rows].astype(np.int64))
        return cast(list[str], self._texts[self._codes[rows]].tolist())

    def is_of(self, array: Any) -> bool:
        """Whether the codes are those of a pandas array itself, and not a copy."""
        return isinstance(array, pd.Categorical) and np.may_share_memory(self._codes, array.codes)


Column = Numbers | Labels


class ObsColumns:
    """The selected columns of an obs by name, converted, as they were at one moment."""

    def __init__(self, columns: Mapping[Any, Column]) -> None:
        self._columns = dict(columns)

    def take(self, rows: Int64Array, categories: CategoriesAs = "str") -> dict[str, torch.Tensor | list[str]]:
        """Return the columns at ``rows``, under the keys ``obs_<column>``."""
        return {f"obs_{name}": column.take(rows, categories) for name, column in self._columns.items()}


def convert(column: pd.Series[Any] | pd.Categorical, where: str) -> Column:
    """Return a whole column, or the codes of its texts, as it is given out; ``where`` names it in errors."""
    if isinstance(column, pd.Categorical):
        return Labels(column.codes, list(column.categories), None)
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        # First: pandas calls a categorical of bools a bool column.
        codes = cast(Any, column.array).codes
        return Labels(codes, [as_text(c) for c in dtype.categories], dtype.categories)
    series: pd.Series[Any] = plain(column)
    dtype = series.dtype
    if pd.api.types.is_bool_dtype(dtype):
        return Numbers(*_without_missing(series, np.dtype(bool), torch.bool))
    if pd.api.types.is_integer_dtype(dtype):
        check_int64(series, where)
        return Numbers(*_without_missing(series, None, torch.int64))
    if pd.api.types.is_float_dtype(dtype):
        values = series.to_numpy() if isinstance(dtype, np.dtype) else series.to_numpy(np.float64, na_value=np.nan)
        return Numbers(_native(values), None)
    return _labels_of(series)


def holds(column: Column, rows: Int64Array, live: pd.Series[Any]) -> bool:
    """Whether a converted column has at ``rows`` what ``live``, [n_rows], holds by now."""
    if isinstance(live.dtype, pd.CategoricalDtype):
        live = live.cat.remove_unused_categories()  # there may be as many as cells
    try:
        now = convert(live, "")
    except ValueError:
        return False
    if isinstance(column, Labels) and isinstance(now, Labels):
        return column.take(rows, "str") == now.take(np.arange(len(live)), "str")
    if isinstance(column, Numbers) and isinstance(now, Numbers):
        return np.array_equal(column.values[rows], now.values, equal_nan=column.values.dtype.kind == "f")
    return len(rows) == 0


def _without_missing(
    column: pd.Series[Any], to: np.dtype[Any] | None, dtype: torch.dtype
) -> tuple[npt.NDArray[Any], torch.dtype]:
    if isinstance(column.dtype, np.dtype):
        return _native(column.to_numpy()), dtype
    if column.isna().any():
        return column.to_numpy(np.float64, na_value=np.nan), torch.float64
    return column.to_numpy(np.dtype(np.int64) if to is None else to), dtype


def _native(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    # torch takes neither foreign byte orders nor long doubles.
    if values.dtype.kind == "f" and values.dtype.itemsize > 8:
        return values.astype(np.float64)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _labels_of(column: pd.Series[Any]) -> Labels:
    codes, values = pd.factorize(as_labels(column))
    return Labels(codes.astype(np.int32) if len(codes) < 2**31 else codes, [as_text(v) for v in values], None)


def as_labels(column: pd.Series[Any]) -> pd.Series[Any]:
    """Return a column whose different labels are different values: objects of several kinds as their texts.

    Examples
    --------
    >>> as_labels(pd.Series([True, 1, None], dtype=object)).tolist()
    ['True', '1', None]
    """
    if column.dtype != object or pd.api.types.infer_dtype(column, skipna=True) in ("string", "empty"):
        return column
    # As values 1, 1.0 and True would be one, and lists cannot be hashed.
    missing = column.isna().to_numpy()
    texts = [None if m else as_text(v) for m, v in zip(missing, column, strict=True)]
    return pd.Series(texts, dtype=object, name=column.name)
