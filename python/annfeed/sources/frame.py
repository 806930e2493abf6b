"""A DataFrame in ``obsm`` as a matrix: in a file each of its columns is an array of its own, read when first needed.

Proteins of CITE-seq, mostly: tens or hundreds of columns. They are held in memory as one array, each process its own.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from anndata.io import read_elem

from annfeed._core import DecodedRows
from annfeed.arrays import Int64Array
from annfeed.errors import FormatError, UnsupportedError
from annfeed.h5ad.file import n_values, open_h5py, text_of
from annfeed.h5ad.identity import KnownFile
from annfeed.h5ad.turns import reading
from annfeed.sources.base import RowSource, Wanted, decoded
from annfeed.sources.columns import MISSING


def frame_columns(path: str, elem: str) -> pd.Index[Any] | None:
    """Return the names of the columns of a DataFrame in a file; None where there is something else, or nothing."""
    with open_h5py(path) as file:
        node = file.get(elem)
        if node is None or text_of(node.attrs.get("encoding-type", "")) != "dataframe":
            return None
        return pd.Index([text_of(name) for name in node.attrs["column-order"]])


def frame_values(frame: pd.DataFrame, place: str, *, totals: bool = False) -> npt.NDArray[Any]:
    """Return a DataFrame of numbers as one array, missing values as NaN.

    For messages: where it lies, and whether columns are wanted for the sums of rows, also those that are left out.

    Examples
    --------
    >>> frame_values(pd.DataFrame({"CD3": [1, 2], "CD4": pd.array([3, None], dtype="Int64")}), "obsm/protein").tolist()
    [[1.0, 3.0], [2.0, nan]]
    """
    dtypes = frame.dtypes.tolist()
    if dtypes and all(isinstance(dtype, np.dtype) and dtype.kind in "biuf" for dtype in dtypes):
        return frame.to_numpy(np.result_type(*dtypes), copy=True)  # column by column takes 50 times as long
    advice = "leave it out with var_subset="
    if totals:
        advice = "NormalizeTotal() sums over all columns; NormalizeTotal(over='delivered') over those of var_subset="
    columns = [_numbers(frame.iloc[:, i], f"{place}: column {name!r}", advice) for i, name in enumerate(frame.columns)]
    if not columns:
        return np.empty((len(frame), 0), np.float32)
    return np.stack([column.astype(np.result_type(*columns), copy=False) for column in columns], axis=1)


class FrameRows:
    """The values of a DataFrame in memory, kept by reference, turned into an array a few rows at a time.

    Examples
    --------
    >>> FrameRows(pd.DataFrame({"CD3": [1, 2], "CD8": [0.5, 0.0]}), "obsm/protein").read(np.array([1]), None)
    array([[2., 0.]])
    """

    def __init__(self, frame: pd.DataFrame, place: str) -> None:
        self._frame, self._place = frame, place
        self.shape = frame.shape

    def read(self, rows: Int64Array, columns: Int64Array | None, *, totals: bool = False) -> npt.NDArray[Any]:
        """Return ``rows`` of ``columns``, zeros for `MISSING`; of all columns where it is None."""
        frame = self._frame.iloc[rows]
        if columns is None:
            return frame_values(frame, self._place, totals=totals)
        there = columns != MISSING
        return _spread(frame_values(frame.iloc[:, columns[there]], self._place), there)

    def check(self, columns: Int64Array | None, *, totals: bool = False) -> None:
        """Raise what reading ``columns`` would raise for what kind of values they hold."""
        self.read(np.empty(0, np.int64), columns, totals=totals)

    def part(self, rows: Int64Array) -> FrameRows:
        """Return a copy of ``rows``."""
        return FrameRows(self._frame.iloc[rows], self._place)


class FrameFileSource(RowSource):
    """A DataFrame in ``obsm`` of a file, as a source of rows; ``columns`` are as of `annfeed.sources.base.Wanted`."""

    def __init__(self, path: str, elem: str, *, columns: Int64Array | None = None) -> None:
        self.path, self.elem = os.path.abspath(path), elem
        self._columns = columns
        self._file = KnownFile.at(self.path)
        self._values: npt.NDArray[Any] | None = None
        self._totals = False
        self._closed = False
        with open_h5py(self.path) as file:
            node = file[elem]
            self._names = [text_of(name) for name in node.attrs["column-order"]]
            self._n_rows = n_values(node[text_of(node.attrs["_index"])])

    @property
    def shape(self) -> tuple[int, int]:
        return self._n_rows, len(self._names)

    @property
    def place(self) -> str:
        return f"{self.path}: '{self.elem}'"

    def read(self, rows: Int64Array, threads: int) -> DecodedRows:
        if self._closed:
            raise ValueError(f"{self.place}: the dataset is closed; make a new one to read on")
        with reading():
            self._file.check()
            self._file.check_kept(self.elem)
            values = self._load() if self._values is None else self._values
            self._values = values
        columns = self._columns if self._totals else None
        return decoded(values[rows], self.place, Wanted(columns, self._totals))

    @property
    def is_part(self) -> bool:
        return self._columns is not None

    def keep_totals(self) -> None:
        """From now on, keep the sums of whole rows, over all columns of the DataFrame."""
        if not self._totals:
            self._totals, self._values = True, None

    def check_unchanged(self) -> None:
        """Raise StaleFileError if the file is no longer the one that the DataFrame was found in."""
        self._file.check()

    @property
    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Let go of the values."""
        self._values, self._closed = None, True

    def _load(self) -> npt.NDArray[Any]:
        # Totals need the others, too.
        wanted = range(self.shape[1]) if self._columns is None or self._totals else self._columns.tolist()
        there = [i for i in wanted if i != MISSING]
        others = self._totals and self._columns is not None
        with open_h5py(self.path) as file:
            node = file[self.elem]
            try:
                frame = pd.DataFrame({i: pd.Series(read_elem(node[self._names[i]])) for i in there}, columns=there)
            except (OSError, ValueError, KeyError) as error:
                raise FormatError(f"{self.place} cannot be read: {error}. Write it again with anndata") from error
        if len(there) and len(frame) != self.shape[0]:
            raise FormatError(f"{self.place} has columns of {len(frame)} rows, but an index of {self.shape[0]}")
        found = frame_values(frame.rename(columns=dict(enumerate(self._names))), self.place, totals=others)
        return _spread(found, np.asarray(wanted, np.int64) != MISSING)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_values": None}


def _spread(values: npt.NDArray[Any], there: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Columns, and zeros where one is not ``there``."""
    if there.all():
        return values
    spread = np.zeros((len(values), len(there)), values.dtype)
    spread[:, there] = values
    return spread


def _numbers(column: Any, place: str, advice: str) -> npt.NDArray[Any]:
    dtype = column.dtype
    if isinstance(dtype, pd.SparseDtype):
        return _numbers(column.sparse.to_dense(), place, advice)
    is_number = pd.api.types.is_bool_dtype(dtype) or pd.api.types.is_numeric_dtype(dtype)
    if isinstance(dtype, pd.CategoricalDtype) or not is_number or pd.api.types.is_complex_dtype(dtype):
        raise UnsupportedError(f"{place} is {dtype}; expected numbers; {advice}")
    if isinstance(dtype, np.dtype):
        return np.asarray(column)
    if column.isna().any():
        return np.asarray(column.to_numpy(np.float64, na_value=np.nan))
    return np.asarray(column.to_numpy(dtype.numpy_dtype))
