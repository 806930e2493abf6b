"""Obs in memory: a DataFrame, or whatever an AnnData has as its obs at the moment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pandas as pd

from annfeed.arrays import Int64Array
from annfeed.h5ad.held_anndata import HeldAnnData
from annfeed.obs.base import Name, ObsSource, Read, as_text


class FrameObs(ObsSource):
    """A DataFrame in memory: of a dataset it is a copy, made when the dataset was pickled."""

    place = "obs of the DataFrame in memory"
    is_of_file = False
    is_one_frame = True

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame

    def _now(self) -> pd.DataFrame:
        return self._frame

    @property
    def n_rows(self) -> int:
        return len(self._now())

    @property
    def names(self) -> pd.Index[str]:
        return as_text(self._now().index)

    @property
    def column_names(self) -> list[Name]:
        return list(self._now().columns)

    def frame(self, columns: list[Name]) -> pd.DataFrame:
        return self._now().loc[:, columns]  # a copy, also of a view's obs, which is a class of anndata's

    def read(self, columns: list[Name], coded: bool = False) -> Read:
        now = cast(Any, self._now())
        yield from ((name, now[name]) for name in columns)

    def live(self, column: Name, rows: Int64Array) -> Iterator[tuple[Int64Array, pd.Series[Any]]]:
        series = cast("pd.Series[Any]", self._now()[column])
        # pandas itself takes no rows of another byte order.
        plain = isinstance(series.dtype, np.dtype)
        yield np.arange(len(rows)), pd.Series(series.to_numpy()[rows]) if plain else series.iloc[rows]

    def still_holds(self, column: Name, array: object) -> bool:
        now = self._now()[column].array
        if now is array:
            return True
        # pandas wraps these anew at each access. `array` is alive, so no other column can be at its address.
        return type(now) is type(array) and isinstance(array, _WRAPPED_ANEW) and _memory(now) == _memory(array)

    def to_pickle(self, columns: list[Name]) -> ObsSource:
        return FrameObs(self.frame(columns))


class AnnDataObs(FrameObs):
    """The obs of an AnnData (or MuData), looked up at each use because ``adata.obs = …`` replaces it."""

    def __init__(self, held: HeldAnnData, place: str) -> None:
        self._held = held
        self.place = place

    def _now(self) -> pd.DataFrame:
        return cast(pd.DataFrame, self._held.adata.obs)

    def check_rows(self) -> None:
        self._held.check()


_WRAPPED_ANEW = (pd.arrays.NumpyExtensionArray, pd.arrays.DatetimeArray, pd.arrays.TimedeltaArray)


def _memory(array: Any) -> tuple[object, ...]:
    values = np.asarray(array) if isinstance(array, pd.arrays.NumpyExtensionArray) else array.view("i8")
    return values.__array_interface__["data"], values.strides, values.shape, values.dtype
