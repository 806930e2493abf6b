"""`SourceVar`: the var of one source, of a file or of an AnnData, read when asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import anndata
import pandas as pd

from annfeed.h5ad.elem import Elem
from annfeed.h5ad.file import open_h5py, raw_place
from annfeed.h5ad.identity import KnownFile
from annfeed.obs.memory import FrameObs
from annfeed.obs.table import ObsTable


class SourceVar:
    """The var of a source, looked up anew at each call.

    Parameters
    ----------
    source
        An AnnData, or the path of a file.
    elem
        The matrix over genes.
    place
        The words for the source in messages.
    """

    def __init__(self, source: Any, elem: Elem, place: str) -> None:
        self.is_file = not isinstance(source, anndata.AnnData)
        self._source = os.path.abspath(source) if self.is_file else source
        self._elem = elem
        self._file = KnownFile.at(self._source) if self.is_file else None
        #: The words for the var.
        self.place = f"{place}: '{elem.var}'"

    def frame(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return some columns of the var of all genes; None for all columns."""
        return pd.DataFrame(self._table(columns).frame())

    def column(self, name: str) -> pd.Series[Any]:
        """Return a column of the var of all genes, numbered; their names are not read."""
        return self._table([name]).column(name)

    def _table(self, columns: Sequence[str] | None) -> ObsTable:
        if self.is_file:
            return ObsTable.from_file(self._source, self._group(), columns, self._file)
        if self._source is None:
            raise ValueError(
                f"{self.place} did not come with the copy of the dataset in this process; use it where it was made"
            )
        holder = self._source.raw if self._elem.path in ("raw/X", "raw.X") else self._source
        frame = FrameObs(holder.var)
        frame.place = self.place
        return ObsTable(frame, columns)

    def _group(self) -> str:
        var = self._elem.var or ""
        if var != "raw/var":
            return var
        with open_h5py(self._source) as file:
            return raw_place(file, var)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_source": self._source if self.is_file else None}
