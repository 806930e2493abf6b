"""How matrices are cut: windows that are read together, chunks that are compressed together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from annfeed.arrays import Int64Array
from annfeed.errors import FormatError
from annfeed.rewriting.codecs import Codec

#: Decoded bytes of an array that are read together.
WINDOW = 8 << 20
#: Rows of a chunk, and its decoded bytes: few rows, so that random orders decode little that they do not deliver.
_CHUNK_ROWS, _CHUNK_BYTES = 8, (16 << 10, 256 << 10)
#: Elements of a chunk of row pointers.
POINTERS = 1 << 16


@dataclass(frozen=True)
class Job:
    """How matrices are written.

    Parameters
    ----------
    codec
        How chunks are compressed.
    chunk_rows
        Rows of a chunk; None to choose.
    threads
        Threads that decode and compress.
    progress
        Called with bytes that were read or written.
    folder
        Where pieces wait on disk.
    """

    codec: Codec
    chunk_rows: int | None
    threads: int
    progress: Callable[[int], object]
    folder: str


def checked(starts: Int64Array, node: Any, place: str) -> Int64Array:
    """Return the row pointers (or column pointers) of a matrix, if they hang together with its values."""
    n = len(node["data"])
    if len(node["indices"]) != n or not len(starts) or starts[0] != 0 or starts[-1] > n or (np.diff(starts) < 0).any():
        raise FormatError(
            f"{place} does not rise from 0 to at most {n}, the number of values, of which there are "
            f"{len(node['indices'])} indices. The file is damaged or was written wrongly: write it again with anndata"
        )
    return starts


def chunk_of_values(n: int, n_rows: int, node: Any, chunk_rows: int | None) -> int:
    """Values of a chunk: of so many rows, on average."""
    per_row = max(1.0, n / max(1, n_rows))
    if chunk_rows is not None:
        return max(1, round(chunk_rows * per_row))
    size = max(int(node[part].dtype.itemsize) for part in ("data", "indices"))
    least, most = (limit // size for limit in _CHUNK_BYTES)
    return min(max(round(_CHUNK_ROWS * per_row), least), most)


def chunk_of_rows(row_bytes: int) -> int:
    """Rows of a chunk of a dense matrix."""
    least, most = (max(1, limit // row_bytes) for limit in _CHUNK_BYTES)
    return min(max(_CHUNK_ROWS, least), most)


def windows(n: int, chunk: int, step_bytes: int) -> Iterator[tuple[int, int]]:
    """Stretches of whole chunks, of about `WINDOW` bytes each."""
    step = max(1, WINDOW // max(1, step_bytes * chunk)) * chunk
    for first in range(0, n, step):
        yield first, min(first + step, n)
