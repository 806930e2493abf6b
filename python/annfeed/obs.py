"""The obs of one dataset as tensors and strings, for any rows in any order.

Labels must not drift: a column's dtype, its categories and their codes are those of the whole column, whatever rows a
batch holds, so each column is converted once, whole, and a batch is a fancy index into it. Columns nobody asked for are
never read. Files are read with anndata's own readers only; no matrix, order of rows, subset or epoch is known here.
"""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol, cast

import anndata
import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from anndata.io import read_elem

from annfeed.errors import FormatError, UnknownNameError
from annfeed.h5py_file import open_h5py

CategoriesAs = Literal["str", "code"]
Name = Any  # of a column: str in a file; a DataFrame may have others
Rows = npt.NDArray[np.int64]

MISSING = "nan"

_INT64_MAX = 2**63 - 1


class ObsTable:
    """The obs columns of a file, an AnnData or a DataFrame, read when needed and given out by row number.

    Make one with `from_file`, `from_anndata` or `from_frame`. What a column becomes depends on the whole column:

    ===========================  ==========================================================================
    in obs                       in a batch, under ``obs_<column>``
    ===========================  ==========================================================================
    bool                         torch.bool
    integer                      torch.int64
    float                        torch.get_default_dtype(), missing as NaN
    nullable integer, boolean    as above if nothing is missing in the column, else torch.float64 with NaN
    text, categorical            list of str, missing as "nan"; numbers as categories: their ``str()``
    anything else                list of str, the ``str()`` of each value, missing as "nan"
    ===========================  ==========================================================================

    With ``categories="code"`` each of the last two rows becomes torch.int64 codes instead, -1 for missing, and
    ``categories[column]`` lists what they stand for: a categorical's categories as stored, unused ones kept; for other
    columns their different texts, sorted.

    A table pickles as path, group and columns if it is of a file, else with its frame (the selected columns).
    """

    def __init__(self, source: _Source, columns: Iterable[Name] | None) -> None:
        """Use `from_file`, `from_anndata` or `from_frame` instead."""
        if isinstance(columns, str):
            raise TypeError(f"columns must be a list of names or None, not the str {columns!r}; write [{columns!r}]")
        self._source = source
        self._asked = None if columns is None else list(dict.fromkeys(columns))
        self._converted: dict[Name, tuple[object, _Column]] = {}

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str], group: str = "obs", columns: Iterable[Name] | None = None
    ) -> ObsTable:
        """Make a table of the obs in an .h5ad file; the file is opened for each read only.

        Parameters
        ----------
        path
            The file.
        group
            Where the obs lies in it: "obs", "mod/rna/obs", "experiments/rna/obs".
        columns
            The columns wanted; None for all.

        Raises
        ------
        OSError
            If the file cannot be read.
        FormatError
            If there is no dataframe at ``group``, or it does not hang together.
        UnknownNameError
            If it has no such column.

        Examples
        --------
        >>> import tempfile
        >>> adata = anndata.AnnData(obs=pd.DataFrame({"sex": ["f", "m"], "age": [30, 40]}, index=["a", "b"]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     adata.write_h5ad(f"{folder}/two.h5ad")
        ...     ObsTable.from_file(f"{folder}/two.h5ad", columns=["age"]).take([1, 0, 1])
        {'obs_age': tensor([40, 30, 40])}
        """
        table = cls(_FileSource(path, group), columns)
        _ = table.columns  # a wrong path, group or column is told now, not in a worker
        return table

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, columns: Iterable[Name] | None = None) -> ObsTable:
        """Make a table of a DataFrame, which is kept by reference.

        Parameters
        ----------
        frame
            One row a cell, its index the obs names.
        columns
            The columns wanted; None for all that the frame has when it is read.

        Raises
        ------
        UnknownNameError
            If the frame has no such column.
        ValueError
            If two columns have one name, or an unsigned integer does not fit int64 (told by `take`).

        Examples
        --------
        >>> table = ObsTable.from_frame(pd.DataFrame({"sex": pd.Categorical(["f", None], ["f", "m"])}))
        >>> table.take([0, 1]), table.take([0, 1], categories="code")
        ({'obs_sex': ['f', 'nan']}, {'obs_sex': tensor([ 0, -1])})
        """
        if not isinstance(frame, pd.DataFrame):
            raise TypeError(f"obs must be a pandas DataFrame, not a {type(frame).__name__}")
        table = cls(_FrameSource(frame), columns)
        _ = table.columns
        return table

    @classmethod
    def from_anndata(cls, adata: anndata.AnnData, columns: Iterable[Name] | None = None) -> ObsTable:
        """Make a table of the obs that ``adata`` has whenever the table is read: see `refresh` for later edits.

        Parameters
        ----------
        adata
            In memory, backed or a view. It is kept by reference; only its obs goes into a pickle.
        columns
            The columns wanted; None for all.

        Raises
        ------
        UnknownNameError
            If obs has no such column.

        Examples
        --------
        >>> adata = anndata.AnnData(obs=pd.DataFrame({"age": [30, 40]}, index=["a", "b"]))
        >>> table = ObsTable.from_anndata(adata)
        >>> adata.obs["age"] = [31, 41]
        >>> table.take([0])
        {'obs_age': tensor([31])}
        """
        if not isinstance(adata.obs, pd.DataFrame):
            raise TypeError(f"adata.obs is a {type(adata.obs).__name__}, not a DataFrame; pass the file's path")
        table = cls(_AnnDataSource(adata), columns)
        _ = table.columns
        return table

    @property
    def n_rows(self) -> int:
        """The number of rows (cells)."""
        return self._source.n_rows

    @property
    def names(self) -> pd.Index[str]:
        """The obs names, as strings; a file's are read when first asked for."""
        return self._source.names

    @property
    def is_of_file(self) -> bool:
        """Whether it is read from a file, and not from a DataFrame that may be edited."""
        return isinstance(self._source, _FileSource)

    @property
    def column_names(self) -> list[Name]:
        """All columns that there are, selected or not."""
        return list(self._source.column_names)

    @property
    def columns(self) -> list[Name]:
        """The columns selected, in the order asked for.

        Raises UnknownNameError if one is not (or no longer) there, ValueError if two would have one key in a batch.
        """
        there = self._source.column_names
        known = set(there)
        columns = list(there) if self._asked is None else list(self._asked)
        for name in columns:
            if name not in known:
                raise UnknownNameError(_unknown(name, self._source))
        if len(known) < len(there) or len({f"obs_{name}" for name in columns}) < len(columns):
            _check_distinct(columns, there, self._source.place)
        return columns

    @property
    def categories(self) -> dict[Name, pd.Index[Any]]:
        """What the codes of ``take(…, categories="code")`` stand for: an Index for each column that has codes.

        Every selected column is read for this.
        """
        return {name: c.categories for name, c in self._columns() if isinstance(c, _Labels)}

    def frame(self) -> pd.DataFrame:
        """Return the selected columns as a new DataFrame; one of a file is read anew at each call.

        Examples
        --------
        >>> ObsTable.from_frame(pd.DataFrame({"a": [1], "b": [2]}), columns=["b"]).frame()
           b
        0  2
        """
        return self._source.frame(self.columns)

    def take(self, rows: npt.ArrayLike, categories: CategoriesAs = "str") -> dict[str, torch.Tensor | list[str]]:
        """Return the selected columns at ``rows``, under the keys ``obs_<column>``.

        Parameters
        ----------
        rows
            int64 [n], row numbers from 0; any order, repeats allowed.
        categories
            "str" for texts, "code" for int64 codes; the class says which columns that concerns.

        Raises
        ------
        IndexError
            If a row number is negative or not below `n_rows`.
        TypeError
            If ``rows`` are not integers in one dimension.
        ValueError
            If ``categories`` is something else.
        FormatError
            If a column of the file cannot be read.

        Examples
        --------
        >>> table = ObsTable.from_frame(pd.DataFrame({"sex": ["f", "m"], "age": [30, 40]}))
        >>> table.take([1, 1], categories="code")
        {'obs_sex': tensor([1, 1]), 'obs_age': tensor([40, 40])}
        """
        if categories not in ("str", "code"):
            raise ValueError(f'categories must be "str" or "code", not {categories!r}')
        index = _row_numbers(rows, self.n_rows, self._source.place)
        return {f"obs_{name}": column.take(index, categories) for name, column in self._columns()}

    def refresh(self) -> None:
        """Forget the converted columns of an in-memory obs, so that edits made inside its arrays are seen.

        A column or an obs that was replaced (``adata.obs["x"] = …``, ``adata.obs = …``) is seen by the next `take`
        without this; an edit inside an array (``adata.obs.loc[0, "x"] = …``) is sure to be seen only after it, so call
        it when an epoch begins. A file's columns stay: a file that changed is another file.

        Examples
        --------
        >>> frame = pd.DataFrame({"sex": ["f", "m"]})
        >>> table = ObsTable.from_frame(frame)
        >>> before = table.take([0])
        >>> frame.loc[0, "sex"] = "d"
        >>> table.refresh()
        >>> before, table.take([0])
        ({'obs_sex': ['f']}, {'obs_sex': ['d']})
        """
        if not isinstance(self._source, _FileSource):
            self._converted = {}

    def _columns(self) -> list[tuple[Name, _Column]]:
        names = self.columns
        cache = self._converted
        stale = [name for name in names if name not in cache or not self._source.still_holds(name, cache[name][0])]
        with closing(self._source.read(stale)) as columns:
            for name, series in columns:
                # The array is kept for `still_holds`, but not a file's: its column would be in memory twice.
                array = None if isinstance(self._source, _FileSource) else series.array
                cache[name] = array, _convert(series, f"{self._source.place}: column {name!r}")
        return [(name, cache[name][1]) for name in names]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the converted columns behind; an AnnData's obs is taken as it is now."""
        return {"source": self._source.to_pickle(self.columns), "asked": self._asked}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start with nothing read."""
        self._source, self._asked, self._converted = state["source"], state["asked"], {}

    def __repr__(self) -> str:
        """Return where the obs is and what is selected."""
        return f"ObsTable({self._source.place}, columns={'all' if self._asked is None else self._asked})"


# Columns, converted ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Values in the dtype they came in (an int8 column of 100 M rows stays 100 MB); a batch gets ``dtype``."""

    values: npt.NDArray[Any]
    dtype: torch.dtype | None  # None: torch's default dtype, as it is when a batch is made

    def take(self, rows: Rows, categories: CategoriesAs) -> torch.Tensor:
        values = self.values[rows]
        if self.dtype is torch.int64:
            values = values.astype(np.int64, copy=False)  # torch before 2.3 knows no uint16
        return torch.from_numpy(values).to(self.dtype or torch.get_default_dtype())


class _Labels:
    """Codes into a list of different texts, -1 for missing."""

    def __init__(self, codes: npt.NDArray[Any], texts: list[str], stored: pd.Index[Any] | None) -> None:
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
        return self._sorted[1]

    def take(self, rows: Rows, categories: CategoriesAs) -> torch.Tensor | list[str]:
        if categories == "code":
            return torch.from_numpy(self._sorted[0][rows].astype(np.int64))
        return cast(list[str], self._texts[self._codes[rows]].tolist())


_Column = _Numbers | _Labels


def _convert(column: pd.Series[Any], where: str) -> _Column:
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        # First: pandas calls a categorical of bools a bool column.
        codes = cast(Any, column.array).codes
        return _Labels(codes, [_text(c) for c in dtype.categories], dtype.categories)
    if isinstance(dtype, pd.SparseDtype):
        return _convert(cast(Any, column).sparse.to_dense(), where)
    if pd.api.types.is_bool_dtype(dtype):
        return _Numbers(*_without_missing(column, np.dtype(bool), torch.bool))
    if pd.api.types.is_integer_dtype(dtype):
        if pd.api.types.is_unsigned_integer_dtype(dtype) and (column > _INT64_MAX).any():
            raise ValueError(f"{where} has values above {_INT64_MAX}, which int64 cannot hold; store text")
        return _Numbers(*_without_missing(column, None, torch.int64))
    if pd.api.types.is_float_dtype(dtype):
        values = column.to_numpy() if isinstance(dtype, np.dtype) else column.to_numpy(np.float64, na_value=np.nan)
        return _Numbers(_native(values), None)
    return _labels_of(column)


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


def _labels_of(column: pd.Series[Any]) -> _Labels:
    if column.dtype == object and pd.api.types.infer_dtype(column, skipna=True) not in ("string", "empty"):
        # As texts first: as values 1, 1.0 and True would be one, and lists cannot be hashed.
        missing = column.isna().to_numpy()
        column = pd.Series([None if m else _text(v) for m, v in zip(missing, column, strict=True)], dtype=object)
    codes, values = pd.factorize(column)
    return _Labels(codes.astype(np.int32) if len(codes) < 2**31 else codes, [_text(v) for v in values], None)


def _text(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _row_numbers(rows: npt.ArrayLike, n_rows: int, place: str) -> Rows:
    index = np.asarray(rows)
    if index.size == 0:
        index = index.astype(np.int64)
    if index.ndim != 1 or index.dtype.kind not in "iu":
        raise TypeError(f"rows must be integers in one dimension, not {index.dtype} of shape {index.shape}")
    if index.size and (index.min() < 0 or index.max() >= n_rows):
        bad = index.min() if index.min() < 0 else index.max()
        raise IndexError(f"{place}: row {bad} is outside 0..{n_rows - 1}")
    return index.astype(np.int64, copy=False)


def _check_distinct(columns: list[Name], there: list[Name], place: str) -> None:
    keys = [f"obs_{name}" for name in columns]
    for name, key in zip(columns, keys, strict=True):
        if keys.count(key) > 1 or there.count(name) > 1:
            raise ValueError(f"{place} has two columns for {key!r}; rename one, or select others")


def _unknown(name: Name, source: _Source) -> str:
    texts = [str(n) for n in source.column_names]
    lower = {t.lower(): t for t in texts}
    near = difflib.get_close_matches(str(name).lower(), list(lower), n=3)
    if near:
        hint = f"did you mean {' or '.join(repr(lower[n]) for n in near)}?"
    else:
        more = f" and {len(texts) - 8} more" if len(texts) > 8 else ""
        hint = f"it has {', '.join(texts[:8]) or 'no columns'}{more}."
    return f"{source.place} has no column {name!r}; {hint} {source.how_to_list}"


# Where columns come from ----------------------------------------------------------------------------------------------


_Read = Generator[tuple[Name, "pd.Series[Any]"], None, None]


class _Source(Protocol):
    """An obs, wherever it is."""

    @property
    def place(self) -> str:
        """The words for it in messages."""

    @property
    def how_to_list(self) -> str:
        """What to do to see its columns."""

    @property
    def n_rows(self) -> int: ...
    @property
    def names(self) -> pd.Index[str]: ...
    @property
    def column_names(self) -> list[Name]: ...
    def frame(self, columns: list[Name]) -> pd.DataFrame: ...
    def read(self, columns: list[Name]) -> _Read: ...
    def still_holds(self, column: Name, array: object) -> bool:
        """Whether ``array``, from an earlier `read`, is still the column's."""

    def to_pickle(self, columns: list[Name]) -> _Source: ...


class _FrameSource:
    """A DataFrame in memory."""

    place = "obs of the DataFrame in memory"
    how_to_list = "List them with frame.columns."

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame

    def _now(self) -> pd.DataFrame:
        return self._frame

    @property
    def n_rows(self) -> int:
        return len(self._now())

    @property
    def names(self) -> pd.Index[str]:
        return _as_text(self._now().index)

    @property
    def column_names(self) -> list[Name]:
        return list(self._now().columns)

    def frame(self, columns: list[Name]) -> pd.DataFrame:
        return self._now().loc[:, columns]  # a copy, also of a view's obs, which is a class of anndata's

    def read(self, columns: list[Name]) -> _Read:
        now = cast(Any, self._now())
        yield from ((name, now[name]) for name in columns)

    def still_holds(self, column: Name, array: object) -> bool:
        now = self._now()[column].array
        if now is array:
            return True
        # pandas wraps these anew at each access. `array` is alive, so no other column can be at its address.
        return type(now) is type(array) and isinstance(array, _WRAPPED_ANEW) and _memory(now) == _memory(array)

    def to_pickle(self, columns: list[Name]) -> _Source:
        return _FrameSource(self.frame(columns))


class _AnnDataSource(_FrameSource):
    """The obs of an AnnData, looked up at each use because ``adata.obs = …`` replaces it."""

    place = "obs of the AnnData in memory"
    how_to_list = "List them with adata.obs.columns."

    def __init__(self, adata: anndata.AnnData) -> None:
        self._adata = adata

    def _now(self) -> pd.DataFrame:
        return cast(pd.DataFrame, self._adata.obs)


_WRAPPED_ANEW = (pd.arrays.NumpyExtensionArray, pd.arrays.DatetimeArray, pd.arrays.TimedeltaArray)


def _memory(array: Any) -> tuple[object, ...]:
    values = np.asarray(array) if isinstance(array, pd.arrays.NumpyExtensionArray) else array.view("i8")
    return values.__array_interface__["data"], values.strides, values.shape, values.dtype


def _as_text(index: pd.Index[Any]) -> pd.Index[str]:
    # As AnnData does with the obs it is given.
    return index if pd.api.types.is_string_dtype(index) else index.astype(str)


@dataclass(frozen=True, slots=True)
class _Header:
    """What is known of a file's obs before any column is read."""

    columns: list[str]
    n_rows: int
    index: str | None  # the dataset of the names, where each column can be read alone; None: only the whole can


class _FileSource:
    """The obs of an .h5ad file. Nothing stays open between reads, so that it may be forked and pickled."""

    how_to_list = "List them with 'annfeed inspect FILE'."

    def __init__(self, path: str | os.PathLike[str], group: str) -> None:
        self._path = os.path.abspath(os.fspath(path))
        self._group = group.strip("/")

    @property
    def place(self) -> str:
        return f"{self._path}: {self._group}"

    @property
    def n_rows(self) -> int:
        return self._header.n_rows

    @property
    def column_names(self) -> list[Name]:
        return self._header.columns

    @cached_property
    def names(self) -> pd.Index[str]:
        index = self._header.index
        if index is None:
            with self._open() as obs:
                if isinstance(obs, h5py.Dataset):
                    # Before anndata 0.7; of a var or raw.var only the names are known how to read.
                    with _told(self.place):
                        return pd.Index([_str(name) for name in obs[obs.dtype.names[0]]], name=obs.dtype.names[0])
            return self._whole().index
        with self._open() as obs, _told(f"{self.place}/{index}"):
            return _as_text(pd.Index(read_elem(obs[index]), name=None if index == "_index" else index))

    def frame(self, columns: list[Name]) -> pd.DataFrame:
        if self._header.index is None:
            return self._whole().loc[:, columns]
        return pd.DataFrame(dict(self.read(columns)), columns=columns).set_axis(self.names, axis=0)

    def read(self, columns: list[Name]) -> _Read:
        if not columns:
            return
        if self._header.index is None:
            whole = cast(Any, self._whole())
            yield from ((name, whole[name]) for name in columns)
            return
        rows = pd.RangeIndex(self.n_rows)
        with self._open() as obs:
            for name in columns:
                with _told(f"{self.place}/{name}"):
                    series = pd.Series(read_elem(obs[name]), index=rows)
                yield name, series

    def still_holds(self, column: Name, array: object) -> bool:
        return True

    def to_pickle(self, columns: list[Name]) -> _Source:
        return type(self)(self._path, self._group)

    @cached_property
    def _header(self) -> _Header:
        with self._open() as obs, _told(self.place):
            kind, version = (_attribute(obs, f"encoding-{name}") for name in ("type", "version"))
            if isinstance(obs, h5py.Dataset):
                # Before anndata 0.7: one compound dataset, its first field the names.
                if obs.dtype.names is None or obs.ndim != 1:
                    raise FormatError(f"it is an array of {obs.dtype}, not a dataframe")
                return _Header(list(obs.dtype.names[1:]), len(obs), None)
            if kind == "dataframe":
                columns = [_str(c) for c in obs.attrs["column-order"]]
                index = _str(obs.attrs["_index"])
                # In older frames a lone categorical would come back as its bare codes.
                alone = _at_least(version, (0, 2))
                lengths = obs[index]
                n_rows = len(lengths) if isinstance(lengths, h5py.Dataset) else len(read_elem(lengths))
                return _Header(columns, n_rows, index if alone else None)
        if kind:
            raise FormatError(f"{self.place} is encoded as {kind!r}, not as a dataframe; is the elem right?")
        whole = self._whole()  # no encoding at all: what it is, only anndata's reader of whole files knows
        return _Header(list(whole.columns), len(whole), None)

    def _whole(self) -> pd.DataFrame:
        frame = self._read_whole()
        return frame.set_axis(_as_text(frame.index), axis=0)

    def _read_whole(self) -> pd.DataFrame:
        with self._open() as obs:
            if isinstance(obs, h5py.Group) and _attribute(obs, "encoding-type") == "dataframe":
                with _told(self.place):
                    return cast(pd.DataFrame, read_elem(obs))
        if self._group != "obs":
            raise FormatError(
                f"{self.place} is in a form from before anndata 0.7, known only for the obs of a whole file; read the "
                "file with anndata and write it again"
            )
        with _quiet(), _told(self.place):
            # Categories of compound frames lie in uns; anndata joins them only when it reads the whole file.
            adata = anndata.read_h5ad(self._path, backed="r")
            try:
                return cast(pd.DataFrame, adata.obs)
            finally:
                adata.file.close()

    @contextmanager
    def _open(self) -> Iterator[Any]:
        with open_h5py(self._path) as file:
            with _told(self.place):
                obs = file.get(self._group)
                there = list(file) if obs is None else []
            if obs is None:
                raise FormatError(
                    f"{self._path} has no {self._group!r}; at its top level are {', '.join(there) or 'no objects'}. "
                    "Is it an .h5ad file, and is the elem right?"
                )
            with _quiet():
                yield obs

    def __getstate__(self) -> tuple[str, str]:
        return self._path, self._group

    def __setstate__(self, state: tuple[str, str]) -> None:
        self._path, self._group = state


@contextmanager
def _quiet() -> Iterator[None]:
    # anndata's advice to rewrite an old file is not for who only reads it.
    with warnings.catch_warnings():
        for category in (FutureWarning, PendingDeprecationWarning, anndata.ImplicitModificationWarning):
            warnings.simplefilter("ignore", category)
        yield


@contextmanager
def _told(where: str) -> Iterator[None]:
    # anndata's and h5py's errors name neither the file nor, mostly, the column.
    try:
        yield
    except OSError as error:
        raise OSError(f"{where} cannot be read: {error}") from error
    except MemoryError:
        raise
    except Exception as error:
        raise FormatError(f"{where} cannot be read: {error}; does anndata.read_h5ad read it?") from error


def _attribute(obs: Any, name: str) -> str:
    return _str(obs.attrs.get(name, ""))


def _str(value: Any) -> str:
    # Files written by Julia have fixed-length attributes, which h5py gives as bytes.
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _at_least(version: str, wanted: tuple[int, ...]) -> bool:
    numbers = tuple(int(part) for part in version.split(".") if part.isdecimal())
    return numbers >= wanted
