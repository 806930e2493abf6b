"""`Matrix`: one matrix of a dataset, with its source and its rows of obs."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from annfeed._core import DecodedRows, DirectRows
from annfeed.arrays import Int64Array, digest_of
from annfeed.batches.preloaded import DeviceRows, Preloaded
from annfeed.batches.tensors import TensorMaker, dtype_name
from annfeed.order.auto_blocks import units_of_positions
from annfeed.sources.base import RowSource
from annfeed.sources.file import FileSource
from annfeed.sources.memory import MemorySource

if TYPE_CHECKING:
    import pandas as pd

#: Rows whose values are part of a fingerprint.
_SAMPLE = 4


class Var(Protocol):
    """The var of the delivered columns, read when it is asked for."""

    def frame(self) -> pd.DataFrame:
        """Return it."""

    def texts(self, column: str, wanted: Container[str]) -> npt.NDArray[np.object_]:
        """Return a column as texts, and None for missing ones; an error where a ``wanted`` text is doubtful."""


class Held(Protocol):
    """A matrix in an AnnData, which the user may replace at any time."""

    @property
    def rows_in_file(self) -> Int64Array | None:
        """The row in the file of each cell of a view of a backed AnnData; None for anything else."""

    def now(self, thorough: bool = True) -> Matrix:
        """Return the matrix that the AnnData holds now; as `Matrix.now`."""


@dataclass
class Matrix:
    """A matrix of a dataset."""

    elem: str  # place in the file or AnnData: "X", "raw/X", "layers/counts", "obsm/X_pca"
    source: RowSource
    n_obs: int  # rows of obs
    n_vars: int  # columns delivered
    names: Callable[[], pd.Index[Any]]  # returns the names of these columns
    rows: Int64Array | None = None  # [n_obs], the source's row of each row of obs; None if they are the same
    held: Held | None = None  # looks the matrix up in its AnnData; None if it is in files only
    var: Var | None = None  # the var of these columns; None if they have none
    preloaded: Preloaded | None = None  # rows that are read from there, and no longer from the source
    tensors: TensorMaker = field(init=False)

    def __post_init__(self) -> None:
        self.tensors = TensorMaker(self.source.place, self.n_vars)

    def now(self, thorough: bool = True) -> Matrix:
        """Return the matrix that AnnData objects hold now; itself if nothing changed.

        ``thorough``: also notice numbers that were overwritten in place in a matrix that was copied to be read. What
        was preloaded stays as it was then.
        """
        if self.preloaded is not None:
            return self
        if self.held is not None:
            return self.held.now(thorough)
        source = self.source.now(thorough)
        if source is self.source:
            return self
        return self._with(source=source)

    def keeping(self, preloaded: Preloaded | None) -> Matrix:
        """Return a copy whose rows are kept in memory, or, with None, read from the source."""
        return self._with(preloaded=preloaded)

    def _with(self, **changed: Any) -> Matrix:
        # Not copy.copy, which gives what other processes get; nor replace(), which makes other tensors.
        matrix = object.__new__(type(self))
        matrix.__dict__.update(self.__dict__, **changed)
        return matrix

    def keep_totals(self) -> None:
        """From now on, keep what rows sum to over all columns beside the wanted ones.

        Raises
        ------
        ValueError
            If rows were preloaded without.
        """
        self.source.keep_totals()
        if self.preloaded is not None and not self.preloaded.has_totals:
            raise ValueError(
                f"{self.source.place}: found rows that were preloaded without their totals over all genes, which are "
                "needed by now; expected them. Call preload() again"
            )

    def read(self, rows: Int64Array, threads: int) -> tuple[DecodedRows, Int64Array]:
        """Decode ``rows`` of obs (any order, repeats allowed), each once; return them and the slot of each row."""
        distinct, slots = self._distinct(rows)
        return self.source.read(distinct, threads), slots

    def load(
        self, rows: Int64Array, threads: int, as_stored: torch.dtype | None = None
    ) -> tuple[DecodedRows | DirectRows | DeviceRows, Int64Array]:
        """As `read`, but preloaded rows are not read again, and rows that batches only copy are left in the file.

        ``as_stored``: dtype of dense batches that only copy rows; None if they do more.
        """
        if self.preloaded is not None and not self.source.is_closed:
            slots = self.preloaded.slots(self._of_source(rows))
            if slots is not None:
                return self.preloaded.block, slots
        if as_stored is None or not isinstance(self.source, FileSource):
            return self.read(rows, threads)
        distinct, slots = self._distinct(rows)
        return self.source.read_or_leave(distinct, threads, dtype_name(as_stored)), slots

    def ask(self, rows: Int64Array, threads: int, as_stored: torch.dtype | None = None) -> object:
        """Ask for the bytes of what `load` will read with the same arguments: they come while the result is kept."""
        if self.preloaded is not None:
            return None
        if as_stored is not None and isinstance(self.source, FileSource) and self.source.leaves(dtype_name(as_stored)):
            return None
        return self.source.ask(lambda: self._distinct(rows)[0], threads)

    def _distinct(self, rows: Int64Array) -> tuple[Int64Array, Int64Array]:
        distinct, slots = np.unique(self._of_source(rows), return_inverse=True)
        return distinct, slots.astype(np.int64, copy=False)

    def _of_source(self, rows: Int64Array) -> Int64Array:
        return rows if self.rows is None else self.rows[rows]

    def sample_digest(self) -> str:
        """Return a digest of the values of a few rows at equal distances."""
        if self.preloaded is not None:
            return self.preloaded.sample
        rows = (
            np.unique(np.linspace(0, self.n_obs - 1, _SAMPLE).astype(np.int64)) if self.n_obs else np.empty(0, np.int64)
        )
        block, slots = self.read(rows, 1)
        indptr, indices, values, _ = self.tensors.csr_parts(block, slots, torch.float64)
        return digest_of(torch.cat([indptr.double(), indices.double(), values]).numpy())

    def unit_starts(self) -> Int64Array | None:
        """Return the first row of obs of each decode unit; None if any row can be read by itself."""
        starts = self.source.unit_starts()
        return starts if starts is None or self.rows is None else units_of_positions(starts, self.rows)

    def __getstate__(self) -> dict[str, Any]:
        # Without the AnnData, and without rows of it that are not in a view.
        # What was preloaded is read again from the source: it may be on a device, and is large.
        state = {**self.__dict__, "held": None, "preloaded": None}
        if self.rows is not None and isinstance(self.source, MemorySource):
            state |= {"source": self.source.part(self.rows), "rows": None}
        return state
