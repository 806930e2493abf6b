"""`Preloaded`: rows that are kept decoded for good, in the core's types or, as `DeviceRows`, on a device.

How they get there is in batches/preload.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from annfeed._core import DecodedRows
from annfeed.arrays import Int64Array
from annfeed.memory.sparse import compressed

#: What float32 is rounded to in batches.
_NARROWER = (torch.float16, torch.bfloat16)


class DeviceRows:
    """Rows on a device, as CSR.

    Parameters
    ----------
    indptr, indices, values
        int64 ``[n_rows + 1]``, int32 and any dtype ``[nnz]``: sorted columns, none twice.
    totals
        float64 ``[n_rows]``, sums of the rows over all columns of their matrix; None if they were not kept.
    n_vars
        Columns.

    Examples
    --------
    >>> rows = DeviceRows(torch.tensor([0, 1, 3]), torch.tensor([1, 0, 1]), torch.tensor([5.0, 6.0, 7.0]), None, 2)
    >>> rows.tensor(np.array([1, 0, 1]), "dense", torch.float32)
    tensor([[6., 7.],
            [0., 5.],
            [6., 7.]])
    """

    def __init__(
        self,
        indptr: torch.Tensor,
        indices: torch.Tensor,
        values: torch.Tensor,
        totals: torch.Tensor | None,
        n_vars: int,
    ) -> None:
        self._indptr, self._indices, self._values = indptr, indices, values
        self._totals = totals
        self._n_vars = n_vars

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self._values.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which their values are kept."""
        return self._values.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        parts = [self._indptr, self._indices, self._values, *([] if self._totals is None else [self._totals])]
        return sum(part.nbytes for part in parts)

    def totals(self, slots: Int64Array) -> torch.Tensor:
        """Return the sums of rows over all columns of their matrix."""
        assert self._totals is not None  # kept where a transform wants them
        return self._totals[self._on_device(slots)]

    def tensor(self, slots: Int64Array, output: str, dtype: torch.dtype) -> torch.Tensor:
        """Return the rows at ``slots``, dense or CSR, ``[len(slots), n_vars]`` of ``dtype``, on the device."""
        if dtype != self.dtype and not (self.dtype is torch.float32 and dtype in _NARROWER):
            raise ValueError(
                f"found rows that were preloaded as {self.dtype}; expected {dtype}, which the dataset has by now. Call "
                "preload() again"
            )
        rows = self._on_device(slots)
        starts = self._indptr[rows]
        lengths = self._indptr[rows + 1] - starts
        indptr = torch.zeros(len(rows) + 1, dtype=torch.int64, device=self.device)
        torch.cumsum(lengths, 0, out=indptr[1:])
        # Element i of the batch is element i - (where its row begins in the batch) + (where it begins here).
        moves = torch.repeat_interleave(starts - indptr[:-1], lengths)
        if len(moves) >= 2**31:
            raise OverflowError("the batch has 2^31 values or more: ask for fewer rows at a time")
        taken = torch.arange(len(moves), device=self.device).add_(moves)
        columns, values = self._indices[taken], self._values[taken].to(dtype)
        batch = compressed(indptr.to(torch.int32), columns, values, (len(rows), self._n_vars))
        return batch.to_dense() if output == "dense" else batch

    def _on_device(self, slots: Int64Array) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(slots)).to(self.device, non_blocking=True)


@dataclass(frozen=True)
class Preloaded:
    """Rows of a matrix, kept."""

    block: DecodedRows | DeviceRows
    #: int64, sorted: the source's rows that are kept; None for all.
    rows: Int64Array | None
    #: Whether sums over all columns are kept beside them, or are those of the columns that are.
    has_totals: bool
    #: As `Matrix.sample_digest`.
    sample: str

    def slots(self, rows: Int64Array) -> Int64Array | None:
        """Return where each of ``rows`` of the source is in the block; None if one is not there."""
        if self.rows is None:
            return rows
        slots = np.searchsorted(self.rows, rows).astype(np.int64, copy=False)
        there = slots < len(self.rows)
        return slots if there.all() and np.array_equal(self.rows[slots], rows) else None


def moved(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Return a batch with all its tensors on a device.

    Examples
    --------
    >>> moved({"obs_n": torch.tensor([1, 2]), "obs_name": ["a", "b"]}, torch.device("meta"))["obs_n"].device
    device(type='meta')
    """
    return {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
