"""The obs and var of one source, of a file or of an AnnData, read when asked for."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import anndata
import anndata.utils
import numpy as np
import numpy.typing as npt
import pandas as pd

from annfeed.arrays import Int64Array
from annfeed.errors import UnknownNameError
from annfeed.h5ad.elem import Elem
from annfeed.h5ad.file import open_h5py, raw_place
from annfeed.h5ad.identity import KnownFile
from annfeed.inputs.gene_symbols import texts_of
from annfeed.obs.memory import FrameObs
from annfeed.obs.table import ObsTable
from annfeed.obs.tenx import TenXTable

#: Columns of var, named as scanpy's reader of Cell Ranger's files names them.
_IDS, _PROBES, _TYPES = "gene_ids", "probe_ids", "feature_types"
#: Those that tell features apart, the finer one first.
ID_COLUMNS = (_PROBES, _IDS)


def obs_in_file(path: str, elem: Elem, columns: Sequence[str] | None) -> ObsTable:
    """Return the obs that goes with a matrix in a file."""
    if elem.tenx is not None:
        return ObsTable(TenXTable(path, elem.tenx, "obs"), columns)
    return ObsTable.from_file(path, elem.obs, columns)


def var_in_file(path: str, elem: Elem, columns: Sequence[str] | None, known: KnownFile | None = None) -> ObsTable:
    """Return the var of a matrix over genes in a file, which must be the ``known`` one: all of it, as it is stored."""
    if elem.tenx is not None:
        return ObsTable(TenXTable(path, elem.tenx, "var", elem.features.names, known), columns)
    group = elem.var or ""
    if group == "raw/var":
        with open_h5py(path) as file:
            group = raw_place(file, group)
    return ObsTable.from_file(path, group, columns, known)


class SourceVar:
    """The var of a source, looked up anew at each call: of the features of the wanted types.

    Parameters
    ----------
    source
        An AnnData, or the path of a file.
    elem
        The matrix over genes, where it lies in this source.
    place
        The words for the source in messages.
    by_id
        Whether genes go by their ids (`ids`) instead of their names.
    """

    def __init__(self, source: Any, elem: Elem, place: str, by_id: bool = False) -> None:
        self.is_file = not isinstance(source, anndata.AnnData)
        self._source = os.path.abspath(source) if self.is_file else source
        self._elem = elem
        self._file = KnownFile.at(self._source) if self.is_file else None
        self._by_id = by_id
        #: The words for the var.
        self.place = f"{place}: '{elem.var}'"

    @property
    def is_tenx(self) -> bool:
        """Whether it is of a Cell Ranger file."""
        return self._elem.tenx is not None

    def frame(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return some columns of the var; None for all columns."""
        frame = pd.DataFrame(self._table(columns).frame())
        chosen = self.chosen()
        frame = frame if chosen is None else frame.iloc[chosen]
        ids = self.ids() if self._by_id else None
        return frame.set_axis(self._told_apart(frame.index) if ids is None else ids, axis=0)

    def column(self, name: str) -> pd.Series[Any]:
        """Return a column of the var, numbered; names are not read."""
        column = self._table([name]).column(name)
        chosen = self.chosen()
        return column if chosen is None else column.iloc[chosen].reset_index(drop=True)

    def names(self) -> pd.Index[Any]:
        """Return the names."""
        names, chosen = self._table([]).names, self.chosen()
        return self._told_apart(names if chosen is None else names[chosen])

    def _told_apart(self, names: pd.Index[Any]) -> pd.Index[Any]:
        wanted = self.is_tenx and self._elem.features.make_unique and not names.is_unique
        return anndata.utils.make_index_unique(names) if wanted else names

    def ids(self) -> pd.Index[Any] | None:
        """Return the ids of features, by which they differ; None where var does not tell them."""
        table = self._table([])
        if isinstance(table.source, TenXTable):
            ids, chosen = table.source.ids(), self.chosen()
            return ids if chosen is None else ids[chosen]
        # Of probes scanpy's reader gives both.
        there = [name for name in ID_COLUMNS if name in table.source.column_names]
        return self._index_of(there[0]) if there else None

    def gene_ids(self) -> pd.Index[Any] | None:
        """Return the ids of genes, one of which several probes may have; None where var does not tell them."""
        return self._index_of(_IDS) if _IDS in self._table([]).source.column_names else None

    def _index_of(self, column: str) -> pd.Index[Any] | None:
        texts = texts_of(self.column(column))
        return None if any(text is None for text in texts) else pd.Index(texts)

    def going_by_id(self) -> SourceVar:
        """Return the same var, whose genes go by their ids."""
        return self._with(by_id=True)

    def made_unique(self) -> SourceVar:
        """Return the same var with repeated names told apart, where it is of a Cell Ranger file."""
        options = replace(self._elem.features, make_unique=True)
        return self._with(elem=replace(self._elem, features=options))

    def _with(self, **changed: Any) -> SourceVar:
        other = object.__new__(SourceVar)  # a copy as for another process would not have the AnnData
        other.__dict__.update(self.__dict__, **{f"_{name}": value for name, value in changed.items()})
        return other

    def chosen(self, of_each: npt.NDArray[Any] | None = None) -> Int64Array | None:
        """Return which columns of the matrix are of a wanted type; None for all.

        ``of_each``: as `type_of_each` returns it, where it was read already.
        """
        types = self._elem.features.types
        if types is None:
            return None
        of_each = self.type_of_each() if of_each is None else of_each
        return np.flatnonzero(np.isin(of_each.astype(str), types)).astype(np.int64)

    def type_of_each(self) -> npt.NDArray[Any]:
        """Return the type of each feature; of Cell Ranger 2, which knew genes alone, as later versions call them."""
        if self._elem.tenx is not None and self._elem.tenx.version == 2:
            return np.full(self._table([]).n_rows, "Gene Expression", object)
        return texts_of(self._table([_TYPES]).column(_TYPES))

    def check_types(self) -> None:
        """Raise UnknownNameError if there is no feature of a wanted type."""
        if self._elem.features.types is not None:
            check_types(self._elem.features.types, types_in(self.type_of_each()), self.place)

    def _table(self, columns: Sequence[str] | None) -> ObsTable:
        if self.is_file:
            return var_in_file(self._source, self._elem, columns, self._file)
        if self._source is None:
            raise ValueError(
                f"{self.place} did not come with the copy of the dataset in this process; use it where it was made"
            )
        holder = self._source.raw if self._elem.path in ("raw/X", "raw.X") else self._source
        frame = FrameObs(holder.var)
        frame.place = self.place
        return ObsTable(frame, columns)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_source": self._source if self.is_file else None}


def types_in(of_each: npt.NDArray[Any]) -> dict[str, int]:
    """Return which types of features there are, and how many of each, of the type of each feature."""
    return dict(Counter(text for text in of_each if text is not None))


def check_types(wanted: Sequence[str], there: dict[str, int], place: str) -> None:
    """Raise UnknownNameError if there is no feature of one of the ``wanted`` types in ``place``."""
    for one in wanted:
        if one not in there:
            found = ", ".join(f"{name!r} ({n})" for name, n in there.items()) or "none"
            raise UnknownNameError(f"{place} has no features of the type {one!r}; feature_types there are: {found}")
