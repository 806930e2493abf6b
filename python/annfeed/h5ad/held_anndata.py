"""`HeldAnnData`: an AnnData of a dataset, and the cells that it had when the dataset was made.

Rows of a dataset are numbers, so an AnnData that has other cells or genes later is an error.
"""

from __future__ import annotations

from typing import Any, cast

import anndata
import numpy as np
import pandas as pd

from annfeed.arrays import Int64Array, positions_of_slice
from annfeed.errors import StaleDataError

#: Last sentence of messages.
AGAIN = "Make the dataset again; to filter or reorder while one is in use, do it to a copy"


class HeldAnnData:
    """An AnnData that a dataset reads, and the cells that it had when the dataset was made.

    Parameters
    ----------
    adata
        In memory, backed, or a view.
    place
        Its name in messages.
    """

    def __init__(self, adata: anndata.AnnData, place: str = "AnnData") -> None:
        self.adata = adata
        self.place = place
        self._cells: pd.Index[Any] = adata.obs_names
        # For a view: the objects that its rows were computed from, and the rows.
        self._found: tuple[Any, ...] = ()
        self._rows: Int64Array | None = None
        self.check()

    def check(self) -> None:
        """Raise StaleDataError if its cells, or those of the AnnData that it is a view of, have changed."""
        self._cells = unchanged(self._cells, self.adata.obs_names, "cells", self.place)
        self.rows()

    def rows(self) -> Int64Array | None:
        """The row of each cell of a view in its AnnData; None for an AnnData that is not a view."""
        view = self.adata
        if not view.is_view:
            return None
        found = (source_of(view), view._oidx, source_of(view).obs_names)
        if not same(found, self._found):
            self._rows = positions_of(view._oidx, found[2], view.obs_names, "cells", self.place)
            self._found = found
        return self._rows

    def rows_in_file(self) -> Int64Array | None:
        """The row in the file of each cell of a view of a backed AnnData; None for anything else."""
        return self.rows() if self.adata.isbacked else None


def source_of(adata: anndata.AnnData) -> anndata.AnnData:
    """Return the AnnData (or MuData) of a view, or one that is not a view itself."""
    if not adata.is_view:
        return adata
    of_mudata = getattr(adata, "_mudata_ref", None)
    return cast(anndata.AnnData, adata._adata_ref if of_mudata is None else of_mudata)


def unchanged(before: pd.Index[Any], now: pd.Index[Any], what: str, place: str) -> pd.Index[Any]:
    """Return ``now``; StaleDataError if the names differ from those ``before``, or are in another order.

    ``what`` ("cells" or "genes") and ``place`` are for messages.

    Examples
    --------
    >>> unchanged(pd.Index(["a", "b"]), pd.Index(["a", "b"]), "cells", "AnnData").tolist()
    ['a', 'b']
    """
    if now is before or now.is_(before):
        return before
    if len(now) != len(before):
        raise StaleDataError(
            f"{place} has {len(now)} {what} now; expected the {len(before)} that it had when the dataset was made. "
            f"{AGAIN}"
        )
    if not now.equals(before):
        first = int(np.flatnonzero(np.asarray(now) != np.asarray(before))[0])
        raise StaleDataError(
            f"{place} has other {what} now, or has them in another order: number {first} is {now[first]!r}; expected "
            f"{before[first]!r}, as when the dataset was made. {AGAIN}"
        )
    return now


def positions_of(index: Any, names: pd.Index[Any], of_view: pd.Index[Any], what: str, place: str) -> Int64Array:
    """Return the positions of a view's cells or genes in its AnnData.

    Parameters
    ----------
    index
        anndata's index of the view: a slice, a mask, or positions.
    names, of_view
        Names in the AnnData, and in the view.
    what, place
        "cells" or "genes", and the name of the view, for messages.
    """
    positions: Int64Array | None = None
    if isinstance(index, slice):
        positions = positions_of_slice(index, len(names))
    else:
        index = np.asarray(index)
        if index.dtype == bool or not index.size or index.max() < len(names):
            positions = np.arange(len(names), dtype=np.int64)[index]
    if positions is None or len(positions) != len(of_view) or not names[positions].equals(of_view):
        raise StaleDataError(
            f"{place} is a view of an AnnData whose {what} were filtered, reordered or renamed after it was made: "
            f"they no longer are the {len(of_view)} {what} of the view. Make the view again, and the dataset"
        )
    return positions


def same(these: tuple[Any, ...], those: tuple[Any, ...]) -> bool:
    """Whether two tuples have the same objects; texts are compared by value, an Index also with a view of itself."""
    return len(these) == len(those) and all(
        a is b or (isinstance(a, str | tuple | slice) and a == b) or (isinstance(a, pd.Index) and a.is_(b))
        for a, b in zip(these, those, strict=True)
    )
