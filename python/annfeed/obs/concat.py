"""The obs of several files or AnnData objects as one, a column at a time; files open for one read each.

Types and categories are united in obs/dtypes.py; columns become tensors in obs/table.py, as for one file.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import chain
from typing import Any, Literal

import numpy as np
import pandas as pd

from annfeed.arrays import Int64Array
from annfeed.errors import UnknownNameError
from annfeed.obs.base import Name, ObsSource, Read
from annfeed.obs.dtypes import concat_column
from annfeed.obs.text_codes import concat_texts
from annfeed.obs.to_batch import Labels
from annfeed.user_arrays import close_matches, first_few
from annfeed.user_warnings import warn

#: So many columns and files a warning names.
_NAMED = 5


class ConcatObs(ObsSource):
    """Several obs, their rows one after the other; the parameters are those of `ObsTable.concat`."""

    def __init__(
        self,
        sources: Sequence[ObsSource],
        keys: Sequence[str],
        join: Literal["inner", "outer"],
        label: str | None = None,
        index_unique: str | None = None,
    ) -> None:
        self._sources, self._keys, self._join = list(sources), list(keys), join
        self._label, self._index_unique = label, index_unique
        self._lengths = [source.n_rows for source in sources]
        #: Of each column read: the array of each source, for `still_holds`.
        self._arrays: dict[Name, list[object]] = {}
        self._names_of_columns: list[Name] | None = None
        for source in sources:
            if label is not None and label in source.column_names:
                raise ValueError(
                    f"{source.place} has a column {label!r} already, under which label= would tell the sources apart; "
                    "choose another label"
                )

    @cached_property
    def is_of_file(self) -> bool:
        return all(source.is_of_file for source in self._sources)

    @property
    def n_rows(self) -> int:
        return sum(self._lengths)

    @property
    def place(self) -> str:
        return f"obs of {len(self._sources)} sources"

    @property
    def names(self) -> pd.Index[str]:
        names = self._sources[0].names.append([source.names for source in self._sources[1:]])
        if self._index_unique is None:
            return names
        unique: pd.Index[str] = (
            names + self._index_unique + np.repeat(np.array(self._keys, dtype=object), self._lengths)
        )
        return unique

    @property
    def column_names(self) -> list[Name]:
        if self._names_of_columns is not None:
            return list(self._names_of_columns)
        seen = Counter(name for source in self._sources for name in source.column_names)
        everywhere = [name for name, count in seen.items() if self._join == "outer" or count >= len(self._sources)]
        names = everywhere + ([] if self._label is None else [self._label])
        if self.is_of_file:  # else somebody may add one
            self._names_of_columns = names
        return names

    def remedy(self, column: Name) -> str:
        lacking = self._lacking([column])
        if lacking:
            return f"Some sources have it, but not {_few(lacking[column])}; join='outer' gives missing values there"
        if self._label is None and not close_matches(str(column), map(str, self.column_names)):
            return f"label={str(column)!r} would make one that tells from which source a cell is"
        return ""

    def _is_label(self, column: Name) -> bool:
        return self._label is not None and bool(column == self._label)

    def frame(self, columns: list[Name]) -> pd.DataFrame:
        found = dict(self.read(columns))
        return pd.DataFrame(found, columns=columns, index=pd.RangeIndex(self.n_rows)).set_axis(self.names, axis=0)

    def read(self, columns: list[Name], coded: bool = False) -> Read:
        for name in columns:
            if self._is_label(name):
                codes = np.repeat(np.arange(len(self._keys), dtype=np.int32), self._lengths)
                yield name, pd.Series(pd.Categorical.from_codes(codes, pd.Index(self._keys)))
                continue
            found = [self._column(source, name, coded) for source in self._sources]
            texts = concat_texts(found)
            if texts is None:  # of text in some sources only, the texts themselves
                is_text = [isinstance(column, pd.Categorical) for column in found]
                found = [
                    self._column(source, name) if text else column
                    for source, column, text in zip(self._sources, found, is_text, strict=True)
                ]
            if not self.is_of_file:
                # Of a column that may be edited in memory its array; of a file only that it has the column.
                self._arrays[name] = [
                    None if isinstance(column, int) else source.is_of_file or column.array
                    for source, column in zip(self._sources, found, strict=True)
                ]
            yield name, concat_column(found, f"{self.place}: column {name!r}") if texts is None else texts

    def _column(self, source: ObsSource, name: Name, coded: bool = False) -> Any:
        """A column of one source; the number of its rows where it has none."""
        if name not in source.column_names:
            return source.n_rows
        ((_, column),) = source.read([name], coded)
        return column

    def computed(self, column: Name) -> Labels | None:
        return Labels(_SourceOfRow(self._lengths), self._keys, pd.Index(self._keys)) if self._is_label(column) else None

    def check_rows(self) -> None:
        for source in self._sources:
            source.check_rows()

    def check_unchanged(self) -> None:
        for source in self._sources:
            source.check_unchanged()

    def is_replaced(self, column: Name, since: int) -> bool:
        return not self._is_label(column) and any(source.is_replaced(column, since) for source in self._sources)

    def live(self, column: Name, rows: Int64Array) -> Iterator[tuple[Int64Array, pd.Series[Any]]]:
        starts = np.cumsum([0, *self._lengths])
        source_of = np.searchsorted(starts, rows, side="right") - 1
        for number in np.unique(source_of).tolist():
            source = self._sources[number]
            if column in source.column_names:
                at = np.flatnonzero(source_of == number)
                for among, series in source.live(column, rows[at] - starts[number]):
                    yield at[among], series

    def still_holds(self, column: Name, array: object) -> bool:
        if self.is_of_file or self._is_label(column):
            return True
        return all(
            (held is None) == (column not in source.column_names) and (held is None or source.still_holds(column, held))
            for source, held in zip(self._sources, self._arrays.get(column, ()), strict=True)
        )

    def to_pickle(self, columns: list[Name]) -> ObsSource:
        # Not made anew: that would open every file.
        copied = copy.copy(self)
        copied._arrays = {}
        copied._sources = [
            source.to_pickle([name for name in columns if name in source.column_names]) for source in self._sources
        ]
        copied.__dict__.pop("is_of_file", None)
        return copied

    def check(self, asked: Sequence[Name] | None) -> None:
        """Say once which columns are not in every source."""
        lacking = self._lacking(asked)
        if not lacking:
            return
        if self._join == "inner" and asked is not None:
            name, places = next(iter(lacking.items()))
            raise UnknownNameError(
                f"{_few(places)} has no column {name!r}, which other sources have; join='outer' gives missing values "
                "there, or leave it out of obs_columns"
            )
        named = "; ".join(f"{name!r} is not in {_few(lacking[name])}" for name in list(lacking)[:_NAMED])
        more = f"; and {len(lacking) - _NAMED} more columns" if len(lacking) > _NAMED else ""
        what = (
            "are left out, as join='inner' takes those that all have; join='outer' takes them"
            if self._join == "inner"
            else "have missing values there (code -1, 'nan', NaN)"
        )
        warn(f"obs columns that not all sources have {what}: {named}{more}")

    def _lacking(self, asked: Sequence[Name] | None) -> dict[Name, list[str]]:
        """The places that lack each column that some place has."""
        have = [dict.fromkeys(source.column_names) for source in self._sources]
        some = dict.fromkeys(chain.from_iterable(have))
        wanted = some if asked is None else [name for name in asked if name in some]
        lacking = {
            name: [source.place for source, there in zip(self._sources, have, strict=True) if name not in there]
            for name in wanted
        }
        return {name: places for name, places in lacking.items() if places}


class _SourceOfRow:
    """The number of the source of each row, as an array would have them, which would take a byte or more a row."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self._ends = np.cumsum(lengths, dtype=np.int64)

    def __getitem__(self, rows: Int64Array) -> Int64Array:
        return np.searchsorted(self._ends, rows, side="right").astype(np.int64)


def _few(places: Sequence[str]) -> str:
    return first_few(places, _NAMED, str)
