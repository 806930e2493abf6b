"""`TenXTable`: the barcodes or the features of a Cell Ranger file (10x Genomics), as obs or var of scanpy's reader."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from annfeed.errors import FormatError, StaleFileError
from annfeed.h5ad.file import open_h5py
from annfeed.h5ad.identity import KnownFile
from annfeed.h5ad.tenx import TenX
from annfeed.obs.base import Name, Read
from annfeed.obs.file import FileObs, Header


class TenXTable(FileObs):
    """What a Cell Ranger file says of its barcodes or features; texts are read as UTF-8.

    Parameters
    ----------
    path, tenx
        The file, and where its matrix lies.
    part
        "obs" for the barcodes, "var" for the features.
    names_by
        "gene_ids" for features that are named by ids; None and "gene_symbols" for symbols.
    file
        The file that it must be; None for the one that is there now.
    """

    def __init__(
        self,
        path: str,
        tenx: TenX,
        part: Literal["obs", "var"],
        names_by: str | None = None,
        file: KnownFile | None = None,
    ) -> None:
        super().__init__(path, tenx.cells if part == "obs" else tenx.features, file)
        self._tenx, self._part, self._names_by = tenx, part, names_by

    def read_names(self) -> pd.Index[str]:
        names: pd.Index[str] = pd.Index(self._texts(self._header.index or ""))
        return names

    def ids(self) -> pd.Index[str]:
        """Return the ids of the features, which differ: of a gene, an antibody, a probe."""
        with self._open() as file:
            _, _, own = self._tenx.name_arrays(file)
        ids: pd.Index[str] = pd.Index(self._texts(own))
        return ids

    def read(self, columns: list[Name], coded: bool = False) -> Read:
        rows = pd.RangeIndex(self.n_rows)
        with self._open() as file:
            arrays = self._arrays(file)
            for name in columns:
                yield name, pd.Series(self._values(file, arrays[name]), index=rows)

    @cached_property
    def _header(self) -> Header:
        with self._open() as file:
            if self._part == "obs":
                index = self._tenx.cells
            else:
                symbols, genes, _ = self._tenx.name_arrays(file)
                index = genes if self._names_by == "gene_ids" else symbols
            n_rows = len(self._tenx.array(file, index, self._path))
            return Header(list(self._arrays(file)), n_rows, index)

    def _arrays(self, file: Any) -> dict[str, str]:
        return self._tenx.obs_columns(file) if self._part == "obs" else self._tenx.var_columns(file, self._names_by)

    def _texts(self, name: str) -> npt.NDArray[Any]:
        with self._open() as file:
            return self._values(file, name)

    def _values(self, file: Any, name: str) -> npt.NDArray[Any]:
        """An array as scanpy takes it: bool as it is, which barcodes are cells as bool, and all else as text."""
        array = self._tenx.array(file, name, self._path)
        place = f"{self._path}: '{name}'"
        if len(array) != self.n_rows:
            raise FormatError(
                f"{place} has {len(array)} values, but '{self._header.index}' has {self.n_rows}; expected the same "
                "number. Copy or download the file again"
            )
        try:
            values: npt.NDArray[Any] = array[()]
            if values.dtype.kind == "b" or name == self._tenx.flags:
                return values.astype(bool)
            found = [v.decode("utf-8") if isinstance(v, bytes) else str(v) for v in values.tolist()]
        except (OSError, RuntimeError, ValueError) as error:
            raise FormatError(f"{place} cannot be read: {error}. Copy or download the file again") from error
        return np.array(found, dtype=object)

    @contextmanager
    def _open(self) -> Iterator[Any]:
        self._file.check()
        with open_h5py(self._path) as file:
            self._file.check()  # it is the one that was opened
            try:
                yield file
            except (FormatError, StaleFileError, MemoryError):
                raise
            except Exception as error:  # of a damaged file h5py may say anything
                raise FormatError(
                    f"{self._path}: '{self._group}' cannot be read: {error}. Copy or download the file again"
                ) from error

    def __getstate__(self) -> Any:
        return (*super().__getstate__(), self._tenx, self._part, self._names_by)

    def __setstate__(self, state: Any) -> None:
        *of_file, self._tenx, self._part, self._names_by = state
        super().__setstate__(tuple(of_file))
