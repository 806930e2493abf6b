"""Where obs columns come from: a file, a DataFrame, or whatever an AnnData has as its obs at the moment.

Files are read with anndata's own readers only, and are open during a read only. Nothing is converted here.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, cast

import anndata
import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd
from anndata.io import read_elem

from annfeed.errors import FormatError, UnknownNameError
from annfeed.h5ad.file import n_values, open_h5py, text_of
from annfeed.h5ad.held import HeldAnnData
from annfeed.h5ad.identity import KnownFile
from annfeed.h5ad.turns import reading
from annfeed.obs.columns import Column, Labels, Rows
from annfeed.obs.text_codes import read_text_codes

Name = Any  # of a column: str in a file; a DataFrame may have others

Read = Generator[tuple[Name, "pd.Series[Any]"], None, None]


class Source(Protocol):
    """An obs, wherever it is."""

    @property
    def place(self) -> str:
        """The words for it in messages."""

    @property
    def is_of_file(self) -> bool:
        """Whether it is read from files only, and not from a DataFrame that may be edited."""

    @property
    def is_one_frame(self) -> bool:
        """Whether what `read` gives are the arrays of one DataFrame, and no copies."""

    @property
    def n_rows(self) -> int:
        """Number of rows."""

    @property
    def names(self) -> pd.Index[str]:
        """Names of the rows, as text."""

    @property
    def column_names(self) -> list[Name]:
        """All columns that there are."""

    def frame(self, columns: list[Name]) -> pd.DataFrame:
        """Return some columns as a new DataFrame."""

    def read(self, columns: list[Name]) -> Read:
        """Give some columns, one by one."""

    def computed(self, column: Name) -> Column | None:
        """Return a column that need not be read, converted; None for all that must."""

    def coded(self, column: Name) -> pd.Categorical | None:
        """Return a column of text as codes and texts, of which no more is held at a time; None for any other column."""

    def check_rows(self) -> None:
        """Raise StaleDataError if rows are no longer those of when it was made; files are looked at when read."""

    def check_unchanged(self) -> None:
        """Do as `check_rows`, and raise StaleFileError if a file is another one."""

    def is_replaced(self, column: Name, since: int) -> bool:
        """Whether annfeed wrote another column in its place, in a file, after so many writes of its own."""

    def still_holds(self, column: Name, array: object) -> bool:
        """Whether ``array``, from an earlier `read`, is still the column's."""

    def live(self, column: Name, rows: Rows) -> Iterator[tuple[npt.NDArray[np.int64], pd.Series[Any]]]:
        """Give what the column holds in memory now at ``rows``, in pieces, each with its places among ``rows``."""

    def to_pickle(self, columns: list[Name]) -> Source:
        """Return what goes into a pickle in place of this source."""


class FrameSource:
    """A DataFrame in memory."""

    place = "obs of the DataFrame in memory"
    is_of_file = False
    is_one_frame = True

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

    def read(self, columns: list[Name]) -> Read:
        now = cast(Any, self._now())
        yield from ((name, now[name]) for name in columns)

    def computed(self, column: Name) -> None:
        return None

    def coded(self, column: Name) -> None:
        return None  # it is in memory

    def check_rows(self) -> None:
        """Rows are those that the frame has: of a dataset it is a copy, made when the dataset was pickled."""

    def check_unchanged(self) -> None:
        self.check_rows()

    def is_replaced(self, column: Name, since: int) -> bool:
        return False  # what is in memory is compared

    def live(self, column: Name, rows: Rows) -> Iterator[tuple[npt.NDArray[np.int64], pd.Series[Any]]]:
        series = cast("pd.Series[Any]", self._now()[column])
        if isinstance(series.dtype, np.dtype):  # pandas itself takes no rows of another byte order
            yield np.arange(len(rows), dtype=np.int64), pd.Series(series.to_numpy()[rows])
        else:
            yield np.arange(len(rows), dtype=np.int64), series.iloc[rows]

    def still_holds(self, column: Name, array: object) -> bool:
        now = self._now()[column].array
        if now is array:
            return True
        # pandas wraps these anew at each access. `array` is alive, so no other column can be at its address.
        return type(now) is type(array) and isinstance(array, _WRAPPED_ANEW) and _memory(now) == _memory(array)

    def to_pickle(self, columns: list[Name]) -> Source:
        return FrameSource(self.frame(columns))


class AnnDataSource(FrameSource):
    """The obs of an AnnData, looked up at each use because ``adata.obs = …`` replaces it."""

    place = "obs of the AnnData in memory"

    def __init__(self, adata: anndata.AnnData, place: str | None = None) -> None:
        self._held = HeldAnnData(adata, place or "AnnData")
        self.place = place or self.place

    def _now(self) -> pd.DataFrame:
        return cast(pd.DataFrame, self._held.adata.obs)

    def check_rows(self) -> None:
        self._held.check()


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


class FileSource:
    """The obs of an .h5ad file. Nothing stays open between reads, so that it may be forked and pickled.

    Parameters
    ----------
    path, group
        Where it lies.
    file
        The file that it must be; None for the one that is there now.
    """

    is_of_file = True
    is_one_frame = False

    def __init__(self, path: str | os.PathLike[str], group: str, file: KnownFile | None = None) -> None:
        self._path = os.path.abspath(os.fspath(path))
        self._file = KnownFile.at(self._path) if file is None else file
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
                        return pd.Index([text_of(name) for name in obs[obs.dtype.names[0]]], name=obs.dtype.names[0])
            return self._whole().index
        with self._open() as obs, _told(f"{self.place}/{index}"):
            names = cast(Any, read_elem(obs[index]))
            return _as_text(pd.Index(names, name=None if index == "_index" else index))

    def frame(self, columns: list[Name]) -> pd.DataFrame:
        if self._header.index is None:
            return self._whole().loc[:, columns]
        # pandas 3 has a dtype for text, also of no columns; before, the same words mean object.
        named = pd.Index(columns, dtype=str)
        return pd.DataFrame(dict(self.read(columns)), columns=named).set_axis(self.names, axis=0)

    def read(self, columns: list[Name]) -> Read:
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

    def computed(self, column: Name) -> Labels | None:
        coded = self.coded(column)
        return None if coded is None else Labels(coded.codes, list(coded.categories), None)

    def coded(self, column: Name) -> pd.Categorical | None:
        if self._header.index is None:
            return None
        with self._open() as obs, _told(f"{self.place}/{column}"):
            found = read_text_codes(obs[column])
            if found is not None and len(found) != self.n_rows:
                raise ValueError(f"it has {len(found)} values, but there are {self.n_rows} rows")
            return found

    def check_rows(self) -> None:
        """A file that changes is another file, which each read tells."""

    def check_unchanged(self) -> None:
        self._file.check()

    def is_replaced(self, column: Name, since: int) -> bool:
        return self._file.is_replaced(f"{self._group}/{column}", since)

    def live(self, column: Name, rows: Rows) -> Iterator[tuple[npt.NDArray[np.int64], pd.Series[Any]]]:
        return iter(())

    def still_holds(self, column: Name, array: object) -> bool:
        return True

    def to_pickle(self, columns: list[Name]) -> Source:
        return self

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
                columns = [text_of(c) for c in obs.attrs["column-order"]]
                index = text_of(obs.attrs["_index"])
                # In older frames a lone categorical would come back as its bare codes.
                alone = _at_least(version, (0, 2))
                return _Header(columns, n_values(obs[index]), index if alone else None)
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
        with reading(), _quiet(), _told(self.place):
            # Categories of compound frames lie in uns; anndata joins them only when it reads the whole file.
            adata = anndata.read_h5ad(self._path, backed="r")
            try:
                return cast(pd.DataFrame, adata.obs)
            finally:
                adata.file.close()

    @contextmanager
    def _open(self) -> Iterator[Any]:
        self._file.check()
        with open_h5py(self._path) as file:
            self._file.check()  # it is the one that was opened
            with _told(self.place):
                obs = file.get(self._group)
                there = list(file) if obs is None else []
                modalities = list(file["mod"]) if obs is None and "mod" in there else []
            if modalities:
                names = "', '".join(modalities)
                raise UnknownNameError(
                    f"{self._path}: '{self._group}' does not exist. This is a MuData file with modalities "
                    f"'{names}': pass elem='mod/<modality>/X', or split it with mudata"
                )
            if obs is None:
                raise FormatError(
                    f"{self._path} has no {self._group!r}; at its top level are {', '.join(there) or 'no objects'}. "
                    "Is it an .h5ad file, and is the elem right?"
                )
            with _quiet():
                yield obs

    def __getstate__(self) -> tuple[str, str, KnownFile]:
        return self._path, self._group, self._file

    def __setstate__(self, state: tuple[str, str, KnownFile]) -> None:
        self._path, self._group, self._file = state


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
    return text_of(obs.attrs.get(name, ""))


def _at_least(version: str, wanted: tuple[int, ...]) -> bool:
    numbers = tuple(int(part) for part in version.split(".") if part.isdecimal())
    return numbers >= wanted
