"""What rows come from: sorted, distinct rows in, a decoded block out, whatever the matrix is stored as.

Nothing in this room knows torch, the order of an epoch, or obs.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from annfeed._core import Block
from annfeed.arrays import Int64Array
from annfeed.errors import FormatError

#: What `Source.stats` counts.
STATS = ("opens", "bytes_read", "bytes_decoded", "cache_hits", "cache_misses", "cache_bytes")

#: Rows, decoded.
DecodedRows = Block

#: Column and value of a number that a dtype does not hold, and how it was lost (`Block.dense` says how).
Lost = tuple[int, str, str]


class Source(Protocol):
    """A matrix that gives rows."""

    @property
    def place(self) -> str:
        """File and element, or what it is in memory, for messages."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns as stored."""

    @property
    def is_part(self) -> bool:
        """Whether columns are left out (or only put into another order)."""

    def keep_totals(self) -> None:
        """From now on, keep what rows sum to over all columns beside the wanted ones."""

    def read(self, rows: Int64Array, threads: int) -> Block:
        """Decode ``rows`` (sorted, distinct) into a block of the wanted columns."""

    def unit_starts(self) -> Int64Array | None:
        """First row of each unit of rows that are decoded together; None where any row can be read by itself."""

    def now(self, thorough: bool = True) -> Source:
        """Return it with what AnnData objects hold now; itself where nothing changed, or nothing can."""

    def stats(self) -> dict[str, int]:
        """What reading did so far in this process, under the names of `STATS`."""

    def close(self) -> None:
        """Let go of file descriptors and memory."""


def block_of(
    rows: Any,
    columns: Int64Array | None,
    place: str,
    *,
    totals: bool = False,
    total_over: Int64Array | None = None,
) -> Block:
    """Return a block of rows.

    Parameters
    ----------
    rows
        A numpy array or a scipy CSR matrix.
    columns
        The wanted ones, in order; None for all.
    place
        Where they lie, for messages.
    totals, total_over
        Whether to keep what rows sum to beside them, and over which columns (None for all).

    Raises
    ------
    FormatError
        If the parts of a CSR matrix do not fit together, or repeated columns sum to more than their dtype holds.
    """
    if isinstance(rows, np.ndarray):
        data = _little_endian(rows)
        n_rows, n_cols = rows.shape
        flat = data.reshape(-1).view(np.uint8)
        return Block.from_dense(n_rows, n_cols, flat, data.dtype.name, columns, totals, total_over)
    indices, data = _little_endian(rows.indices), _little_endian(rows.data)
    indptr = np.asarray(rows.indptr, dtype=np.int64)
    try:
        return Block.from_csr(
            rows.shape[1],
            indptr,
            indices[: indptr[-1]].view(np.uint8),
            indices.dtype.name,
            data[: indptr[-1]].view(np.uint8),
            data.dtype.name,
            columns,
            totals,
            total_over,
        )
    except ValueError as error:
        raise FormatError(f"{place}: {error}") from None


def _little_endian(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
