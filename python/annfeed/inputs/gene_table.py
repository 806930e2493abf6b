"""`GeneTable`: the var of the genes of one source or of several, read when asked for, and genes by a column of it.

Names that are columns of a matrix are found in inputs/selection.py; here are symbols, which may repeat or be missing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import anndata
import numpy as np
import numpy.typing as npt
import pandas as pd

from annfeed.arrays import Int64Array
from annfeed.errors import UnknownNameError
from annfeed.h5ad.elem import Elem
from annfeed.h5ad.file import open_h5py, raw_place
from annfeed.h5ad.identity import KnownFile
from annfeed.inputs.genes import Join, join_names
from annfeed.obs.memory import FrameObs
from annfeed.obs.table import ObsTable
from annfeed.user_arrays import first_few, near_matches

#: Sources that are looked through for a name that is no gene, and repeated names of genes that a message lists.
_LOOKED_AT, _LISTED = 3, 5


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
        if self.is_file:
            return ObsTable.from_file(self._source, self._group(), columns, self._file).frame()
        if self._source is None:
            raise ValueError(
                f"{self.place} did not come with the copy of the dataset in this process; use it where it was made"
            )
        holder = self._source.raw if self._elem.path in ("raw/X", "raw.X") else self._source
        frame = FrameObs(holder.var)
        frame.place = self.place
        return pd.DataFrame(ObsTable(frame, columns).frame())

    def _group(self) -> str:
        var = self._elem.var or ""
        if var != "raw/var":
            return var
        with open_h5py(self._source) as file:
            return raw_place(file, var)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_source": self._source if self.is_file else None}


@dataclass(frozen=True)
class GeneTable:
    """The var of a matrix.

    Parameters
    ----------
    parts
        The var of each source.
    join
        How the genes of several sources were joined.
    columns
        int64, which of these genes are delivered; None for all.
    """

    parts: list[SourceVar]
    join: Join = "inner"
    columns: Int64Array | None = None

    def frame(self) -> pd.DataFrame:
        """Return the var of the delivered genes: of several sources the columns that all have, and agree on."""
        frames = [part.frame() for part in self.parts]
        names = self._joined(frames)
        frame = _agreed(frames[0], frames[1:]) if names is None else _united(frames).loc[names]
        return frame if self.columns is None else frame.iloc[self.columns]

    def find(self, wanted: Sequence[str], column: str) -> Int64Array:
        """Return the genes that have ``wanted`` in a column of var, in this order.

        Raises
        ------
        UnknownNameError
            If there is no such column, or no such value in it.
        ValueError
            If several genes have the value, or sources differ about a gene that is asked for.
        """
        frames = [part.frame([column]) for part in self.parts]
        joined = self._joined(frames)
        named = frames[0].index if joined is None else joined
        symbols, contested = self._symbols(frames, joined, column)
        place = self.parts[0].place if len(self.parts) == 1 else f"the genes of {len(self.parts)} sources"
        genes: dict[str, list[int]] = {}
        for gene in np.flatnonzero(~pd.isna(symbols)).tolist():
            genes.setdefault(str(symbols[gene]), []).append(gene)
        for name in wanted:
            if name in contested:
                raise ValueError(contested[name])
            if name not in genes:
                hint = near_matches(name, list(genes))
                if name in named:
                    hint = "It is the name of a gene: leave out var_column, which is for all of var_subset"
                raise UnknownNameError(f"{place} has no {name!r} in the column {column!r}. {hint}")
        repeated = [name for name in wanted if len(genes[name]) > 1]
        if repeated:
            found = "; ".join(f"{name!r}: {first_few(named[genes[name]], _LISTED)}" for name in repeated[:_LISTED])
            more = f"; and {len(repeated) - _LISTED} more" if len(repeated) > _LISTED else ""
            raise ValueError(
                f"{place} has several genes with one value in the column {column!r}: {found}{more}. Choose among them: "
                "pass these names without var_column, or positions"
            )
        return np.array([genes[name][0] for name in wanted], dtype=np.int64)

    def where(self, name: str) -> str:
        """Return the end of a message about a name that is no gene's: the columns of var that have it; "" for none."""
        for part in self.parts[:_LOOKED_AT]:
            try:
                frame = part.frame()
            except Exception:  # of old files only the names can be read
                continue
            found = [column for column in frame.columns if (frame[column].astype(str) == name).any()]
            if found:
                return f"The column {found[0]!r} of var has it: pass var_column={found[0]!r}"
        return ""

    def _joined(self, frames: Sequence[pd.DataFrame]) -> pd.Index[Any] | None:
        """The names of the joined genes; None where all sources have the same."""
        if all(frame.index.equals(frames[0].index) for frame in frames[1:]):
            return None
        different = {tuple(frame.index): frame.index for frame in frames}
        return join_names(list(different.values()), self.join, lambda i: self.parts[i].place)

    def _symbols(
        self, frames: Sequence[pd.DataFrame], joined: pd.Index[Any] | None, column: str
    ) -> tuple[npt.NDArray[np.object_], dict[str, str]]:
        """The value of each joined gene, and a message for each value about which sources differ."""
        values = [(frame if joined is None else frame.reindex(joined))[column].to_numpy(object) for frame in frames]
        symbols, contested = values[0].copy(), {}
        names = frames[0].index if joined is None else joined
        for part, found in zip(self.parts[1:], values[1:], strict=True):
            here, there = ~pd.isna(symbols), ~pd.isna(found)
            for gene in np.flatnonzero(here & there).tolist():
                a, b = str(symbols[gene]), str(found[gene])
                if a != b:
                    first = next(p.place for p, v in zip(self.parts, values, strict=True) if not pd.isna(v[gene]))
                    words = (
                        f"the gene {names[gene]!r} is {a!r} in the column {column!r} of {first}, and {b!r} in that of "
                        f"{part.place}; expected one value. Pass the name of the gene, without var_column"
                    )
                    contested.update({a: words, b: words})
            symbols[~here] = found[~here]
        return symbols, contested


def _agreed(first: pd.DataFrame, others: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The columns that all frames of the same genes have, with the same values."""
    return first[[c for c in first.columns if all(c in other and _same(first[c], other[c]) for other in others)]]


def _united(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The genes of all frames, which are there once in each, with the columns that all have and agree on."""
    united, *others = frames
    for other in others:
        shared = united.index.intersection(other.index)
        kept = _agreed(united.loc[shared], [other.loc[shared]]).columns
        new = other.index.difference(united.index, sort=False)
        united = pd.concat([united[kept], other.loc[new, kept]])
    return united


def _same(a: Any, b: Any) -> bool:
    x, y = a.to_numpy(object), b.to_numpy(object)
    there = ~pd.isna(x)
    return np.array_equal(there, ~pd.isna(y)) and bool((x[there] == y[there]).all())
