"""The obs of several files or AnnData objects as one, a column at a time; files open for one read each.

Types and categories are united in obs/dtypes.py; columns become tensors in obs/table.py, as for one file.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from annfeed.errors import AnnfeedWarning, UnknownNameError
from annfeed.obs.columns import Labels, Rows
from annfeed.obs.dtypes import join_column
from annfeed.obs.sources import Name, Read, Source
from annfeed.obs.text_codes import codes_of_texts, joined
from annfeed.user_arrays import first_few

#: So many columns and files a warning names.
_NAMED = 5


class JoinedObsSource:
    """Several obs, their rows one after the other.

    Parameters
    ----------
    parts
        In the order of their rows.
    keys
        A different text for each.
    join
        Of columns that not all have: "inner" leaves them out, "outer" gives missing values.
    label
        A column to add, of the key of each row; None for none.
    index_unique
        Put between the name of a row and its key; None leaves the names.

    Raises
    ------
    ValueError
        If a part has a column called ``label``.
    """

    is_one_frame = False

    def __init__(
        self,
        parts: Sequence[Source],
        keys: Sequence[str],
        join: Literal["inner", "outer"],
        label: str | None = None,
        index_unique: str | None = None,
    ) -> None:
        self._parts, self._keys, self._join = list(parts), list(keys), join
        self._label, self._index_unique = label, index_unique
        self._lengths = [part.n_rows for part in parts]
        self.n_rows = sum(self._lengths)
        self.is_of_file = all(part.is_of_file for part in parts)
        #: Of each column read: the array of each part, for `still_holds`.
        self._arrays: dict[Name, list[object]] = {}
        self._names_of_columns: list[Name] | None = None
        for part in parts:
            if label is not None and label in part.column_names:
                raise ValueError(
                    f"{part.place} has a column {label!r} already, under which label= would tell the sources apart; "
                    "choose another label"
                )

    @property
    def place(self) -> str:
        return f"obs of {len(self._parts)} sources"

    @property
    def names(self) -> pd.Index[str]:
        names = self._parts[0].names.append([part.names for part in self._parts[1:]])
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
        seen: dict[Name, int] = {}
        for part in self._parts:
            for name in part.column_names:
                seen[name] = seen.get(name, 0) + 1
        everywhere = [name for name, count in seen.items() if self._join == "outer" or count >= len(self._parts)]
        names = everywhere + ([] if self._label is None else [self._label])
        if self.is_of_file:  # else somebody may add one
            self._names_of_columns = names
        return names

    def frame(self, columns: list[Name]) -> pd.DataFrame:
        found = dict(self.read(columns))
        return pd.DataFrame(found, columns=columns, index=pd.RangeIndex(self.n_rows)).set_axis(self.names, axis=0)

    def read(self, columns: list[Name]) -> Read:
        for name in columns:
            if name == self._label and self._label is not None:
                codes = np.repeat(np.arange(len(self._keys), dtype=np.int32), self._lengths)
                yield name, pd.Series(pd.Categorical.from_codes(codes, pd.Index(self._keys)))
                continue
            found = [self._column(part, name) for part in self._parts]
            self._keep(name, found)
            yield name, join_column(found, f"{self.place}: column {name!r}")

    def _column(self, part: Source, name: Name) -> pd.Series[Any] | int:
        if name not in part.column_names:
            return part.n_rows
        ((_, series),) = part.read([name])
        return series

    def computed(self, column: Name) -> Labels | None:
        if column != self._label or self._label is None:
            coded = self.coded(column)
            return None if coded is None else Labels(coded.codes, list(coded.categories), None)
        return Labels(_SourceOfRow(self._lengths), self._keys, pd.Index(self._keys))

    def coded(self, column: Name) -> pd.Categorical | None:
        if column == self._label:
            return None
        codes = [part.coded(column) if column in part.column_names else part.n_rows for part in self._parts]
        if not any(isinstance(of_part, pd.Categorical) for of_part in codes):
            return None  # text in no file: categoricals are joined with the categories that they have
        found: list[pd.Series[Any] | pd.Categorical | int] = []
        for number, part in enumerate(self._parts):
            if codes[number] is None:
                series = cast("pd.Series[Any]", self._column(part, column))
                codes[number] = codes_of_texts(series)
                if codes[number] is None:
                    return None
                found.append(series)
            else:
                found.append(cast("pd.Categorical | int", codes[number]))
        self._keep(column, found)
        return joined(cast("list[pd.Categorical | int]", codes))

    def _keep(self, column: Name, found: Sequence[pd.Series[Any] | pd.Categorical | int]) -> None:
        """Keep the arrays of a column that may be edited in memory; of a file only that it has the column."""
        if not self.is_of_file:
            self._arrays[column] = [
                None if isinstance(of_part, int) else part.is_of_file or cast("pd.Series[Any]", of_part).array
                for part, of_part in zip(self._parts, found, strict=True)
            ]

    def check_rows(self) -> None:
        for part in self._parts:
            part.check_rows()

    def check_unchanged(self) -> None:
        for part in self._parts:
            part.check_unchanged()

    def is_replaced(self, column: Name, since: int) -> bool:
        return column != self._label and any(part.is_replaced(column, since) for part in self._parts)

    def live(self, column: Name, rows: Rows) -> Iterator[tuple[npt.NDArray[np.int64], pd.Series[Any]]]:
        starts = np.cumsum([0, *self._lengths])
        part_of = np.searchsorted(starts, rows, side="right") - 1
        for number in np.unique(part_of).tolist():
            part = self._parts[number]
            if column in part.column_names:
                places = np.flatnonzero(part_of == number)
                for among, series in part.live(column, rows[places] - starts[number]):
                    yield places[among], series

    def still_holds(self, column: Name, array: object) -> bool:
        if self.is_of_file or column == self._label:
            return True
        return all(
            (held is None) == (column not in part.column_names) and (held is None or part.still_holds(column, held))
            for part, held in zip(self._parts, self._arrays.get(column, ()), strict=True)
        )

    def to_pickle(self, columns: list[Name]) -> Source:
        parts = [part.to_pickle([name for name in columns if name in part.column_names]) for part in self._parts]
        # Not made anew: that would open every file.
        copied = copy.copy(self)
        copied._parts, copied._arrays = parts, {}
        return copied

    def check(self, asked: Sequence[Name] | None) -> None:
        """Say once which columns are not in every part.

        Raises
        ------
        UnknownNameError
            If one that was asked for is left out because of that.
        """
        lacking = self._lacking(asked)
        if not lacking:
            return
        if self._join == "inner" and asked is not None:
            name, places = next(iter(lacking.items()))
            raise UnknownNameError(
                f"{_few(places)} has no column {name!r}, which other sources have; join='outer' gives missing values "
                "there, or leave it out of obs_columns"
            )
        told = "; ".join(f"{name!r} is not in {_few(lacking[name])}" for name in list(lacking)[:_NAMED])
        more = f"; and {len(lacking) - _NAMED} more columns" if len(lacking) > _NAMED else ""
        what = (
            "are left out, as join='inner' takes those that all have; join='outer' takes them"
            if self._join == "inner"
            else "have missing values there (code -1, 'nan', NaN)"
        )
        warnings.warn(f"obs columns that not all sources have {what}: {told}{more}", AnnfeedWarning, stacklevel=2)

    def _lacking(self, asked: Sequence[Name] | None) -> dict[Name, list[str]]:
        """The places that lack each column that some place has."""
        have = [set(part.column_names) for part in self._parts]
        some = set().union(*have)
        names = list(dict.fromkeys(name for part in self._parts for name in part.column_names))
        wanted = names if asked is None else [name for name in asked if name in some]
        lacking = {
            name: [part.place for part, there in zip(self._parts, have, strict=True) if name not in there]
            for name in wanted
        }
        return {name: places for name, places in lacking.items() if places}


class _SourceOfRow:
    """The number of the source of each row, as an array would have them, which would take a byte or more a row."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self._ends = np.cumsum(lengths, dtype=np.int64)

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.searchsorted(self._ends, rows, side="right").astype(np.int64)


def _few(places: Sequence[str]) -> str:
    return first_few(places, _NAMED, str)
