"""Several modalities of a MuData as one dataset: which row of each is which cell, and the obs of all cells.

Where the rows of a dataset are the cells of the whole MuData is decided here. A matrix of one modality is a matrix of
an AnnData, with that one's obs, unless ``cells`` is given.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import anndata
import numpy as np
import numpy.typing as npt
import pandas as pd

from annfeed.arrays import Int64Array
from annfeed.batches.matrix import Matrix
from annfeed.errors import FormatError, UnknownNameError
from annfeed.h5ad.elem import Elem
from annfeed.h5ad.held_anndata import HeldAnnData
from annfeed.h5ad.identity import KnownFile
from annfeed.h5ad.mudata import HeldMuData, Modalities, is_mudata, read_modalities, rows_by_name, rows_of_map
from annfeed.obs.base import ObsSource
from annfeed.obs.file import FileObs
from annfeed.obs.memory import AnnDataObs
from annfeed.obs.modalities import CellNames, ModalitiesObs, PartObs, Rows
from annfeed.sources.mapped import ABSENT, MappedSource
from annfeed.user_arrays import near_matches

#: ``cells`` of a dataset.
Cells = Literal["all", "common"] | Sequence[str] | None

BoolArray = npt.NDArray[np.bool_]


def check_cells(cells: Any) -> None:
    """Raise where ``cells`` is none of those that there may be.

    Examples
    --------
    >>> check_cells("common"), check_cells(["rna"]), check_cells(None)
    (None, None, None)
    """
    if cells is None or cells in ("all", "common"):
        return
    if isinstance(cells, str):
        raise ValueError(f"cells is {cells!r}; expected 'all', 'common' or a list of modalities. Pass [{cells!r}]")
    if not isinstance(cells, Sequence) or not all(isinstance(name, str) for name in cells) or not len(cells):
        raise TypeError(f"cells is {cells!r}; expected 'all', 'common' or a list of modalities, as ['rna']")


def located(source: Any, elem: Elem, place: str) -> tuple[Any, Elem, str]:
    """Return where a matrix is: of a MuData in memory the AnnData of its modality, and the words for it.

    Examples
    --------
    >>> located("pbmc.h5mu", Elem.parse("mod/rna/X"), "pbmc.h5mu")[1].path
    'mod/rna/X'
    """
    if not is_mudata(source):
        return source, elem, place
    modality = elem.modality
    if modality is None and elem.var is None:
        return source, elem, place  # in obsm of the MuData itself
    names = list(source.mod)
    if modality is None:
        raise UnknownNameError(
            f"{place} has no {elem.path!r}. Pass elem='mod/<modality>/{elem.path}' for a matrix of one modality, or a "
            f"dict for several: {{'rna': 'mod/rna/X', 'prot': 'mod/prot/X'}}. {near_matches('', names)}"
        )
    if modality not in names:
        raise UnknownNameError(f"{place} has no modality {modality!r}. {near_matches(modality, names)}")
    part = source.mod[modality]
    if not isinstance(part, anndata.AnnData):
        raise TypeError(
            f"modality {modality!r} of {place} is a {type(part).__name__}; expected an AnnData. Pass it by itself, as "
            f"AnnDataset(mdata[{modality!r}], …)"
        )
    return part, elem.inside, f"modality {modality!r} of {place}"


@contextmanager
def columns_of_modality(source: Any, elem: Elem, columns: Sequence[str] | None) -> Iterator[None]:
    """Where a column is not in the obs of a modality: tell whether the obs of all cells has it.

    Examples
    --------
    >>> with columns_of_modality("pbmc.h5mu", Elem.parse("mod/rna/X"), ["donor"]):
    ...     pass
    """
    try:
        yield
    except UnknownNameError as error:
        if elem.modality is None or columns is None:
            raise
        if is_mudata(source):
            of_all, of_part = list(source.obs), list(source.mod[elem.modality].obs)
        else:
            try:
                of_all, of_part = FileObs(source, "obs").column_names, FileObs(source, elem.obs).column_names
            except (OSError, ValueError, KeyError):  # no obs of all cells, mostly
                raise error from None
        found = [name for name in columns if name in of_all and name not in of_part]
        if not found:
            raise
        raise UnknownNameError(
            f"{error}. The obs of all cells has {found[0]!r}: pass cells='all', with which columns of the modality are "
            f"'{elem.modality}:<column>'"
        ) from error


@dataclass(frozen=True)
class Paired:
    """The cells of a MuData, and their rows in its modalities."""

    obs: ModalitiesObs
    #: Each modality: its obs, and the rows in it.
    parts: Mapping[str, PartObs]
    #: The modality of each matrix, by key; None for one in the obsm of the MuData.
    modalities: Mapping[str, str | None]

    def matrix(self, elem: Elem, matrix: Matrix) -> Matrix:
        """Return a matrix with the rows of all cells."""
        if elem.modality is None:
            return matrix
        rows = self.parts[elem.modality].rows
        n_rows = self.obs.n_rows if rows is None else int(np.count_nonzero(rows != ABSENT))
        if matrix.n_obs != n_rows:
            raise FormatError(
                f"{matrix.source.place} has {matrix.n_obs} rows, but the obs of the modality has {n_rows}. "
                "The file was written wrongly: write it again with mudata"
            )
        if rows is None:
            if matrix.held is None:
                return matrix
            # Rows are those of the MuData, also if it is a view.
            rows = np.arange(n_rows, dtype=np.int32 if n_rows < 2**31 else np.int64)
        return Matrix(matrix.elem, MappedSource(matrix, rows), len(rows), matrix.n_vars, matrix.names, var=matrix.var)

    def measured(self) -> dict[str, BoolArray]:
        """Return which cells each matrix of a modality has, by key."""
        there = {modality: self._in(modality) for modality in self.modalities.values() if modality is not None}
        return {key: there[modality] for key, modality in self.modalities.items() if modality is not None}

    def chosen(self, cells: Cells) -> BoolArray | None:
        """Return which cells are wanted; None for all."""
        if cells is None or cells == "all":
            return None
        wanted = [m for m in self.modalities.values() if m is not None] if cells == "common" else list(cells)
        for name in wanted:
            if name not in self.parts:
                raise UnknownNameError(
                    f"cells has {name!r}, and {self.obs.place.rpartition(':')[0] or self.obs.place} has no such "
                    f"modality. {near_matches(name, self.parts)}"
                )
        chosen = np.ones(self.obs.n_rows, bool)
        for name in wanted:
            chosen &= self._in(name)
        return chosen

    def _in(self, modality: str) -> BoolArray:
        rows = self.parts[modality].rows
        return np.ones(self.obs.n_rows, bool) if rows is None else rows != ABSENT


def find_paired(source: Any, elems: Mapping[str, Elem], cells: Cells, place: str) -> Paired | None:
    """Return how the modalities of a source are paired; None where its matrices have the rows of one obs.

    ``place`` are the words for the source in messages.
    """
    groups = {elem.obs for elem in elems.values()}
    if len(groups) == 1 and cells is None:
        return None
    held: HeldMuData | None = None
    if is_mudata(source):
        held = HeldMuData(source, place)
        modalities: Modalities | None = held.modalities
    else:
        modalities = None if isinstance(source, anndata.AnnData) else read_modalities(source)
    if modalities is None:
        if cells is None:
            return None
        raise ValueError(
            f"cells={cells!r} is given, and {place} is not a MuData; expected a MuData or the path of an .h5mu. "
            "Choose rows with obs_subset="
        )
    for key, elem in elems.items():
        name = elem.modality
        if name is None and elem.obs != "obs":
            raise UnknownNameError(
                f"elem[{key!r}] is {elem.path!r}, which is neither in a modality of {place} nor in its own obsm; "
                "expected a place like 'mod/rna/X' or 'obsm/X_mofa'"
            )
        if name is not None and name not in modalities.names:
            raise UnknownNameError(f"{place} has no modality {name!r}. {near_matches(name, modalities.names)}")
    obs, sources = _of_memory(held) if held is not None else _of_file(source, modalities)
    if obs is None:
        obs = CellNames(_all_names(modalities, sources), f"{place}: 'obs'")
    read = {elem.modality for elem in elems.values()}
    # Of a file they are read for this alone: they are more than all else that is held for a cell.
    names = obs.read_names()
    parts = {}
    for name, part in sources.items():
        find = partial(_rows_unread, modalities, name, obs, sources, place)
        parts[name] = PartObs(part, _rows(modalities, name, obs, sources, place, names) if name in read else find)
    return Paired(ModalitiesObs(obs, parts), parts, {key: elem.modality for key, elem in elems.items()})


def _of_memory(held: HeldMuData) -> tuple[ObsSource | None, dict[str, ObsSource]]:
    parts: dict[str, ObsSource] = {}
    for name, part in held.adata.mod.items():
        words = f"modality {name!r} of {held.place}"
        parts[name] = AnnDataObs(HeldAnnData(part, words), f"obs of {words}")
    return AnnDataObs(held, f"obs of {held.place}"), parts


def _of_file(path: str, modalities: Modalities) -> tuple[ObsSource | None, dict[str, ObsSource]]:
    known = KnownFile.at(os.path.abspath(path))
    parts: dict[str, ObsSource] = {name: FileObs(path, f"mod/{name}/obs", known) for name in modalities.names}
    return FileObs(path, "obs", known) if modalities.has_obs else None, parts


def _all_names(modalities: Modalities, parts: Mapping[str, ObsSource]) -> pd.Index[Any]:
    """The names of all cells, as mudata has them where a file does not say: those of any modality."""
    names = [part.read_names() for part in parts.values()]
    if modalities.axis == 1:
        return names[0].append(names[1:])
    first: pd.Index[Any] = names[0]
    return first.append(names[1:]).unique()


def _rows_unread(modalities: Modalities, name: str, obs: ObsSource, parts: Mapping[str, ObsSource], place: str) -> Rows:
    """The row of each cell in a modality of which no matrix is read, found when its columns or cells are asked for."""
    obs.check_unchanged()
    parts[name].check_unchanged()
    try:
        return _rows(modalities, name, obs, parts, place, obs.read_names())
    except FormatError as error:
        raise FormatError(f"{error}. Or leave {name!r} out: its columns (obs_columns=), its cells (cells=)") from error


def _rows(
    modalities: Modalities,
    name: str,
    obs: ObsSource,
    parts: Mapping[str, ObsSource],
    place: str,
    of_all: pd.Index[Any],
) -> Rows:
    """The row of each cell in a modality."""
    stored, part = modalities.map_of(name), parts[name]
    names = part.read_names()
    words, of_part = f"{place}: 'obsmap/{name}'", f"'mod/{name}/obs'"
    if stored is not None:
        rows = rows_of_map(stored, part.n_rows, obs.n_rows, words, of_part)
    else:
        found = _stacked(name, parts, names, of_all) if modalities.axis == 1 else None
        rows = rows_by_name(names, of_all, f"{place}: {of_part}") if found is None else found
    there = np.flatnonzero(rows >= 0)
    mine, theirs = names[rows[there]], of_all[there]
    if not mine.equals(theirs):
        first = int(np.argmax(np.asarray(mine != theirs)))
        raise FormatError(
            f"{words} says that row {there[first]} of 'obs', {theirs[first]!r}, is row {rows[there[first]]} of "
            f"{of_part}, {mine[first]!r}; expected the same name. Write it again with mudata, after mdata.update()"
        )
    if part.n_rows == obs.n_rows and np.array_equal(rows, np.arange(obs.n_rows)):
        return None
    # Half as much to hold for each cell.
    return rows.astype(np.int32) if part.n_rows < 2**31 else rows


def _stacked(
    name: str, parts: Mapping[str, ObsSource], names: pd.Index[Any], of_all: pd.Index[Any]
) -> Int64Array | None:
    """The rows where the cells of modalities follow each other; None where they do not."""
    ends = np.cumsum([0, *(part.n_rows for part in parts.values())])
    number = list(parts).index(name)
    start, stop = list(pairwise(ends.tolist()))[number]
    if ends[-1] != len(of_all) or not of_all[start:stop].equals(names):
        return None
    rows = np.full(len(of_all), ABSENT, np.int64)
    rows[start:stop] = np.arange(stop - start)
    return rows
