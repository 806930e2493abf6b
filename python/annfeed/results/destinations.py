"""Where results go: an AnnData, one .h5ad file, or the files of a dataset, each with its rows.

What can be known beforehand is checked here, before anything is computed or opened for writing.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import h5py
import numpy as np
import pandas as pd

from annfeed.arrays import Int64Array
from annfeed.errors import FormatError, UnsupportedError
from annfeed.h5ad.file import open_h5py, text_of
from annfeed.h5ad.mudata import is_mudata
from annfeed.h5ad.tenx import refuse_to_write
from annfeed.inputs.paths import is_in_memory

if TYPE_CHECKING:
    from annfeed.dataset import AnnDataset
    from annfeed.obs.table import ObsTable

Where = Literal["obs", "obsm"]


@dataclass(frozen=True)
class Destination:
    """One file, or one AnnData, and which of all rows are its own."""

    place: str  # the words for it in messages
    source: Any  # an AnnData, a MuData, or the path of a file
    prefix: str  # of the groups in the file: "", or "mod/rna/"
    rows: range

    @property
    def is_file(self) -> bool:
        """Whether it is a file."""
        return not is_in_memory(self.source)

    def check(self, where: Where, key: str, overwrite: bool) -> None:
        """Refuse what cannot be written, where that can be known."""
        if self.is_file:
            _check_file(self.source, self.prefix, where, key, overwrite)
            return
        adata = self.source
        if adata.is_view and adata.isbacked:
            raise ValueError(
                f"{self.place} is a view of a backed one, to which anndata can add nothing. Write to the AnnData that "
                "it is a view of, or to its file; or load the view with to_memory()"
            )
        if key in getattr(adata, where) and not overwrite:
            raise ValueError(already_there(f"{self.place}: {where}[{key!r}]"))


class Destinations:
    """All rows that results can be of, and whose they are; a file or an AnnData by itself is of no ``dataset``."""

    def __init__(self, parts: Sequence[Destination], obs: ObsTable, dataset: AnnDataset | None = None) -> None:
        self.parts = list(parts)
        self.place = self.parts[0].place if len(self.parts) == 1 else f"{len(self.parts)} sources"
        self.n_rows = self.parts[-1].rows.stop
        self._obs = obs
        self._dataset = dataset

    def check(self, where: Where, key: str, overwrite: bool) -> None:
        """Refuse what cannot be written to one of them, where that can be known."""
        _check_name(where, key)
        self.check_rows()
        for part in self.parts:
            part.check(where, key, overwrite)

    def check_rows(self) -> None:
        """Refuse rows that are no longer the cells that they were."""
        self._obs.source.check_unchanged()

    def positions(self) -> Int64Array | None:
        """Return the rows of the dataset, in its order; None for all rows in order."""
        if self._dataset is None:
            return None
        return self._dataset.rows_at(np.arange(len(self._dataset), dtype=np.int64))

    def names(self) -> pd.Index[str]:
        """Return the names of all rows: of a dataset of several files those that it gives them."""
        return self._obs.names

    @property
    def folder(self) -> str | None:
        """Where a temporary file may be made, where results go into files."""
        files = [part.source for part in self.parts if part.is_file]
        return os.path.dirname(os.path.abspath(files[0])) if len(files) == len(self.parts) else None


def find_destinations(target: Any) -> Destinations:
    """Return where results for ``target`` go: an AnnData or MuData, the path of a file, or an AnnDataset."""
    from annfeed.dataset import AnnDataset

    if isinstance(target, AnnDataset):
        return Destinations(_of_dataset(target), target.reader.obs, target)
    from annfeed.obs.table import ObsTable

    if is_in_memory(target):
        of_memory = Destination("MuData" if is_mudata(target) else "AnnData", target, "", range(target.n_obs))
        return Destinations([of_memory], ObsTable.from_anndata(target, []))
    if not isinstance(target, str | bytes | os.PathLike):
        raise TypeError(
            f"path_or_adata is a {type(target).__name__}; expected an AnnData or MuData, the path of a file or an "
            "AnnDataset"
        )
    path = os.path.expanduser(os.fsdecode(target))
    if glob.has_magic(path) and not os.path.lexists(path):
        raise FileNotFoundError(
            2, "there is no such file; of many files pass the AnnDataset that was made of them", path
        )
    with open_h5py(path) as file:
        refuse_to_write(path, file)
        if "obs" not in file:
            raise FormatError(f"{path} has no 'obs'; expected an .h5ad file")
    obs = ObsTable.from_file(path, "obs", [])
    return Destinations([Destination(path, path, "", range(obs.n_rows))], obs)


def _of_dataset(dataset: AnnDataset) -> list[Destination]:
    origin = dataset._origin
    places = [
        Destination(place, source, origin.obs.removesuffix("obs"), rows)
        for place, source, rows in zip(dataset.sources, origin.sources, dataset.source_rows, strict=True)
    ]
    seen: set[Any] = set()
    for place in places:
        if place.source is None:
            raise TypeError(f"{place.place} did not come with the copy of the dataset in this process; write elsewhere")
        same = os.path.realpath(place.source) if place.is_file else id(place.source)
        if same in seen:
            raise ValueError(
                f"the dataset has {place.place} twice, and a row of it two results; make a dataset of different files"
            )
        seen.add(same)
    return places


def _check_name(where: Where, key: Any) -> None:
    """Refuse names that anndata or HDF5 take for something else."""
    what = "key" if where == "obsm" else "column"
    if not isinstance(key, str) or not key or "/" in key or key.startswith("."):
        raise ValueError(f"{what} is {key!r}; expected a name without '/' and not beginning with '.'")
    if where == "obs" and key in ("_index", "__categories"):
        raise ValueError(f"column is {key!r}, which anndata keeps for itself; choose another name")


def already_there(place: str) -> str:
    """Return the message that something is there."""
    return f"{place} is there already; pass overwrite=True to replace it, or choose another key"


def _check_file(path: str, prefix: str, where: Where, key: str, overwrite: bool) -> None:
    with open_h5py(path) as file:
        refuse_to_write(path, file)
        obs, obsm = file.get(prefix + "obs"), file.get(prefix + "obsm")
        if obs is None:
            raise FormatError(f"{path} has no {prefix + 'obs'!r}; expected an .h5ad file")
        group = obs if where == "obs" else obsm
        if group is not None and not isinstance(group, h5py.Group):
            raise UnsupportedError(
                f"{path}: {prefix + where!r} is in the form of before anndata 0.7, to which nothing can be added; read "
                "the file with anndata and write it again"
            )
        if where == "obs":
            check_frame(path, group, key)
        if group is not None and key in group and not overwrite:
            raise ValueError(already_there(f"{path}: '{prefix}{where}/{key}'"))
    if not os.access(path, os.W_OK):
        raise PermissionError(13, "the file may not be written", path)


def check_frame(path: str, group: Any, column: str) -> None:
    """Refuse an obs that is no dataframe, and the column that holds its names."""
    if (
        text_of(group.attrs.get("encoding-type", "")) != "dataframe"
        or "column-order" not in group.attrs
        or "_index" not in group.attrs
    ):
        raise UnsupportedError(
            f"{path}: {group.name.strip('/')!r} is not stored as a dataframe, as anndata since 0.7 does; read the file "
            "with anndata and write it again"
        )
    if column == text_of(group.attrs["_index"]):
        raise ValueError(f"{path}: {column!r} holds the obs names, which are not replaced; choose another column")
