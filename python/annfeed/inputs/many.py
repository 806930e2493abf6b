"""`open_sources`: all that a dataset opens. Several sources become one: rows in sequence, genes by name, obs united.

It reads names, shapes and headers, no row and no obs value; each file is opened for that and closed again. Which files
they are is found in inputs/paths.py, which genes in inputs/genes.py; rows are read by sources/concat.py, obs by
obs/concat.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import pandas as pd

from annfeed.arrays import Int64Array
from annfeed.batches.matrix import Matrix
from annfeed.display.progress import tracked
from annfeed.errors import FormatError
from annfeed.h5ad.elem import Elem, parse_elems
from annfeed.h5ad.file import opened_once
from annfeed.h5ad.foreign import recognised
from annfeed.h5ad.headers import Headers, read_headers
from annfeed.h5ad.mudata import is_mudata
from annfeed.h5ad.open_files import OpenFiles
from annfeed.h5ad.tenx import FeatureOptions
from annfeed.inputs.genes import Join, join_names, place_columns
from annfeed.inputs.modalities import BoolArray, Cells, Paired, check_cells, columns_of_modality, find_paired, located
from annfeed.inputs.names import numbered
from annfeed.inputs.paths import Sources, find_sources, is_in_memory
from annfeed.inputs.selection import column_subset
from annfeed.inputs.single import (
    Symbols,
    as_path,
    check_same_rows,
    elem_of,
    find_frame_names,
    find_matrix,
    find_obs,
    find_shape,
    subsets_by_key,
)
from annfeed.inputs.source_genes import SourceGenes
from annfeed.memory.budget import SharedBudget
from annfeed.obs.table import ObsTable
from annfeed.sources.columns import ColumnMap
from annfeed.sources.concat import ConcatSource
from annfeed.sources.file import FileSource


@dataclass(frozen=True, kw_only=True)
class Joining:
    """How several sources become one; the parameters are those of `AnnDataset`."""

    join: Join = "inner"
    label: str | None = None
    keys: Iterable[str] | None = None
    index_unique: str | None = None
    max_open_files: int | None = None

    def __post_init__(self) -> None:
        if self.join not in ("inner", "outer"):
            raise ValueError(f"join is {self.join!r}; expected 'inner' or 'outer'")
        for name in ("label", "index_unique"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise TypeError(f"{name} is {value!r}; expected a text or None")


@dataclass(frozen=True)
class Origin:
    """What a dataset was made from, for what is written back."""

    sources: list[Any]  # an AnnData, MuData or path each; None for what is in memory and stayed in another process
    obs: str  # where the obs lies in each file: "obs", "mod/rna/obs"

    def __getstate__(self) -> dict[str, Any]:
        paths = [None if is_in_memory(source) else source for source in self.sources]
        return {"sources": paths, "obs": self.obs}


@dataclass(frozen=True)
class Opened:
    """What a dataset is made of."""

    matrices: dict[str, Matrix]  # by key
    obs: ObsTable  # for all of them
    places: list[str]  # the sources, for people
    rows: list[range]  # of each source
    origin: Origin
    #: Of matrices in modalities of a MuData, by key: which rows they have.
    measured: Mapping[str, BoolArray] = field(default_factory=dict)
    #: Rows that ``cells`` chooses; None for all.
    chosen: BoolArray | None = None

    def rows_among(self, rows: Int64Array | None) -> Int64Array | None:
        """Return those of some rows (None for all) that ``cells`` chooses."""
        if self.chosen is None:
            return rows
        return np.flatnonzero(self.chosen) if rows is None else rows[self.chosen[rows]]


@opened_once()
def open_sources(
    sources: Any,
    elem: str | Mapping[str, str],
    obs_columns: Sequence[str] | None,
    var_subset: Any,
    joining: Joining,
    *,
    cache: str | int,
    threads: int,
    io_depth: int | None,
    strict: bool,
    totals: bool = False,
    var_column: str | None = None,
    features: FeatureOptions = FeatureOptions(),  # noqa: B008  # immutable
    cells: Cells = None,
) -> Opened:
    """Open what the user passed, one source or many, and match rows, genes and obs."""
    check_cells(cells)
    elems = parse_elems(elem, features)
    if features.types is not None and all(place.var is None for place in elems.values()):
        raise ValueError(f"feature_types is given, and no matrix of elem={elem!r} is over genes; leave it out")
    first = next(iter(elems.values()))
    subsets = subsets_by_key(var_subset, elems, var_column)
    opener = partial(
        FileSource, cache=SharedBudget(cache), threads=threads, io_depth=io_depth, strict=strict, totals=totals
    )
    open_files = OpenFiles(joining.max_open_files)
    several = find_sources(sources, joining.keys)
    if several is None and joining.label is None:
        name = "MuData" if is_mudata(sources) else "AnnData" if is_in_memory(sources) else as_path(sources)
        with _recognised(sources):
            elems = {key: elem_of(sources, place) for key, place in elems.items()}
            if all(place.tenx is None for place in elems.values()):
                features.refuse_others(name)
            paired = find_paired(_as_source(sources), elems, cells, name)
            matrices = {key: _find(sources, place, subsets[key], opener, name, paired) for key, place in elems.items()}
            if paired is None:
                part, _, words = located(sources, first, name)
                of_obs = next(iter(elems.values()))
                with columns_of_modality(_as_source(sources), first, obs_columns):
                    obs = find_obs(part, of_obs, obs_columns, None if part is sources else f"obs of {words}")
                check_same_rows(part, elems)
            else:
                obs = ObsTable(paired.obs, obs_columns)
                paired.obs.find_rows(obs.columns)
        _check_rows(matrices, obs)
        source = _as_source(sources if paired is not None else located(sources, first, name)[0])
        origin = Origin([source], "obs" if paired is not None else first.obs)
        measured, chosen = ({}, None) if paired is None else (paired.measured(), paired.chosen(cells))
        place = name if is_in_memory(sources) else source
        return Opened(matrices, obs, [place], [range(obs.n_rows)], origin, measured, chosen)
    several = several or Sources([sources], ["0"])
    opener = partial(opener, open_files=open_files)
    return _Concatenation(several, elems, joining, opener, cells).opened(obs_columns, subsets)


class _Concatenation:
    """The sources of a collection, while it is being opened."""

    def __init__(self, sources: Sources, elems: dict[str, Elem], joining: Joining, opener: Any, cells: Cells) -> None:
        self._sources = sources
        self._cells = cells
        #: How the modalities of each source are paired; None where they are not.
        self._paired: list[Paired | None] = []
        self._elems = elems
        #: Where the matrices lie in each source, by key.
        self._places: list[dict[str, Elem]] = []
        self._joining = joining
        self._opener = opener
        # Of DataFrames in obsm: the same names are kept once.
        self._by_names: dict[tuple[Any, ...], pd.Index[Any]] = {}
        #: Path and headers of the first file, by key of the matrix.
        self._headers: dict[str, tuple[str, Headers | None]] = {}

    def opened(self, obs_columns: Sequence[str] | None, subsets: Mapping[str, Any]) -> Opened:
        obs: list[ObsTable] = []
        names: dict[str, list[pd.Index[Any] | None]] = {key: [] for key in self._elems}
        shapes: dict[str, list[tuple[int, int] | None]] = {key: [] for key in self._elems}
        genes = {key: self._genes(elem, subsets[key]) for key, elem in self._elems.items() if elem.var is not None}
        sources = self._sources.sources
        for number, source in enumerate(tracked(sources, "opening", len(sources), "files")):
            with _recognised(source):
                elems = {key: elem_of(source, elem) for key, elem in self._elems.items()}
                self._places.append(elems)
                obs.append(self._obs(number))
                for key, elem in elems.items():
                    is_file = not is_in_memory(source)
                    shape = find_shape(as_path(source), elem) if is_file else None
                    shapes[key].append(shape)
                    if key in genes:
                        genes[key].add(*self._located(number, elem), shape)
                    else:
                        names[key].append(self._frame_names(number, elem))
                    if is_file and key not in self._headers:  # files of an atlas are mostly alike
                        place = os.path.abspath(as_path(source))
                        self._headers[key] = place, read_headers(place, elem.path)
        for key, found in genes.items():
            found.match(self._sources.place)
            names[key] = list(found.matched)
        matrices: dict[str, list[Matrix]] = {}
        joined = {}
        for key in self._elems:
            matrices[key], joined[key] = self._join(key, names[key], shapes[key], subsets[key], genes.get(key))
            path, headers = self._headers.get(key, (None, None))
            files = (part for one in matrices[key] for part in one.source.parts() if isinstance(part, FileSource))
            described = next((file for file in files if file.path == path), None)
            if described is not None:
                described.headers = headers
        for number, table in enumerate(obs):
            _check_rows({key: found[number] for key, found in matrices.items()}, table)
        how = self._joining
        keys, unique = self._sources.keys, how.index_unique
        is_paired = any(one is not None for one in self._paired)
        first = next(iter(self._elems.values()))
        with nullcontext() if is_paired else columns_of_modality(_as_source(sources[0]), first, obs_columns):
            table = ObsTable.concat(obs, keys, how.join, obs_columns, label=how.label, index_unique=unique)
        for paired in self._paired:
            if paired is not None:
                paired.obs.find_rows(table.columns)
        ends = [0, *accumulate(one.n_rows for one in obs)]
        rows = [range(start, stop) for start, stop in pairwise(ends)]
        origin = self._origin()
        places = [self._sources.place(i) for i in range(len(obs))]
        return Opened(joined, table, places, rows, origin, *self._measured())

    def _obs(self, number: int) -> ObsTable:
        """The obs of a source; how its modalities are paired is found with it."""
        source, place = self._sources.sources[number], self._sources.place(number)
        elems = self._places[number]
        paired = find_paired(_as_source(source), elems, self._cells, place)
        self._paired.append(paired)
        if paired is not None:
            return ObsTable(paired.obs, None)
        first = next(iter(elems.values()))
        part, _, words = located(source, first, place)
        check_same_rows(part, elems)
        return find_obs(part, first, None, words)

    def _origin(self) -> Origin:
        first, sources = next(iter(self._elems.values())), self._sources.sources
        if any(paired is not None for paired in self._paired):
            return Origin([_as_source(source) for source in sources], "obs")
        return Origin([_as_source(located(source, first, "")[0]) for source in sources], first.obs)

    def _measured(self) -> tuple[dict[str, BoolArray], BoolArray | None]:
        """Which rows of all sources each matrix has, and which are chosen."""
        paired = [one for one in self._paired if one is not None]
        of_each = [one.measured() for one in paired]
        measured = {key: np.concatenate([one[key] for one in of_each]) for key in (of_each[0] if of_each else ())}
        chosen = [rows for one in paired if (rows := one.chosen(self._cells)) is not None]
        return measured, np.concatenate(chosen) if chosen else None

    def _located(self, number: int, elem: Elem) -> tuple[Any, Elem, str]:
        return located(self._sources.sources[number], elem, self._sources.place(number))

    def _frame_names(self, number: int, elem: Elem) -> pd.Index[Any] | None:
        names = find_frame_names(*self._located(number, elem)[:2])
        return None if names is None else self._by_names.setdefault(tuple(names), names)

    def _join(
        self,
        key: str,
        found_names: list[pd.Index[Any] | None],
        shapes: list[tuple[int, int] | None],
        var_subset: Any,
        genes: SourceGenes | None,
    ) -> tuple[list[Matrix], Matrix]:
        elem = self._elems[key]
        names = [index for index in found_names if index is not None]
        if names and len(names) < len(found_names):
            with_names, without = (
                next(i for i, index in enumerate(found_names) if (index is None) is lacks) for lacks in (False, True)
            )
            self._open(without, key, None, None)  # which tells if there is nothing
            raise ValueError(
                f"'{elem.path}' is a DataFrame in {self._sources.place(with_names)} and an array in "
                f"{self._sources.place(without)}; expected one kind, as "
                "columns with names and without cannot be matched"
            )
        if not names:
            matrices = [self._open(i, key, None, shape) for i, shape in enumerate(shapes)]
            _check_widths(matrices)
            numbers = numbered(matrices[0].n_vars)
            place = f"{self._sources.place(0)}: '{elem.path}'"
            of_all = ColumnMap(column_subset(var_subset, len(numbers), None, place))
            if of_all.columns is not None:
                matrices = [self._open(i, key, of_all, shape) for i, shape in enumerate(shapes)]
                numbers = numbers[of_all.columns]
            source = ConcatSource(matrices, [of_all] * len(matrices), len(numbers))
            return matrices, self._matrix(elem, source, numbers)
        where = self._place_of_names(key)
        how = () if genes is None else (genes.by, genes.remedy)
        wanted = join_names(names, self._joining.join, where, *how)
        shown, table = wanted, None
        if genes is not None:
            shown = genes.shown(wanted, where)
            table = replace(genes.table(), shown=None if shown is wanted else shown)
        # Where all have the same names, there are none to match, and one may be there twice.
        different = {id(index): index for index in names}
        var_subset, by = var_subset if isinstance(var_subset, Symbols) else (var_subset, None)
        columns = column_subset(var_subset, len(wanted), lambda: shown, f"the var of {len(names)} sources", table, by)
        if columns is not None:
            wanted, shown = wanted[columns], shown[columns]
        if genes is not None:
            genes.warn_of_doubtful(wanted, where)
        found = {i: place_columns(index, wanted) for i, index in different.items()} if len(different) > 1 else {}
        maps = [found.get(id(index), ColumnMap(columns)) for index in names]
        matrices = [self._open(i, key, maps[i], shapes[i], genes) for i in range(len(names))]
        joined = self._matrix(elem, ConcatSource(matrices, maps, len(wanted)), shown)
        if table is not None:
            joined.var = replace(table, columns=columns, symbols=None)
        return matrices, joined

    def _place_of_names(self, key: str) -> Callable[[int], str]:
        def where(number: int) -> str:
            elem = self._places[number][key]
            return f"{self._sources.place(number)}: '{elem.var or elem.path}'"

        return where

    def _genes(self, elem: Elem, subset: Any) -> SourceGenes:
        by_column = isinstance(subset, Symbols) and subset.are_names
        return SourceGenes(elem.features, self._joining.join, subset.column if by_column else None)

    def _open(
        self,
        number: int,
        key: str,
        chosen: ColumnMap | None,
        shape: tuple[int, int] | None,
        genes: SourceGenes | None = None,
    ) -> Matrix:
        source, paired, elem = self._sources.sources[number], self._paired[number], self._places[number][key]
        if is_in_memory(source) or (elem.var is None and chosen is not None):
            return _find(source, elem, chosen, self._opener, self._sources.place(number), paired)
        columns, counted = None if chosen is None else chosen.columns, None
        if genes is not None:
            columns, counted = genes.columns(number, columns), genes.counted(number)
        file = self._opener(as_path(source), elem.path, columns=columns, total_over=counted, shape=shape)
        n_obs, n_cols = file.shape
        n_vars = n_cols if columns is None else len(columns)
        # Its own names are those of the joined columns, or nobody's.
        matrix = Matrix(elem.path, file, n_obs, n_vars, partial(numbered, n_vars))
        return matrix if paired is None else paired.matrix(elem, matrix)

    def _matrix(self, elem: Elem, source: ConcatSource, names: pd.Index[Any]) -> Matrix:
        return Matrix(elem.path, source, *source.shape, partial(pd.Index, names))


def _find(source: Any, elem: Elem, var_subset: Any, opener: Any, place: str, paired: Paired | None) -> Matrix:
    part, inside, words = located(source, elem, place)
    matrix = find_matrix(part, inside, var_subset, opener, words)
    return matrix if paired is None else paired.matrix(elem, matrix)


def _recognised(source: Any) -> AbstractContextManager[None]:
    return nullcontext() if is_in_memory(source) else recognised(as_path(source))


def _check_rows(matrices: Mapping[str, Matrix], obs: ObsTable) -> None:
    for matrix in matrices.values():
        if matrix.n_obs != obs.n_rows:
            raise FormatError(
                f"{matrix.source.place} has {matrix.n_obs} rows, but obs has {obs.n_rows}; expected the same number. "
                "The file is damaged or was written wrongly: copy it again, or write it again with anndata"
            )


def _check_widths(matrices: Sequence[Matrix]) -> None:
    first = matrices[0]
    for matrix in matrices:
        if matrix.n_vars != first.n_vars:
            raise ValueError(
                f"{matrix.source.place} has {matrix.n_vars} columns, but {first.source.place} has {first.n_vars}; "
                "columns without names cannot be matched: write them with the same number"
            )


def _as_source(source: Any) -> Any:
    # A worker may run in another directory.
    return source if is_in_memory(source) else os.path.abspath(as_path(source))
