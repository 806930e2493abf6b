"""An AnnData that its user goes on working with, and the cells and genes that it had when a dataset of it was made.

Other cells or other genes are refused: rows of a dataset are numbers, which would mean others now.
"""

from __future__ import annotations

from typing import Any, cast

import anndata
import numpy as np
import pandas as pd

from annfeed.arrays import Int64Array, positions_of_slice
from annfeed.errors import StaleDataError

#: The end of messages.
AGAIN = "Make the dataset again; to filter or reorder while one is in use, do it to a copy"


class HeldAnnData:
    """An AnnData that a dataset reads, and the cells that it had when the dataset was made.

    Parameters
    ----------
    adata
        In memory, backed, or a view.
    place
        The words for it in messages.

    Raises
    ------
    StaleDataError
        If it is a view, and the AnnData that it is of has other cells by now.
    """

    def __init__(self, adata: anndata.AnnData, place: str = "AnnData") -> None:
        self.adata = adata
        self.place = place
        self._cells: pd.Index[Any] = adata.obs_names
        # Of a view: what its rows were found from, and these.
        self._found: tuple[Any, ...] = ()
        self._rows: Int64Array | None = None
        self.check()

    def check(self) -> None:
        """Raise StaleDataError if its cells are not those of then, or those of the AnnData that it is a view of."""
        self._cells = unchanged(self._cells, self.adata.obs_names, "cells", self.place)
        self.rows()

    def rows(self) -> Int64Array | None:
        """Of a view: the row of each of its cells in the AnnData that it is of; None for an AnnData that is none."""
        view = self.adata
        if not view.is_view:
            return None
        found = (source_of(view), view._oidx, source_of(view).obs_names)
        if not same(found, self._found):
            self._rows = positions_of(view._oidx, found[2], view.obs_names, "cells", self.place)
            self._found = found
        return self._rows

    def rows_in_file(self) -> Int64Array | None:
        """Of a view of a backed AnnData: the row of each of its cells in the file; None for all others."""
        return self.rows() if self.adata.isbacked else None


def source_of(adata: anndata.AnnData) -> anndata.AnnData:
    """Return the AnnData that a view is of, which is no view itself; of any other: itself."""
    return cast(anndata.AnnData, adata._adata_ref) if adata.is_view else adata


def unchanged(before: pd.Index[Any], now: pd.Index[Any], what: str, place: str) -> pd.Index[Any]:
    """Return the names as they are now, which are those of before.

    Parameters
    ----------
    before, now
        Names of cells or genes.
    what
        "cells" or "genes".
    place
        The words for what has them, in messages.

    Raises
    ------
    StaleDataError
        If there are others, or in another order.

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
    """Return where a view's cells or genes lie in the AnnData that it is of.

    Parameters
    ----------
    index
        What anndata keeps of them: a slice, a mask, or positions.
    names, of_view
        Those of the AnnData, and of the view.
    what
        "cells" or "genes".
    place
        The words for the view, in messages.

    Raises
    ------
    StaleDataError
        If they no longer are the view's.
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
    """Whether two lists of objects are the same ones: names and paths by value, an Index also as a view of itself."""
    return len(these) == len(those) and all(
        a is b or (isinstance(a, str | tuple | slice) and a == b) or (isinstance(a, pd.Index) and a.is_(b))
        for a, b in zip(these, those, strict=True)
    )
