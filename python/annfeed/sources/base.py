"""`RowSource`, what rows come from: sorted, distinct rows in, decoded rows out, however the matrix is stored.

Nothing in this room knows torch, the order of an epoch, or obs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from annfeed._core import DecodedRows
from annfeed.arrays import Int64Array
from annfeed.errors import FormatError

#: What `RowSource.stats` counts.
STATS = (
    *("opens", "bytes_read", "bytes_ahead", "waits", "waited_us", "bytes_decoded"),
    *("cache_hits", "cache_misses", "cache_bytes"),
)

#: Column and value of a number that a dtype does not hold, and how it was lost (`DecodedRows.dense` says how).
Lost = tuple[int, str, str]


class Wanted(NamedTuple):
    """What is wanted of the rows of a matrix: the last arguments of the core's readers."""

    #: int64, the columns in order, `annfeed.sources.columns.MISSING` for one that is not there; None for all.
    columns: Int64Array | None = None
    #: Whether to keep what rows sum to beside them, and over which columns; None for all.
    totals: bool = False
    total_over: Int64Array | None = None


class RowSource(Protocol):
    """A matrix that gives rows; what a method does here is right for those in memory."""

    @property
    def place(self) -> str:
        """File and element, or what it is in memory, for messages."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns as stored."""

    @property
    def is_part(self) -> bool:
        """Whether columns are left out (or only put into another order)."""

    def parts(self) -> list[RowSource]:
        """The sources that read: itself, unless it puts together what others read."""
        return [self]

    def keep_totals(self) -> None:
        """From now on, keep what rows sum to over all columns beside the wanted ones."""

    def read(self, rows: Int64Array, threads: int) -> DecodedRows:
        """Decode the wanted columns of ``rows`` (sorted, distinct)."""

    def ask(self, rows: Callable[[], Int64Array], threads: int) -> object:
        """Ask for the bytes of the rows that ``rows`` gives for a later `read`; they come while the result is kept.

        Nothing is done where reads are not waited for.
        """
        return None

    def unit_starts(self) -> Int64Array | None:
        """First row of each unit of rows that are decoded together; None where any row can be read by itself."""
        return None

    def now(self, thorough: bool = True) -> RowSource:
        """Return it with what AnnData objects hold now; itself where nothing changed, or nothing can."""
        return self

    def stats(self) -> dict[str, int]:
        """What reading did so far in this process, under the names of `STATS`."""
        return dict.fromkeys(STATS, 0)

    @property
    def is_closed(self) -> bool:
        """Whether it was closed, and cannot be read."""
        return False

    def set_aside(self) -> None:
        """Let go of files and cached rows until the next read."""
        return

    def close(self) -> None:
        """Let go of file descriptors and memory."""
        return


def decoded(rows: Any, place: str, wanted: Wanted = Wanted()) -> DecodedRows:  # noqa: B008  # immutable
    """Return a numpy array or a scipy CSR matrix, which lies at ``place``, as rows decoded by the core are."""
    if isinstance(rows, np.ndarray):
        data = _little_endian(rows)
        flat = data.reshape(-1).view(np.uint8)
        return DecodedRows.from_dense(len(rows), rows.shape[1], flat, data.dtype.name, *wanted)
    indices, data = _little_endian(rows.indices), _little_endian(rows.data)
    indptr = np.asarray(rows.indptr, dtype=np.int64)
    used = slice(indptr[-1])
    columns, values = indices[used].view(np.uint8), data[used].view(np.uint8)
    try:
        return DecodedRows.from_csr(
            rows.shape[1], indptr, columns, indices.dtype.name, values, data.dtype.name, *wanted
        )
    except ValueError as error:
        raise FormatError(f"{place}: {error}") from None


def _little_endian(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))


def sum_stats(sources: Iterable[RowSource]) -> dict[str, int]:
    """Return what reading did so far in this process, of several sources together."""
    counts = [source.stats() for source in sources]
    return {name: sum(of_one[name] for of_one in counts) for name in STATS}
