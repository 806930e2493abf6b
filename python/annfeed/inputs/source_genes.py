"""`SourceGenes`: the genes of several sources, what they are matched by, and what they are called.

They are matched by name. If Cell Ranger's files (10x Genomics) are among the sources, it is by the ids of genes:
symbols may repeat in such a file. Other sources then take part by the column ``gene_ids`` of their var, as scanpy's
reader names it; if one has none, all sources are matched by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import anndata
import anndata.utils
import numpy as np
import numpy.typing as npt
import pandas as pd

from annfeed.arrays import Int64Array
from annfeed.h5ad.elem import Elem
from annfeed.h5ad.tenx import FeatureOptions
from annfeed.inputs.gene_symbols import GeneSymbols
from annfeed.inputs.gene_table import GeneTable
from annfeed.inputs.genes import MAKE_UNIQUE, Join
from annfeed.inputs.single import as_path, check_columns, find_names, find_raw_names
from annfeed.inputs.source_var import SourceVar, check_types, types_in
from annfeed.sources.columns import MISSING
from annfeed.user_arrays import first_few
from annfeed.user_warnings import warn


class SourceGenes:
    """The genes of one matrix in each source; the same names are one Index object.

    Parameters
    ----------
    options
        Which features are wanted, and how they are named.
    join
        How the genes of several sources are joined.
    column
        Column of var in which genes will be looked for; None for none.
    """

    def __init__(self, options: FeatureOptions, join: Join, column: str | None) -> None:
        self._options, self._join, self._column = options, join, column
        # Files of one atlas mostly have the same genes: these are kept once, and decoded once.
        self._known: dict[tuple[Any, ...], pd.Index[Any]] = {}
        self._known_raw: dict[tuple[Any, ...], pd.Index[Any]] = {}
        self._known_columns: dict[bytes, Int64Array] = {}
        self._symbols = None if column is None else GeneSymbols(column)
        self._parts: list[SourceVar] = []
        self._names: list[pd.Index[Any]] = []
        self._ids: list[pd.Index[Any] | None] = []
        self._chosen: list[Int64Array | None] = []
        self._types: Counter[str] = Counter()
        self._by_id = False
        #: What the genes of each source are matched by; the same Index for the same ones.
        self.matched: list[pd.Index[Any]] = []

    def add(self, source: Any, elem: Elem, place: str, shape: tuple[int, int] | None) -> None:
        """Take in the genes of another source, whose file is open; ``shape`` is that of its matrix, if it is known."""
        # Repeated symbols are told apart when all sources are known.
        elem = replace(elem, features=replace(elem.features, make_unique=False))
        of_all = replace(elem, features=replace(elem.features, types=None))
        chosen, names = None, self._read(source, of_all, place)
        if shape is not None:
            check_columns(f"{place}: '{elem.path}'", elem.var or "", shape[1], len(names))
        var = SourceVar(source if isinstance(source, anndata.AnnData) else as_path(source), elem, place)
        if elem.features.types is not None:
            of_each = var.type_of_each()
            self._types.update(types_in(of_each))
            chosen = var.chosen(of_each)
            if chosen is not None:  # kept once for files that are alike
                chosen = self._known_columns.setdefault(chosen.tobytes(), chosen)
            names = names if chosen is None else self._same(names[chosen])
        self._parts.append(var)
        self._chosen.append(chosen)
        self._names.append(names)
        # Read now, as the file is open; of other sources only if a Cell Ranger file turns up.
        ids = var.ids() if var.is_tenx else None
        self._ids.append(None if ids is None else self._same(ids))
        if self._symbols is not None and not var.is_tenx:
            self._symbols.add(names, var.column(self._symbols.column), var.place)

    def match(self, where: Callable[[int], str]) -> None:
        """Find out what genes are matched by, when all sources were added; ``where`` names the source of a number.

        Raises
        ------
        UnknownNameError
            If no source has features of a wanted type.
        ValueError
            If features are to be named otherwise, and no source is a Cell Ranger file.
        """
        if self._options.types is not None:
            check_types(self._options.types, dict(self._types), f"the var of {len(self._parts)} sources")
        self.matched = self._names
        of_tenx = [part.is_tenx for part in self._parts]
        if not any(of_tenx):
            self._options.refuse_others(where(0))
            return
        self._ids = ids = [
            index if part.is_tenx else part.ids() for part, index in zip(self._parts, self._ids, strict=True)
        ]
        self._by_id = all(index is not None for index in ids)
        if self._by_id:
            self.matched = [self._same(index) for index in ids if index is not None]
            if self._options.names == "gene_ids":  # which names of other sources need not be
                self._names = [
                    names if part.is_tenx or (found := part.gene_ids()) is None else self._same(found)
                    for part, names in zip(self._parts, self._names, strict=True)
                ]
            self._parts = [part.going_by_id() for part in self._parts]
        elif self._options.make_unique:
            named = zip(self._names, of_tenx, strict=True)
            self.matched = [self._same(_unique(names)) if is_tenx else names for names, is_tenx in named]
            self._parts = [part.made_unique() for part in self._parts]
        if self._column is not None:
            self._symbols = GeneSymbols(self._column)
            for part, index in zip(self._parts, self.matched, strict=True):
                self._symbols.add(index, part.column(self._column), part.place)

    @property
    def by(self) -> Literal["name", "id"]:
        """What they are matched by, for messages."""
        return "id" if self._by_id else "name"

    def remedy(self, number: int) -> str:
        """Return what to do about genes of a source that are matched by the same name or id, for messages."""
        if self._by_id:
            return "Make the ids distinct in its var, or leave out the file"
        if not self._parts[number].is_tenx:
            return MAKE_UNIQUE
        without = ", ".join(part.place for part, ids in zip(self._parts, self._ids, strict=True) if ids is None)
        return (
            f"Give {without} a column 'gene_ids', by which genes are matched if all sources have it; or pass "
            "make_unique=True"
        )

    def warn_of_doubtful(self, joined: pd.Index[Any], where: Callable[[int], str]) -> None:
        """Warn if some of the ``joined`` names may be of different genes in different sources.

        They are those of symbols that a Cell Ranger file has several times: names made of them are told apart by the
        order of the genes in their file alone. ``where`` names the source of a number.
        """
        if self._by_id or not any(part.is_tenx for part in self._parts):
            return
        repeated: dict[Any, int] = {}  # with a source that has it
        seen: set[int] = set()
        for number, (part, names) in enumerate(zip(self._parts, self._names, strict=True)):
            if part.is_tenx and id(names) not in seen:
                seen.add(id(names))
                for name in self.matched[number][names.duplicated(keep=False)]:
                    repeated.setdefault(name, number)
        doubtful = self._doubtful([name for name in repeated if name in joined])
        if doubtful:
            lacking = next(number for number, ids in enumerate(self._ids) if ids is None)
            warn(
                f"genes are matched by name, and {first_few(doubtful, 5)} ({len(doubtful)} in all) are of symbols that "
                f"several genes have in {where(repeated[doubtful[0]])}: other sources may mean another one of them. "
                f"Give {where(lacking)} a column 'gene_ids', by which they are then matched, or leave these genes out "
                "with var_subset"
            )

    def _doubtful(self, names: list[Any]) -> list[Any]:
        """Those of some names that several sources have, which are not known to mean the same gene."""
        found: list[list[Any]] = [[] for _ in names]  # the ids of each in the sources that have it; None: not known
        places: dict[int, Int64Array] = {}
        for ids, index in zip(self._ids, self.matched, strict=True):
            if id(index) not in places:
                first = np.flatnonzero(~index.duplicated())
                at = index[first].get_indexer(pd.Index(names))
                places[id(index)] = np.where(at < 0, MISSING, first[at])
            for number, at_one in enumerate(places[id(index)].tolist()):
                if at_one != MISSING:
                    found[number].append(None if ids is None else ids[at_one])
        return [
            name
            for name, genes in zip(names, found, strict=True)
            if len(genes) > 1 and (None in genes or len(set(genes)) > 1)
        ]

    def table(self) -> GeneTable:
        """Return the joined var."""
        return GeneTable(self._parts, self._join, symbols=self._symbols)

    def columns(self, number: int, columns: Int64Array | None) -> Int64Array | None:
        """Return where in a source's matrix the ``columns`` of its wanted features are; None for all."""
        chosen = self._chosen[number]
        if chosen is None or columns is None:
            return chosen if columns is None else columns
        found = np.where(columns == MISSING, MISSING, chosen[columns])
        return self._known_columns.setdefault(found.tobytes(), found)

    def counted(self, number: int) -> Int64Array | None:
        """Return the columns of a source's matrix over which its rows are summed; None for all."""
        return self._chosen[number]

    def shown(self, joined: pd.Index[Any], where: Callable[[int], str]) -> pd.Index[Any]:
        """Return the names of joined genes; ValueError if sources have different names for one.

        ``where`` names the source of a number, for messages.
        """
        if not self._by_id:
            return joined
        names: npt.NDArray[np.object_] = np.full(len(joined), None, object)
        sources = np.zeros(len(joined), np.int64)
        seen: set[tuple[int, int]] = set()
        for number, (ids, found) in enumerate(zip(self.matched, self._names, strict=True)):
            if (id(ids), id(found)) in seen:
                continue
            seen.add((id(ids), id(found)))
            # An id may be there twice, where all sources have the same genes.
            to = np.arange(len(ids)) if ids is joined else joined.get_indexer(ids)
            to, new = to[to >= 0], found.to_numpy(object)[to >= 0]
            wrong = np.flatnonzero(pd.notna(names[to]) & (names[to] != new))
            if len(wrong):
                gene = to[wrong[0]]
                raise ValueError(
                    f"the gene {joined[gene]!r} is {names[gene]!r} in {where(sources[gene])}, and {new[wrong[0]]!r} in "
                    f"{where(number)} ({len(wrong)} genes differ); expected one name, as genes are matched by their "
                    "ids. Pass var_names='gene_ids' to name them by these"
                )
            sources[to[pd.isna(names[to])]] = number
            names[to] = new
        return _unique(pd.Index(names)) if self._options.make_unique else pd.Index(names)

    def _read(self, source: Any, elem: Elem, place: str) -> pd.Index[Any]:
        """The names of all genes of a source."""
        stored = None if isinstance(source, anndata.AnnData) else find_raw_names(as_path(source), elem)
        raw = None if stored is None else tuple(stored)
        if raw is not None and raw in self._known_raw:
            return self._known_raw[raw]
        names = self._same(find_names(source, elem, place))
        if raw is not None:
            self._known_raw[raw] = names
        return names

    def _same(self, index: pd.Index[Any]) -> pd.Index[Any]:
        return self._known.setdefault(tuple(index), index)


def _unique(names: pd.Index[Any]) -> pd.Index[Any]:
    """Names told apart as `anndata.AnnData.var_names_make_unique` does."""
    return names if names.is_unique else anndata.utils.make_index_unique(names)
