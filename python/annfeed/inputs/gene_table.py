"""`GeneTable`: the var of the genes of one source or of several, joined.

The var of one source is read in inputs/source_var.py; genes are found by a column of it in inputs/gene_symbols.py.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from annfeed.arrays import Int64Array
from annfeed.inputs.gene_symbols import GeneSymbols, texts_of
from annfeed.inputs.genes import Join, join_names
from annfeed.inputs.source_var import ID_COLUMNS, SourceVar
from annfeed.user_arrays import first_few

#: Sources that are looked through for a name that is no gene.
_LOOKED_AT = 3


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
    symbols
        The values of a column, which were read while the sources were opened; None for none.
    shown
        The names of the joined genes, where they were matched by something else; None: they are what was matched.
    """

    parts: list[SourceVar]
    join: Join = "inner"
    columns: Int64Array | None = None
    symbols: GeneSymbols | None = None
    shown: pd.Index[Any] | None = None

    def frame(self) -> pd.DataFrame:
        """Return the var of the delivered genes: of several sources the columns that all have, and agree on.

        Sources are read one after the other, and one frame is kept for all that have the same genes.
        """
        by_names: dict[tuple[Any, ...], pd.DataFrame] = {}
        places = []
        for part in self.parts:
            frame = part.frame()
            names = tuple(frame.index)
            if names in by_names:
                by_names[names] = _agreed(by_names[names], frame)
            else:
                by_names[names] = frame
                places.append(part.place)
        frames = list(by_names.values())
        frame = frames[0]
        if len(frames) > 1:
            joined = join_names([one.index for one in frames], self.join, lambda i: places[i])
            frame = _united(frames).loc[joined]
        if self.shown is not None:
            frame = frame.set_axis(self.shown, axis=0)
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
        return self._symbols(column).find(wanted, self.join)

    def texts(self, column: str, wanted: Container[str]) -> npt.NDArray[np.object_]:
        """Return a column of var of the delivered genes as texts, and None for missing ones.

        Raises
        ------
        UnknownNameError
            If there is no such column.
        ValueError
            If sources differ about a gene that has one of the ``wanted`` texts.
        """
        return self._symbols(column).texts(wanted, self.join, self.columns)

    def _symbols(self, column: str) -> GeneSymbols:
        if self.symbols is not None and self.symbols.column == column:
            return self.symbols
        symbols = GeneSymbols(column)
        by_names: dict[tuple[Any, ...], pd.Index[Any]] = {}
        for part in self.parts:
            frame = part.frame([column])
            names = by_names.setdefault(tuple(frame.index), frame.index)
            symbols.add(names, frame[column], part.place)
        return symbols

    def where(self, name: str) -> str:
        """Return the end of a message about a name that is no gene's: the columns of var that have it; "" for none."""
        for part in self.parts[:_LOOKED_AT]:
            try:
                frame = part.frame()
                found = [column for column in frame.columns if (texts_of(frame[column]) == name).any()]
            except (OSError, ValueError, KeyError):  # of old files only the names can be read
                continue
            if found:
                return f"The column {found[0]!r} of var has it: pass var_column={found[0]!r}"
        return ""

    def telling_apart(self, name: str) -> str:
        """Return the end of a message about a name of several genes: how to tell those of Cell Ranger's files apart."""
        if not any(part.is_tenx for part in self.parts):
            return ""
        remedy = ", or make_unique=True, with which each has a name of its own"
        frame = replace(self, columns=None).frame()
        for column in ID_COLUMNS:
            if column in frame and frame[column].is_unique:
                ids = frame[column][frame.index == name].tolist()
                return f", or as ids: var_column={column!r} with {first_few(ids, 3)}{remedy}"
        return remedy


def _agreed(first: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """The columns that both frames of the same genes have, with the same values."""
    kept = [column for column in first.columns if column in other and _same(first[column], other[column])]
    return first if len(kept) == len(first.columns) else first[kept]


def _united(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The genes of all frames, which are there once in each, with the columns that all have and agree on."""
    united, *others = frames
    for other in others:
        shared = united.index.intersection(other.index)
        kept = _agreed(united.loc[shared], other.loc[shared]).columns
        new = other.index.difference(united.index, sort=False)
        united = pd.concat([united[kept], other.loc[new, kept]])
    return united


def _same(a: Any, b: Any) -> bool:
    x, y = a.to_numpy(object), b.to_numpy(object)
    there = ~pd.isna(x)
    return np.array_equal(there, ~pd.isna(y)) and bool((x[there] == y[there]).all())
