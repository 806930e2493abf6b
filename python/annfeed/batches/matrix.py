"""One matrix of a dataset: its source, the columns wanted of it, and which rows of it are read together."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from annfeed._core import StoredRows
from annfeed.arrays import Int64Array, digest_of
from annfeed.batches.tensors import TensorMaker, dtype_name
from annfeed.order.blocks import units_of_positions
from annfeed.sources.base import DecodedRows, Source
from annfeed.sources.file import FileSource
from annfeed.sources.memory import MemorySource

if TYPE_CHECKING:
    import pandas as pd

#: Rows that tell one matrix from another.
_SAMPLE = 4


class Held(Protocol):
    """A matrix in an AnnData, whose user may replace it at any time."""

    @property
    def rows_in_file(self) -> Int64Array | None:
        """Of a view of a backed AnnData: the row of each of its cells in the file; None for all others."""

    def now(self, thorough: bool = True) -> Matrix:
        """Return the matrix that the AnnData holds now; as `Matrix.now`."""


@dataclass
class Matrix:
    """A matrix of a dataset.

    Parameters
    ----------
    elem
        Where it lies: "X", "raw/X", "layers/counts", "obsm/X_pca".
    source
        Gives blocks of its rows.
    n_obs, n_vars
        Rows that obs must have, and columns delivered.
    names
        Gives the names of the columns delivered.
    rows
        int64 [n_obs], the source's row of each row of obs; None where they are the same.
    held
        Looks it up again in the AnnData that it is of; None where it is of files only.
    """

    elem: str
    source: Source
    n_obs: int
    n_vars: int
    names: Callable[[], pd.Index[Any]]
    rows: Int64Array | None = None
    held: Held | None = None
    tensors: TensorMaker = field(init=False)

    def __post_init__(self) -> None:
        """Make what makes its tensors."""
        self.tensors = TensorMaker(self.source.place, self.n_vars)

    def now(self, thorough: bool = True) -> Matrix:
        """Return it with what its AnnData objects hold now; itself where nothing changed.

        Parameters
        ----------
        thorough
            Also look whether numbers were overwritten in place, where they were copied to be read.

        Raises
        ------
        StaleDataError
            If an AnnData has other cells or genes than when the dataset was made.
        UnknownNameError
            If the matrix is no longer there.
        """
        if self.held is not None:
            return self.held.now(thorough)
        source = self.source.now(thorough)
        if source is self.source:
            return self
        matrix = copy.copy(self)
        matrix.source = source
        return matrix

    def read(self, rows: Int64Array, threads: int) -> tuple[DecodedRows, Int64Array]:
        """Decode ``rows`` of obs (any order, repeats allowed), each once; also give the slot of each in the block."""
        distinct, slots = self._distinct(rows)
        return self.source.read(distinct, threads), slots

    def load(
        self, rows: Int64Array, threads: int, as_stored: torch.dtype | None = None
    ) -> tuple[DecodedRows | StoredRows, Int64Array]:
        """As `read`; left in the file where dense batches of dtype ``as_stored`` need no more than a copy."""
        distinct, slots = self._distinct(rows)
        if as_stored is not None and isinstance(self.source, FileSource):
            return self.source.read_or_leave(distinct, threads, dtype_name(as_stored)), slots
        return self.source.read(distinct, threads), slots

    def _distinct(self, rows: Int64Array) -> tuple[Int64Array, Int64Array]:
        wanted = rows if self.rows is None else self.rows[rows]
        distinct, slots = np.unique(wanted, return_inverse=True)
        return distinct, slots.astype(np.int64, copy=False)

    def sample_digest(self) -> str:
        """Return a digest of the values of a few rows, spread over all."""
        rows = (
            np.unique(np.linspace(0, self.n_obs - 1, _SAMPLE).astype(np.int64)) if self.n_obs else np.empty(0, np.int64)
        )
        block, slots = self.read(rows, 1)
        indptr, indices, values, _ = self.tensors.csr_parts(block, slots, torch.float64)
        return digest_of(torch.cat([indptr.double(), indices.double(), values]).numpy())

    def unit_starts(self) -> Int64Array | None:
        """First row of obs of each run that is decoded together; None where any row can be read by itself."""
        starts = self.source.unit_starts()
        return starts if starts is None or self.rows is None else units_of_positions(starts, self.rows)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the AnnData behind, and rows that a view of it does not have."""
        state = {**self.__dict__, "held": None}
        if self.rows is not None and isinstance(self.source, MemorySource):
            state |= {"source": self.source.part(self.rows), "rows": None}
        return state
