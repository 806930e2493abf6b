"""Decoded rows become tensors, dense or CSR, of any dtype that batches can have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from annfeed._core import DecodedRows, DirectRows, RowOps
from annfeed.arrays import Int64Array
from annfeed.batches.preloaded import DeviceRows
from annfeed.batches.tokens import TokenColumns, Tokens
from annfeed.memory.buffers import BatchMemory
from annfeed.memory.sparse import compressed
from annfeed.sources.base import Lost
from annfeed.user_warnings import warn

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
#: dtypes that numpy or the core does not have; the core writes their bits as uint16.
_AS_BITS = (torch.float16, torch.bfloat16)


def dtype_name(dtype: Any) -> str:
    """Return the name of a torch dtype; TypeError if batches cannot have it.

    Examples
    --------
    >>> dtype_name(torch.bfloat16)
    'bfloat16'
    """
    if isinstance(dtype, torch.dtype) and dtype in _NAMES:
        return _NAMES[dtype]
    expected = ", ".join(f"torch.{name}" for name in _NAMES.values())
    raise TypeError(f"dtype is {dtype!r}; expected one of {expected}")


def check_dtype(dtype: torch.dtype, only_tokens: bool) -> None:
    """Raise TypeError for a ``dtype`` that batches cannot have; ValueError if there are ``only_tokens``, of another."""
    dtype_name(dtype)
    if only_tokens and dtype != torch.float32:
        raise ValueError(f"dtype is {dtype}; expected torch.float32, in which values of tokens are. Leave it out")


def check_output(output: str | Tokens) -> Tokens | None:
    """Return tokens, and None for other kinds of batches; ValueError if ``output`` is none.

    Examples
    --------
    >>> check_output("csr") is None
    True
    """
    if isinstance(output, Tokens):
        return output
    if isinstance(output, str) and output in ("dense", "csr"):
        return None
    raise ValueError(f"output is {output!r}; expected one of 'dense', 'csr', or Tokens(...)")


@dataclass
class TensorMaker:
    """Makes tensors of decoded rows of one matrix, in recycled memory."""

    place: str  # name of the matrix in messages
    n_vars: int  # columns delivered
    #: Kinds of losses that a warning was given for.
    _warned: set[str] = field(default_factory=set, init=False)
    _memory: BatchMemory = field(default_factory=BatchMemory, init=False)

    def pin(self, pinned: bool) -> None:
        """Set whether the next tensors are made in page-locked memory."""
        self._memory.pinned = pinned

    def tensor(
        self,
        block: DecodedRows | DirectRows | DeviceRows,
        slots: Int64Array,
        output: str,
        dtype: torch.dtype,
        threads: int,
        ops: RowOps | None = None,
    ) -> torch.Tensor:
        """Return the rows at ``slots`` of ``block``, dense or CSR, ``[len(slots), n_vars]`` of ``dtype``."""
        if isinstance(block, DeviceRows):
            return block.tensor(slots, output, dtype)
        try:
            if isinstance(block, DirectRows):
                batch = self._memory.empty(len(slots) * self.n_vars, dtype)
                block.read(slots, batch.view(torch.uint8).numpy(), threads)
                return batch.view(len(slots), self.n_vars)
            if output == "csr":
                batch, lost = self._csr(block, slots, dtype, ops)
            else:
                batch, lost = self._dense(block, slots, dtype, threads, ops)
        except ValueError as error:
            raise ValueError(f"{self.place}: {error}") from None
        except MemoryError as error:
            size = f"{len(slots)} x {self.n_vars} of {dtype}, {len(slots) * self.n_vars * dtype.itemsize} bytes"
            raise MemoryError(
                f"{self.place}: there is no memory for a batch of {size} where dense ({error}). "
                "Ask for fewer rows, for fewer genes with var_subset=, or for output='csr'"
            ) from None
        if lost is not None and lost[2] not in self._warned:
            self._warn(*lost, dtype)
        return batch

    def tokens(
        self,
        block: DecodedRows,
        slots: Int64Array,
        rows: Int64Array,
        columns: TokenColumns,
        key: int,
        threads: int,
        refused: Callable[[int, int | None, str], ValueError],
    ) -> dict[str, torch.Tensor]:
        """Return the tokens of the rows at ``slots`` of ``block``, drawn by ``key`` and their ``rows`` in the data.

        ``refused`` returns the error for a row, its column (None for all) and a value that is no expression.
        """
        spec, n = columns.spec, len(slots)
        n_expressed, width, wrong = block.expressed(slots, spec, threads)
        if wrong is not None:
            raise refused(int(rows[wrong[0]]), *wrong[1:])
        width = width if columns.width is None else columns.width
        genes, values = self._memory.empty(n * width, torch.int64), self._memory.empty(n * width, torch.float32)
        mask = self._memory.empty(n * width, torch.bool)
        memory = genes.numpy(), values.numpy(), mask.view(torch.uint8).numpy()
        try:
            lost, wrong = block.tokens(slots, rows, key, n_expressed, spec, *memory, threads)
        except ValueError as error:
            raise ValueError(f"{self.place}: {error}") from None
        if wrong is not None:
            raise refused(int(rows[wrong[0]]), *wrong[1:])
        if lost is not None and lost[2] not in self._warned:
            self._warn_of_tokens(*lost)
        made = {"genes": genes, "values": values, "mask": mask}
        return {name: each.view(n, width) for name, each in made.items()} | {
            "n_expressed": torch.from_numpy(n_expressed)
        }

    def _dense(
        self, block: DecodedRows, slots: Int64Array, dtype: torch.dtype, threads: int, ops: RowOps | None
    ) -> tuple[torch.Tensor, Lost | None]:
        batch = self._memory.empty(len(slots) * self.n_vars, dtype).view(len(slots), self.n_vars)
        return batch, block.dense(slots, _as_numpy(batch), dtype_name(dtype), threads, ops)

    def _csr(
        self, block: DecodedRows, slots: Int64Array, dtype: torch.dtype, ops: RowOps | None
    ) -> tuple[torch.Tensor, Lost | None]:
        indptr, indices, values, lost = self.csr_parts(block, slots, dtype, ops)
        # The core makes valid CSR; tests run torch's check.
        batch = compressed(indptr, indices, values, (len(slots), self.n_vars))
        return batch, lost

    def csr_parts(
        self, block: DecodedRows, slots: Int64Array, dtype: torch.dtype, ops: RowOps | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Lost | None]:
        """Return row pointers, columns and values of the rows at ``slots``, and the worst loss in ``dtype``."""
        nnz = block.nnz(slots)
        indptr = self._memory.empty(len(slots) + 1, torch.int32)
        indices, values = self._memory.empty(nnz, torch.int32), self._memory.empty(nnz, dtype)
        lost = block.csr(slots, indptr.numpy(), indices.numpy(), _as_numpy(values), dtype_name(dtype), ops)
        return indptr, indices, values, lost

    def _warn(self, column: int, value: str, what: str, dtype: torch.dtype) -> None:
        self._warned.add(what)
        text = {
            "rounded": f"the whole number {value} (column {column}) is rounded in {dtype}; "
            "pass dtype=torch.float64 or an integer dtype to keep it",
            "too large": f"the number {value} (column {column}) is too large for {dtype} and becomes infinite; "
            "pass a wider dtype, as dtype=torch.float32",
            "too large after the transform": f"column {column} of a row is {value} after the transform, too large for "
            f"{dtype}, and becomes infinite; pass a wider dtype, as dtype=torch.float32",
        }
        warn(f"{self.place}: {text[what]}")

    def _warn_of_tokens(self, column: int, value: str, what: str) -> None:
        self._warned.add(what)
        is_rounded = what == "rounded"
        found = (
            f"the whole number {value} (column {column}) " if is_rounded else f"the value {value} of column {column} "
        )
        became = (
            "is rounded in torch.float32, in which values of tokens are"
            if is_rounded
            else "becomes infinite with target_sum and scale of Tokens; pass a smaller target_sum or greater scale"
        )
        warn(f"{self.place}: {found}{became}")


def _as_numpy(tensor: torch.Tensor) -> npt.NDArray[Any]:
    """Return the tensor's memory as an array for the core."""
    return tensor.view(torch.int16).numpy().view(np.uint16) if tensor.dtype in _AS_BITS else tensor.numpy()
