"""One matrix from file to file, in windows, with a digest of each row; and the digests read back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from annfeed._core import row_digests
from annfeed.arrays import Int64Array
from annfeed.errors import FormatError
from annfeed.rewriting.arrays import ArrayReader, ArrayWriter, whole
from annfeed.rewriting.codecs import Codec
from annfeed.rewriting.tree import copy_attributes, sparse_format

#: Decoded bytes of an array that are read together.
WINDOW = 8 << 20
#: Rows of a chunk, and its decoded bytes: few rows, so that random orders decode little that they do not deliver.
_CHUNK_ROWS, _CHUNK_BYTES = 16, (16 << 10, 256 << 10)
#: Elements of a chunk of row pointers.
_POINTERS = 1 << 16
#: Told apart in digests.
_SALTS = {"data": 1, "indices": 2}

Digests = npt.NDArray[np.uint64]


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
    """

    codec: Codec
    chunk_rows: int | None
    threads: int
    progress: Callable[[int], object]


def write_matrix(path: str, node: Any, parent: Any, name: str, job: Job) -> Digests:
    """Write a matrix of the file at ``path`` into a group of another one; return a digest of each row."""
    if sparse_format(node) is None:
        return _write_dense(path, node, parent, name, job)
    group = parent.create_group(name)
    copy_attributes(node, group)
    pointers = ArrayReader(path, node["indptr"], job.threads)
    starts = _checked(whole(pointers), node, pointers.place)
    n = int(starts[-1])
    chunk = _chunk_of_values(n, len(starts) - 1, node, job.chunk_rows)
    readers = {part: ArrayReader(path, node[part], job.threads) for part in _SALTS}
    writers = {part: ArrayWriter(group, part, node[part], (n,), chunk, job.codec, job.threads) for part in _SALTS}
    digests = np.zeros(len(starts) - 1, np.uint64)
    for first, last in _windows(n, chunk, max(reader.dtype.itemsize for reader in readers.values())):
        for part, salt in _SALTS.items():
            elements = readers[part].read(first, last)
            row_digests(starts, first, elements, readers[part].dtype.itemsize, salt, digests, job.threads)
            writers[part].add(elements)
            job.progress(len(elements))
    rows = ArrayWriter(group, "indptr", node["indptr"], node["indptr"].shape, _POINTERS, job.codec, job.threads)
    for first, last in _windows(len(node["indptr"]), _POINTERS, pointers.dtype.itemsize):
        rows.add(pointers.read(first, last))
    for part in ("data", "indices", "indptr"):
        copy_attributes(node[part], group[part])
    return digests


def _write_dense(path: str, node: Any, parent: Any, name: str, job: Job) -> Digests:
    reader = ArrayReader(path, node, job.threads)
    n_rows, n_columns = node.shape
    starts = np.arange(n_rows + 1, dtype=np.int64) * n_columns
    chunk = job.chunk_rows or _rows_of_bytes(reader.step_bytes)
    writer = ArrayWriter(parent, name, node, node.shape, chunk, job.codec, job.threads)
    copy_attributes(node, writer.dataset)
    digests = np.zeros(n_rows, np.uint64)
    for first, last in _windows(n_rows, writer.chunk_rows, reader.step_bytes):
        elements = reader.read(first, last)
        row_digests(starts, first * n_columns, elements, reader.dtype.itemsize, 1, digests, job.threads)
        writer.add(elements)
        job.progress(len(elements))
    return digests


def check_matrix(path: str, node: Any, digests: Digests, job: Job) -> None:
    """Read a matrix back and compare the digest of each row.

    Raises
    ------
    OSError
        If one differs: what was written is not what was read.
    """
    found = np.zeros(len(digests), np.uint64)
    if sparse_format(node) is None:
        starts = np.arange(node.shape[0] + 1, dtype=np.int64) * node.shape[1]
        arrays = {1: node}
    else:
        starts = whole(ArrayReader(path, node["indptr"], job.threads))
        arrays = {salt: node[part] for part, salt in _SALTS.items()}
    for salt, array in arrays.items():
        reader = ArrayReader(path, array, job.threads)
        per_row = node.shape[1] if array is node else 1
        for first, last in _windows(array.shape[0], array.chunks[0], reader.step_bytes):
            elements = reader.read(first, last)
            row_digests(starts, first * per_row, elements, reader.dtype.itemsize, salt, found, job.threads)
            job.progress(len(elements))
    if not np.array_equal(found, digests):
        row = int(np.flatnonzero(found != digests)[0])
        raise OSError(
            5,
            f"row {row} of '{node.name.lstrip('/')}' reads otherwise than it was written. The disk or the memory of "
            "this machine is at fault; the new file was removed",
            path,
        )


def size_of(node: Any) -> int:
    """Return the decoded bytes of a matrix."""
    arrays = [node] if sparse_format(node) is None else [node["data"], node["indices"]]
    return sum(int(array.size) * int(array.dtype.itemsize) for array in arrays)


def _checked(starts: Int64Array, node: Any, place: str) -> Int64Array:
    n = len(node["data"])
    if len(node["indices"]) != n or not len(starts) or starts[0] != 0 or starts[-1] > n or (np.diff(starts) < 0).any():
        raise FormatError(
            f"{place} does not rise from 0 to at most {n}, the number of values, of which there are "
            f"{len(node['indices'])} indices. The file is damaged or was written wrongly: write it again with anndata"
        )
    return starts


def _chunk_of_values(n: int, n_rows: int, node: Any, chunk_rows: int | None) -> int:
    """Values of a chunk: of so many rows, on average."""
    per_row = max(1.0, n / max(1, n_rows))
    if chunk_rows is not None:
        return max(1, round(chunk_rows * per_row))
    size = max(int(node[part].dtype.itemsize) for part in _SALTS)
    least, most = (limit // size for limit in _CHUNK_BYTES)
    return min(max(round(_CHUNK_ROWS * per_row), least), most)


def _rows_of_bytes(row_bytes: int) -> int:
    least, most = (max(1, limit // row_bytes) for limit in _CHUNK_BYTES)
    return min(max(_CHUNK_ROWS, least), most)


def _windows(n: int, chunk: int, step_bytes: int) -> Iterator[tuple[int, int]]:
    """Stretches of whole chunks, of about `WINDOW` bytes each."""
    step = max(1, WINDOW // max(1, step_bytes * chunk)) * chunk
    for first in range(0, n, step):
        yield first, min(first + step, n)
