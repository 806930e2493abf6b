"""Facts of a MuData, in a file or in memory: its modalities, and which of their rows are which of its cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd

from annfeed.arrays import Int64Array
from annfeed.errors import FormatError, StaleDataError
from annfeed.h5ad.file import open_h5py, text_of
from annfeed.h5ad.held_anndata import AGAIN, HeldAnnData

#: Map of a modality: for each cell 0, or 1 + its row.
Map = npt.NDArray[Any]


def is_mudata(source: Any) -> bool:
    """Whether it is a MuData in memory; mudata is not imported for that, as whoever has one has done so.

    Examples
    --------
    >>> is_mudata("pbmc.h5mu")
    False
    """
    return any(kind.__name__ == "MuData" for kind in type(source).__mro__)


@dataclass(frozen=True)
class Modalities:
    """The modalities of a MuData."""

    #: As mudata calls it: 0, the cells are shared; 1, the genes are, and the cells follow each other; -1, both are.
    axis: int
    #: Their names, in their order.
    names: Sequence[str]
    #: Gives the stored map of one, which is read for that; None where there is none.
    map_of: Callable[[str], Map | None]
    #: Whether there is an obs of all cells.
    has_obs: bool = True


def read_modalities(path: str) -> Modalities | None:
    """Return the modalities of the MuData in a file; None for a file that is not of a MuData."""
    with open_h5py(path) as file:
        mod = file.get("mod")
        if not isinstance(mod, h5py.Group):
            return None
        order = [text_of(name) for name in np.ravel(mod.attrs.get("mod-order", []))]
        names = order if sorted(order) == sorted(mod) else list(mod)
        axis = int(np.ravel(file.attrs.get("axis", 0))[0])
        return Modalities(axis, names, partial(read_map, path), "obs" in file)


def read_map(path: str, name: str) -> Map | None:
    """Return the stored map of a modality of the MuData in a file; None where there is none."""
    with open_h5py(path) as file:
        stored = file.get(f"obsmap/{name}")
        return None if stored is None else stored[()]


def rows_of_map(stored: Map, n_rows: int, n_cells: int, words: str, obs: str) -> Int64Array:
    """Return the row of each of the ``n_cells`` cells of a MuData in a modality of ``n_rows``; -1 where it has none.

    ``words`` are for the map in messages, ``obs`` for the obs of the modality.

    Examples
    --------
    >>> rows_of_map(np.array([2, 0, 1], dtype="uint32"), 2, 3, "'obsmap/rna'", "'mod/rna/obs'")
    array([ 1, -1,  0])
    """
    again = "Write it again with mudata, after mdata.update()"
    if stored.dtype.kind not in "iu" or stored.size != max(stored.shape, default=0):
        raise FormatError(f"{words} is of {stored.dtype} and shape {stored.shape}; expected integers [n_obs]. {again}")
    stored = stored.ravel()
    if len(stored) != n_cells:
        raise FormatError(f"{words} has {len(stored)} values; expected {n_cells}, one for each row of 'obs'. {again}")
    wrong = np.flatnonzero((stored < 0) | (stored > n_rows))
    if len(wrong):
        raise FormatError(
            f"row {wrong[0]} of {words} is {stored[wrong[0]]}; expected 0 (not measured) to {n_rows}, a row of {obs} "
            f"counted from 1. {again}"
        )
    rows = stored.astype(np.int64) - 1
    at = np.full(n_rows + 1, -1, np.int64)  # row -1 finds the last entry
    at[rows] = np.arange(n_cells)
    twice = np.flatnonzero((rows >= 0) & (at[rows] != np.arange(n_cells)))
    if len(twice):
        first, second = twice[0], at[rows[twice[0]]]
        raise FormatError(
            f"rows {first} and {second} of {words} are both {stored[first]}; expected each row of {obs} once. {again}"
        )
    lacking = np.flatnonzero(at[:-1] < 0)
    if len(lacking):
        raise FormatError(
            f"{words} does not have row {lacking[0]} of {obs} ({len(lacking)} of {n_rows} are lacking); expected each "
            f"once. {again}"
        )
    return rows


class HeldMuData(HeldAnnData):
    """A MuData in memory that a dataset reads: its cells, its modalities, and their maps when the dataset was made."""

    def __init__(self, mdata: Any, place: str = "MuData") -> None:
        self._parts = dict(mdata.mod)
        self._maps = {name: mdata.obsmap[name] for name in mdata.mod if name in mdata.obsmap}
        super().__init__(mdata, place)

    @property
    def modalities(self) -> Modalities:
        """Its modalities."""
        return Modalities(int(self.adata.axis), list(self._parts), self._maps.get)

    def check(self) -> None:
        """Raise StaleDataError if its cells, its modalities, or which rows of these are which cells, have changed."""
        super().check()
        for name, part in self._parts.items():
            if self.adata.mod.get(name) is not part:
                raise StaleDataError(f"{self.place} has another modality {name!r} now, or none. {AGAIN}")
            before, now = self._maps.get(name), self.adata.obsmap.get(name)
            if now is not before and (now is None or before is None or not np.array_equal(now, before)):
                raise StaleDataError(f"{self.place}: obsmap[{name!r}] has changed. {AGAIN}")


def rows_by_name(names: pd.Index[Any], of_all: pd.Index[Any], place: str) -> Int64Array:
    """Return the row of each cell in a modality whose cells have ``names``; -1 where it has none.

    ``place`` is for the modality's obs in messages.

    Examples
    --------
    >>> rows_by_name(pd.Index(["b", "a"]), pd.Index(["a", "b", "c"]), "'mod/rna/obs'")
    array([ 1,  0, -1])
    """
    for index, where in ((names, place), (of_all, "the obs of all cells")):
        twice = index[index.duplicated()]
        if len(twice):
            raise FormatError(
                f"{place}: there is no obsmap, and {where} has the name {twice[0]!r} twice; expected different names, "
                "by which cells are found. Make them distinct (obs_names_make_unique) and write the file with mudata"
            )
    rows = names.get_indexer(of_all).astype(np.int64)
    n_found = int(np.count_nonzero(rows >= 0))
    if n_found != len(names):
        lacking = names[~names.isin(of_all)]
        raise FormatError(
            f"{place} has {len(lacking)} cells that the obs of all cells has not, the first is {lacking[0]!r}; "
            "expected all of them. Write the file again with mudata, after mdata.update()"
        )
    return rows
