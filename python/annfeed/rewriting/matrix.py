"""One matrix from file to file, in windows, with a digest of each row; and the digests read back."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from annfeed._core import row_digests
from annfeed.h5ad.sparse import sparse_format
from annfeed.rewriting.arrays import ArrayReader, ArrayWriter, whole
from annfeed.rewriting.layout import POINTERS, Job, checked, chunk_of_rows, chunk_of_values, windows
from annfeed.rewriting.tree import copy_attributes

#: Told apart in digests.
_SALTS = {"data": 1, "indices": 2}

Digests = npt.NDArray[np.uint64]


def write_matrix(path: str, node: Any, parent: Any, name: str, job: Job) -> Digests:
    """Write a matrix of the file at ``path`` into a group of another one; return a digest of each row."""
    if sparse_format(node) is None:
        return _write_dense(path, node, parent, name, job)
    group = parent.create_group(name)
    copy_attributes(node, group)
    pointers = ArrayReader(path, node["indptr"], job.threads)
    starts = checked(whole(pointers), node, pointers.place)
    n = int(starts[-1])
    chunk = chunk_of_values(n, len(starts) - 1, node, job.chunk_rows)
    readers = {part: ArrayReader(path, node[part], job.threads) for part in _SALTS}
    writers = {part: ArrayWriter(group, part, reader, (n,), chunk, job) for part, reader in readers.items()}
    digests = np.zeros(len(starts) - 1, np.uint64)
    for first, last in windows(n, chunk, max(reader.dtype.itemsize for reader in readers.values())):
        for part, salt in _SALTS.items():
            elements = readers[part].read(first, last)
            row_digests(starts, first, elements, readers[part].dtype.itemsize, salt, digests, job.threads)
            writers[part].add(elements)
            job.progress(len(elements))
    rows = ArrayWriter(group, "indptr", pointers, node["indptr"].shape, POINTERS, job)
    for first, last in windows(len(node["indptr"]), POINTERS, pointers.dtype.itemsize):
        rows.add(pointers.read(first, last))
    for writer in (*writers.values(), rows):
        writer.finish()
    for part in ("data", "indices", "indptr"):
        copy_attributes(node[part], group[part])
    return digests


def _write_dense(path: str, node: Any, parent: Any, name: str, job: Job) -> Digests:
    reader = ArrayReader(path, node, job.threads)
    n_rows, n_columns = node.shape
    starts = np.arange(n_rows + 1, dtype=np.int64) * n_columns
    chunk = job.chunk_rows or chunk_of_rows(reader.step_bytes)
    writer = ArrayWriter(parent, name, reader, node.shape, chunk, job)
    copy_attributes(node, writer.dataset)
    digests = np.zeros(n_rows, np.uint64)
    for first, last in windows(n_rows, writer.chunk_rows, reader.step_bytes):
        elements = reader.read(first, last)
        row_digests(starts, first * n_columns, elements, reader.dtype.itemsize, 1, digests, job.threads)
        writer.add(elements)
        job.progress(len(elements))
    writer.finish()
    return digests


def digests_of(path: str, node: Any, n_rows: int, job: Job) -> Digests:
    """Read a matrix back; return a digest of each of its ``n_rows`` rows, as `write_matrix` does."""
    found = np.zeros(n_rows, np.uint64)
    if sparse_format(node) is None:
        starts = np.arange(node.shape[0] + 1, dtype=np.int64) * node.shape[1]
        arrays = {1: node}
    else:
        starts = whole(ArrayReader(path, node["indptr"], job.threads))
        arrays = {salt: node[part] for part, salt in _SALTS.items()}
    for salt, array in arrays.items():
        reader = ArrayReader(path, array, job.threads)
        per_row = node.shape[1] if array is node else 1
        for first, last in windows(array.shape[0], array.chunks[0], reader.step_bytes):
            elements = reader.read(first, last)
            row_digests(starts, first * per_row, elements, reader.dtype.itemsize, salt, found, job.threads)
            job.progress(len(elements))
    return found


def size_of(node: Any) -> int:
    """Return the decoded bytes of a matrix."""
    arrays = [node] if sparse_format(node) is None else [node["data"], node["indices"]]
    return sum(int(array.size) * int(array.dtype.itemsize) for array in arrays)
