"""The obs of a MuData: its own columns, and those of modalities as "rna:leiden", missing where not measured."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from annfeed.arrays import Int64Array
from annfeed.obs.base import Name, ObsSource, Read
from annfeed.obs.dtypes import concat_column

#: The row of each cell in a modality, -1 for one that has none; None where they are the same.
Rows = npt.NDArray[np.signedinteger[Any]] | None


class PartObs:
    """The obs of a modality, and which of its rows are which cells.

    Parameters
    ----------
    source
        The obs.
    rows
        The rows; or what finds them, which is called when they are first asked for.
    """

    def __init__(self, source: ObsSource, rows: Rows | Callable[[], Rows]) -> None:
        self.source, self._rows = source, rows

    @property
    def is_found(self) -> bool:
        """Whether the rows were asked for, so that finding them needs nothing more."""
        return not callable(self._rows)

    @property
    def rows(self) -> Rows:
        """The rows; None where they are those of all cells."""
        if callable(self._rows):
            self._rows = self._rows()
        return self._rows


class ModalitiesObs(ObsSource):
    """The obs of all cells, and those of the modalities.

    Parameters
    ----------
    whole
        The obs of all cells. Where it has a column "rna:leiden" itself, that one is taken.
    parts
        The obs of each modality by name.
    """

    def __init__(self, whole: ObsSource, parts: Mapping[str, PartObs]) -> None:
        self._whole, self._parts = whole, dict(parts)
        #: Of each column read that may be edited: its array.
        self._arrays: dict[Name, object] = {}
        self._of_files: dict[Name, tuple[PartObs, Name]] | None = None

    @property
    def place(self) -> str:
        return self._whole.place

    @cached_property
    def is_of_file(self) -> bool:
        return all(source.is_of_file for source in self._sources())

    def _sources(self) -> list[ObsSource]:
        return [self._whole, *(part.source for part in self._parts.values())]

    @property
    def n_rows(self) -> int:
        return self._whole.n_rows

    @property
    def names(self) -> pd.Index[str]:
        return self._whole.names

    @property
    def column_names(self) -> list[Name]:
        return list(self._found())

    def find_rows(self, columns: Iterable[Name]) -> None:
        """Find the rows of the modalities that some columns are of, so that what is wrong with them is told now."""
        found = self._found()
        for part in {id(part): part for name in columns if name in found for part in found[name][:1]}.values():
            _ = part.rows

    def _found(self) -> dict[Name, tuple[PartObs, Name]]:
        """Where each column is, and its name there."""
        if self._of_files is not None:
            return self._of_files
        whole = PartObs(self._whole, None)
        found: dict[Name, tuple[PartObs, Name]] = {name: (whole, name) for name in self._whole.column_names}
        for modality, part in self._parts.items():
            for name in part.source.column_names:
                found.setdefault(f"{modality}:{name}", (part, name))
        if self.is_of_file:  # else somebody may add one
            self._of_files = found
        return found

    def _at(self, column: Name) -> tuple[PartObs, Name]:
        """Where one column is, and its name there: of those in memory it is asked for each batch."""
        if self._of_files is None and isinstance(column, str):
            if column in self._whole.column_names:
                return PartObs(self._whole, None), column
            for modality, part in self._parts.items():
                there = column.removeprefix(f"{modality}:")
                if there != column and there in part.source.column_names:
                    return part, there
        return self._found()[column]

    def frame(self, columns: list[Name]) -> pd.DataFrame:
        # Those in memory have the names of their rows.
        found = {name: column.reset_index(drop=True) for name, column in self.read(columns)}
        return pd.DataFrame(found, columns=columns, index=pd.RangeIndex(self.n_rows)).set_axis(self.names, axis=0)

    def read(self, columns: list[Name], coded: bool = False) -> Read:
        found = self._found()
        for name in columns:
            part, there = found[name]
            source, rows = part.source, part.rows
            ((_, column),) = source.read([there], coded)
            if not source.is_of_file:
                self._arrays[name] = column.array
            yield name, column if rows is None else _spread(column, rows, f"{source.place}: column {there!r}")

    def check_rows(self) -> None:
        for source in self._sources():
            source.check_rows()

    def check_unchanged(self) -> None:
        for source in self._sources():
            source.check_unchanged()

    def is_replaced(self, column: Name, since: int) -> bool:
        part, there = self._at(column)
        return part.source.is_replaced(there, since)

    def still_holds(self, column: Name, array: object) -> bool:
        part, there = self._at(column)
        source = part.source
        return source.is_of_file or (column in self._arrays and source.still_holds(there, self._arrays[column]))

    def live(self, column: Name, rows: Int64Array) -> Iterator[tuple[Int64Array, pd.Series[Any]]]:
        part, there = self._at(column)
        source, rows_there = part.source, part.rows
        if rows_there is None:
            yield from source.live(there, rows)
            return
        wanted = rows_there[rows]
        at = np.flatnonzero(wanted >= 0)
        for among, series in source.live(there, wanted[at]):
            yield at[among], series

    def to_pickle(self, columns: list[Name]) -> ObsSource:
        wanted = [self._found()[name] for name in columns]
        copied = copy.copy(self)
        copied._arrays, copied._of_files = {}, None
        copied.__dict__.pop("is_of_file", None)

        def of(source: ObsSource) -> ObsSource:
            return source.to_pickle([there for part, there in wanted if part.source is source])

        copied._whole = of(self._whole)
        copied._parts = {}
        for name, part in self._parts.items():
            source = part.source
            if source.is_of_file and not part.is_found:  # which it can do itself
                copied._parts[name] = part
            elif part.is_found or any(other is part for other, _ in wanted):
                copied._parts[name] = PartObs(of(source), part.rows)
        return copied


class CellNames(ObsSource):
    """The names of all cells of a MuData that has no obs of its own; without columns."""

    is_of_file = True

    def __init__(self, names: pd.Index[Any], place: str) -> None:
        self._names, self._place = names, place

    @property
    def place(self) -> str:
        return self._place

    @property
    def n_rows(self) -> int:
        return len(self._names)

    @property
    def names(self) -> pd.Index[str]:
        return self._names

    @property
    def column_names(self) -> list[Name]:
        return []

    def frame(self, columns: list[Name]) -> pd.DataFrame:
        return pd.DataFrame(index=self._names)

    def read(self, columns: list[Name], coded: bool = False) -> Read:
        yield from ()


def _spread(column: Any, rows: Int64Array, where: str) -> Any:
    """A column of a modality at ``rows``; -1 finds the last entry, a missing value, as by an outer join."""
    if isinstance(column, pd.Categorical):
        codes = np.append(column.codes, -1).astype(column.codes.dtype)
        return pd.Categorical.from_codes(codes[rows], column.categories)
    series = column.reset_index(drop=True)
    if len(rows) and rows.min() < 0:
        series = concat_column([series, 1], where)
    return series.iloc[rows].reset_index(drop=True)
