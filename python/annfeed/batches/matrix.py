"""One matrix of a dataset: its source, the columns wanted of it, and its batches as torch tensors.

The one place that knows how torch's dtypes travel through numpy.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from annfeed._core import RowOps, StoredRows
from annfeed.arrays import Int64Array, digest_of
from annfeed.errors import AnnfeedWarning
from annfeed.memory.buffers import BatchMemory
from annfeed.memory.sparse import compressed
from annfeed.order.blocks import units_of_positions
from annfeed.sources.base import DecodedRows, Lost, Source
from annfeed.sources.file import FileSource
from annfeed.sources.memory import MemorySource

if TYPE_CHECKING:
    import pandas as pd


_NAMES = {
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
    torch.float32: "float32",
    torch.float64: "float64",
    torch.uint8: "uint8",
    torch.int8: "int8",
    torch.int16: "int16",
    torch.int32: "int32",
    torch.int64: "int64",
}
#: Rows that tell one matrix from another.
_SAMPLE = 4
#: dtypes that numpy does not have or the core does not take: their bits travel as uint16.
_AS_BITS = (torch.float16, torch.bfloat16)


def dtype_name(dtype: Any) -> str:
    """Return the name of a torch dtype that batches can have.

    Raises
    ------
    TypeError
        If batches cannot have it.

    Examples
    --------
    >>> dtype_name(torch.bfloat16)
    'bfloat16'
    """
    if isinstance(dtype, torch.dtype) and dtype in _NAMES:
        return _NAMES[dtype]
    expected = ", ".join(f"torch.{name}" for name in _NAMES.values())
    raise TypeError(f"dtype is {dtype!r}; expected one of {expected}")


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
    #: What losses were told of.
    _told: set[str] = field(default_factory=set, init=False)
    _memory: BatchMemory = field(default_factory=BatchMemory, init=False)

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
        """Decode ``rows`` of obs (any order, repeats allowed), each once; also give the place of each in the block."""
        distinct, places = self._distinct(rows)
        return self.source.read(distinct, threads), places

    def load(
        self, rows: Int64Array, threads: int, as_stored: torch.dtype | None = None
    ) -> tuple[DecodedRows | StoredRows, Int64Array]:
        """As `read`; left in the file where dense batches of dtype ``as_stored`` need no more than a copy."""
        distinct, places = self._distinct(rows)
        if as_stored is not None and isinstance(self.source, FileSource):
            stored = self.source.stored(distinct, dtype_name(as_stored))
            if stored is not None:
                return stored, places
        return self.source.read(distinct, threads), places

    def _distinct(self, rows: Int64Array) -> tuple[Int64Array, Int64Array]:
        wanted = rows if self.rows is None else self.rows[rows]
        distinct, places = np.unique(wanted, return_inverse=True)
        return distinct, places.astype(np.int64, copy=False)

    def pin_batches(self, pinned: bool) -> None:
        """Make the next batches in page-locked memory, or no longer."""
        self._memory.pinned = pinned

    def sample_digest(self) -> str:
        """Return a digest of the values of a few rows, spread over all."""
        rows = (
            np.unique(np.linspace(0, self.n_obs - 1, _SAMPLE).astype(np.int64)) if self.n_obs else np.empty(0, np.int64)
        )
        block, places = self.read(rows, 1)
        indptr, indices, values, _ = self._csr_parts(block, places, torch.float64, None)
        return digest_of(torch.cat([indptr.double(), indices.double(), values]).numpy())

    def unit_starts(self) -> Int64Array | None:
        """First row of obs of each run that is decoded together; None where any row can be read by itself."""
        starts = self.source.unit_starts()
        return starts if starts is None or self.rows is None else units_of_positions(starts, self.rows)

    def batch(
        self,
        block: DecodedRows | StoredRows,
        places: Int64Array,
        output: str,
        dtype: torch.dtype,
        threads: int,
        ops: RowOps | None = None,
    ) -> torch.Tensor:
        """Return the rows ``places`` of ``block``, dense or CSR, ``[len(places), n_vars]`` of ``dtype``.

        Raises
        ------
        ValueError
            If an integer dtype cannot hold a value, or ``ops`` are of another number of columns.
        """
        try:
            if isinstance(block, StoredRows):
                batch = self._memory.empty(len(places) * self.n_vars, dtype)
                block.read(places, batch.view(torch.uint8).numpy(), threads)
                return batch.view(len(places), self.n_vars)
            if output == "csr":
                batch, lost = self._csr(block, places, dtype, ops)
            else:
                batch, lost = self._dense(block, places, dtype, threads, ops)
        except ValueError as error:
            raise ValueError(f"{self.source.place}: {error}") from None
        except MemoryError as error:
            size = f"{len(places)} x {self.n_vars} of {dtype}, {len(places) * self.n_vars * dtype.itemsize} bytes"
            raise MemoryError(
                f"{self.source.place}: there is no memory for a batch of {size} where dense ({error}). "
                "Ask for fewer rows, for fewer genes with var_subset=, or for output='csr'"
            ) from None
        if lost is not None and lost[2] not in self._told:
            self._warn(*lost, dtype)
        return batch

    def _dense(
        self, block: DecodedRows, places: Int64Array, dtype: torch.dtype, threads: int, ops: RowOps | None
    ) -> tuple[torch.Tensor, Lost | None]:
        batch = self._memory.empty(len(places) * self.n_vars, dtype).view(len(places), self.n_vars)
        return batch, block.dense(places, _as_numpy(batch), dtype_name(dtype), threads, ops)

    def _csr(
        self, block: DecodedRows, places: Int64Array, dtype: torch.dtype, ops: RowOps | None
    ) -> tuple[torch.Tensor, Lost | None]:
        indptr, indices, values, lost = self._csr_parts(block, places, dtype, ops)
        # The core makes valid CSR; its tests run torch's own check.
        batch = compressed(indptr, indices, values, (len(places), self.n_vars))
        return batch, lost

    def _csr_parts(
        self, block: DecodedRows, places: Int64Array, dtype: torch.dtype, ops: RowOps | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Lost | None]:
        nnz = block.nnz(places)
        indptr = self._memory.empty(len(places) + 1, torch.int32)
        indices, values = self._memory.empty(nnz, torch.int32), self._memory.empty(nnz, dtype)
        lost = block.csr(places, indptr.numpy(), indices.numpy(), _as_numpy(values), dtype_name(dtype), ops)
        return indptr, indices, values, lost

    def __getstate__(self) -> dict[str, Any]:
        """Leave the AnnData behind, and rows that a view of it does not have."""
        state = {**self.__dict__, "held": None}
        if self.rows is not None and isinstance(self.source, MemorySource):
            state |= {"source": self.source.part(self.rows), "rows": None}
        return state

    def _warn(self, column: int, value: str, what: str, dtype: torch.dtype) -> None:
        self._told.add(what)
        text = {
            "rounded": f"the whole number {value} (column {column}) is rounded in {dtype}; "
            "pass dtype=torch.float64 or an integer dtype to keep it",
            "too large": f"the number {value} (column {column}) is too large for {dtype} and becomes infinite; "
            "pass a wider dtype, as dtype=torch.float32",
            "too large after the transform": f"column {column} of a row is {value} after the transform, too large for "
            f"{dtype}, and becomes infinite; pass a wider dtype, as dtype=torch.float32",
        }
        warnings.warn(f"{self.source.place}: {text[what]}", AnnfeedWarning, stacklevel=2)


def _as_numpy(tensor: torch.Tensor) -> npt.NDArray[Any]:
    """The tensor's memory as an array that the core takes."""
    return tensor.view(torch.int16).numpy().view(np.uint16) if tensor.dtype in _AS_BITS else tensor.numpy()
