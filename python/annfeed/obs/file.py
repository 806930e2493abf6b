"""The obs of an .h5ad file, read with anndata's own readers, from a file that is open during a read only."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import anndata
import h5py
import pandas as pd
from anndata.io import read_elem

from annfeed.errors import FormatError, UnknownNameError
from annfeed.h5ad.file import n_values, open_h5py, text_of
from annfeed.h5ad.identity import KnownFile
from annfeed.h5ad.turns import reading
from annfeed.obs.base import Name, ObsSource, Read, as_text
from annfeed.obs.text_codes import read_text_codes


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of a file's obs before any column is read."""

    columns: list[str]
    n_rows: int
    index: str | None  # the dataset of the names, where each column can be read alone; None: only the whole can


class FileObs(ObsSource):
    """The obs of an .h5ad file. Nothing stays open between reads, so that it may be forked and pickled.

    Parameters
    ----------
    path, group
        Where it lies.
    file
        The file that it must be; None for the one that is there now.
    """

    is_of_file = True

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
        return self.read_names()

    def read_names(self) -> pd.Index[str]:
        index = self._header.index
        if index is None:
            with self._open() as obs:
                if isinstance(obs, h5py.Dataset):
                    # Before anndata 0.7; of a var or raw.var only the names are known how to read.
                    with _annotate_errors(self.place):
                        return pd.Index([text_of(name) for name in obs[obs.dtype.names[0]]], name=obs.dtype.names[0])
            return self._whole().index
        with self._open() as obs, _annotate_errors(f"{self.place}/{index}"):
            names = cast(Any, read_elem(obs[index]))
            return as_text(pd.Index(names, name=None if index == "_index" else index))

    def frame(self, columns: list[Name]) -> pd.DataFrame:
        if self._header.index is None:
            return self._whole().loc[:, columns]
        # pandas 3 has a dtype for text, also of no columns; before, the same words mean object.
        named = pd.Index(columns, dtype=str)
        return pd.DataFrame(dict(self.read(columns)), columns=named).set_axis(self.names, axis=0)

    def read(self, columns: list[Name], coded: bool = False) -> Read:
        if not columns:
            return
        if self._header.index is None:
            whole = cast(Any, self._whole())
            yield from ((name, whole[name]) for name in columns)
            return
        rows = pd.RangeIndex(self.n_rows)
        with self._open() as obs:
            for name in columns:
                with _annotate_errors(f"{self.place}/{name}"):
                    found: Any = read_text_codes(obs[name]) if coded else None
                    if found is None:
                        found = pd.Series(read_elem(obs[name]), index=rows)
                    elif len(found) != len(rows):
                        raise ValueError(f"it has {len(found)} values, but there are {len(rows)} rows")
                yield name, found

    def check_unchanged(self) -> None:
        self._file.check()

    def is_replaced(self, column: Name, since: int) -> bool:
        return self._file.is_replaced(f"{self._group}/{column}", since)

    @cached_property
    def _header(self) -> Header:
        with self._open() as obs, _annotate_errors(self.place):
            kind, version = (_attribute(obs, f"encoding-{name}") for name in ("type", "version"))
            if isinstance(obs, h5py.Dataset):
                # Before anndata 0.7: one compound dataset, its first field the names.
                if obs.dtype.names is None or obs.ndim != 1:
                    raise FormatError(f"it is an array of {obs.dtype}, not a dataframe")
                return Header(list(obs.dtype.names[1:]), len(obs), None)
            if kind == "dataframe":
                columns = [text_of(c) for c in obs.attrs["column-order"]]
                index = text_of(obs.attrs["_index"])
                # In older frames a lone categorical would come back as its bare codes.
                alone = _at_least(version, (0, 2))
                return Header(columns, n_values(obs[index]), index if alone else None)
        if kind:
            raise FormatError(f"{self.place} is encoded as {kind!r}, not as a dataframe; is the elem right?")
        whole = self._whole()  # no encoding at all: what it is, only anndata's reader of whole files knows
        return Header(list(whole.columns), len(whole), None)

    def _whole(self) -> pd.DataFrame:
        frame = self._read_whole()
        return frame.set_axis(as_text(frame.index), axis=0)

    def _read_whole(self) -> pd.DataFrame:
        with self._open() as obs:
            if isinstance(obs, h5py.Group) and _attribute(obs, "encoding-type") == "dataframe":
                with _annotate_errors(self.place):
                    return cast(pd.DataFrame, read_elem(obs))
        if self._group != "obs":
            raise FormatError(
                f"{self.place} is in a form from before anndata 0.7, known only for the obs of a whole file; read the "
                "file with anndata and write it again"
            )
        with reading(), _quiet(), _annotate_errors(self.place):
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
            with _annotate_errors(self.place):
                obs = file.get(self._group)
                there = list(file) if obs is None else []
                modalities = list(file["mod"]) if obs is None and "mod" in there else []
            if modalities:
                names = "', '".join(modalities)
                raise UnknownNameError(
                    f"{self._path}: '{self._group}' does not exist. This is a MuData file with modalities "
                    f"'{names}': pass elem='mod/<modality>/X', or elem={{'<name>': 'mod/<modality>/X', …}} for "
                    "several"
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
def _annotate_errors(where: str) -> Iterator[None]:
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
