"""Rows of matrices that only their own library reads: sparse datasets in zarr, dask arrays, in-memory HDF5 files."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from annfeed._core import Block
from annfeed.sources.base import STATS, block_of


class SlicedSource:
    """A matrix that gives sorted, distinct rows through ``matrix[rows]``.

    Parameters
    ----------
    matrix
        Has ``shape``; what it gives may be lazy (``compute``), dense or sparse.
    name
        What it is, for messages.

    Examples
    --------
    >>> SlicedSource(np.eye(3), name="eye").read(np.array([0, 2]), threads=1).shape
    (2, 3)
    """

    def __init__(self, matrix: Any, *, name: str) -> None:
        self.place = name
        self._matrix = matrix

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        n_rows, n_cols = self._matrix.shape
        return int(n_rows), int(n_cols)

    @property
    def is_part(self) -> bool:
        """It has all columns."""
        return False

    def keep_totals(self) -> None:
        """They are the sums of its rows."""

    def read(self, rows: npt.NDArray[np.int64], threads: int) -> Block:
        """Copy ``rows`` (sorted, distinct) into a block."""
        picked = self._matrix[rows]
        if hasattr(picked, "compute"):
            picked = picked.compute()
        if hasattr(picked, "tocsr"):
            return block_of(picked.tocsr(), None, self.place)
        return block_of(np.asarray(picked), None, self.place)

    def unit_starts(self) -> None:
        """Not known here."""

    def now(self, thorough: bool = True) -> SlicedSource:
        """Return itself."""
        return self

    def stats(self) -> dict[str, int]:
        """Not counted here."""
        return dict.fromkeys(STATS, 0)

    def close(self) -> None:
        """Nothing to close: the matrix is the user's."""
