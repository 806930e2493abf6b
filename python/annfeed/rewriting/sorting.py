"""Matrices whose rows come in another order, and columns (CSC) that become rows: in two passes, through a spool."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import numpy.typing as npt

from annfeed.arrays import Int64Array
from annfeed.errors import FormatError
from annfeed.h5ad.file import text_of
from annfeed.h5ad.sparse import sparse_format, sparse_shape
from annfeed.rewriting import layout
from annfeed.rewriting.arrays import ArrayReader, ArrayWriter, whole
from annfeed.rewriting.layout import POINTERS, Job, checked, chunk_of_rows, chunk_of_values, windows
from annfeed.rewriting.spool import Items, Spool, starts_of
from annfeed.rewriting.tree import copy_attributes

#: Decoded bytes of a bucket of rows, at least: as many as are sorted in memory.
BUCKET = 32 << 20
#: Bytes of the piece of a bucket that a window gives, about: shorter ones would be read slowly.
_PIECE = 64 << 10

Digests = npt.NDArray[np.uint64]
#: An odd number (the fraction of the golden ratio) and the multiplier of MurmurHash3's end.
_PLACE, _MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xFF51AFD7ED558CCD)


def write_sorted(
    path: str, node: Any, parent: Any, name: str, job: Job, places: Int64Array | None, *, both_axes: bool = False
) -> Digests:
    """Write a matrix of the file at ``path`` by rows, in another order, into a group of another file.

    Parameters
    ----------
    path, node
        The file, and the matrix in it.
    parent, name
        Where it goes.
    job
        How it is written.
    places
        int64, the new place of each row; None where they keep theirs.
    both_axes
        Whether columns are the same cells, and move, too.

    Returns
    -------
    digests
        Of each row of the new matrix, as `unordered_digests` makes them.
    """
    source = _Dense(path, node, job) if sparse_format(node) is None else _Sparse(path, node, job)
    places = np.arange(source.n_rows, dtype=np.int64) if places is None else places
    columns = places if both_axes else None
    lengths = np.empty_like(source.lengths)
    lengths[places] = source.lengths
    starts = starts_of(lengths)
    digests = np.zeros(len(lengths), np.uint64)
    total = int(starts[-1]) * source.element_bytes
    bucket = max(BUCKET, int((total * _PIECE) ** 0.5))
    n = -(-total // bucket)
    edges = np.unique([0, *np.searchsorted(starts, [starts[-1] * i // n for i in range(1, n)]), len(lengths)])
    writers = source.writers(parent, name, lengths)
    with closing(Spool(job.folder, edges.astype(np.int64))) as spool:
        for items in source.items(places):
            _add_digests(items, columns, source, digests)
            spool.put(items)
            job.progress(sum(len(values) for values, _ in items.parts.values()))
        for items in spool.take():
            for part, values in _in_order(items, columns, source).items():
                writers[part].add(values)
    for writer in writers.values():
        writer.finish()
    if isinstance(source, _Sparse):
        source.write_rest(parent[name], starts)
    return digests


def unordered_digests(rows: Int64Array, columns: Any, values: Any, digests: Digests) -> None:
    """Add what elements say of their rows to ``digests``, in whatever order they come.

    Parameters
    ----------
    rows, columns
        Of each element.
    values
        The bytes of each, as an unsigned integer.
    digests
        uint64, one a row.
    """
    found = columns.astype(np.uint64) * _PLACE + values.astype(np.uint64)
    found ^= found >> np.uint64(33)
    found *= _MIX
    found ^= found >> np.uint64(32)
    np.add.at(digests, rows, found)


def _add_digests(items: Items, moved: Int64Array | None, source: _Dense | _Sparse, digests: Digests) -> None:
    rows = items.keys if items.lengths is None else np.repeat(items.keys, items.lengths)
    columns = source.columns(items)
    values, size = items.parts["data"]
    unordered_digests(rows, columns if moved is None else moved[columns], values.view(f"u{size}"), digests)


def _in_order(items: Items, moved: Int64Array | None, source: _Dense | _Sparse) -> dict[str, npt.NDArray[np.uint8]]:
    if moved is None:
        return {name: values for name, (values, _) in items.parts.items()}
    if isinstance(source, _Dense):
        data, size = items.parts["data"]
        rows = data.view(f"u{size}").reshape(len(items.keys), -1)
        return {"data": rows[:, np.argsort(moved)].reshape(-1).view(np.uint8)}
    keys = items.keys if items.lengths is None else np.repeat(items.keys, items.lengths)
    columns = moved[source.columns(items)]
    order = np.lexsort((columns, keys))
    data, size = items.parts["data"]
    return {
        "indices": columns[order].astype(source.index_dtype).view(np.uint8),
        "data": data.view(f"u{size}")[order].view(np.uint8),
    }


class _Dense:
    """A two-dimensional array, row by row."""

    def __init__(self, path: str, node: Any, job: Job) -> None:
        self._node, self._job = node, job
        self._reader = ArrayReader(path, node, job.threads)
        self.n_rows, self.n_columns = node.shape
        self.element_bytes = self._reader.dtype.itemsize
        self.lengths = np.full(self.n_rows, self.n_columns, np.int64)

    def items(self, places: Int64Array) -> Iterator[Items]:
        for first, last in windows(self.n_rows, 1, self._reader.step_bytes):
            parts = {"data": (self._reader.read(first, last), self.element_bytes)}
            yield Items(places[first:last], self.lengths[first:last], parts)

    def columns(self, items: Items) -> Any:
        return np.tile(np.arange(self.n_columns), len(items.keys))

    def writers(self, parent: Any, name: str, lengths: Int64Array) -> dict[str, ArrayWriter]:
        chunk = self._job.chunk_rows or chunk_of_rows(self._reader.step_bytes)
        node, job = self._node, self._job
        writer = ArrayWriter(parent, name, self._reader, node.shape, chunk, job)
        copy_attributes(node, writer.dataset)
        return {"data": writer}


class _Sparse:
    """Compressed rows, row by row, or compressed columns, element by element."""

    def __init__(self, path: str, node: Any, job: Job) -> None:
        self._node, self._job = node, job
        self._by_rows = sparse_format(node) == "csr"
        self._pointers = ArrayReader(path, node["indptr"], job.threads)
        self._starts = checked(whole(self._pointers), node, self._pointers.place)
        self._readers = {part: ArrayReader(path, node[part], job.threads) for part in ("data", "indices")}
        self.n_rows, self.n_columns = sparse_shape(node)
        stored = self._readers["indices"].dtype
        fits = np.iinfo(stored).max >= max(0, self.n_columns - 1)
        self.index_dtype = stored if fits else np.dtype(np.int64)
        self.element_bytes = self._readers["data"].dtype.itemsize + self.index_dtype.itemsize
        self.lengths = np.diff(self._starts) if self._by_rows else self._count()

    def _count(self) -> Int64Array:
        counts = np.zeros(self.n_rows, np.int64)
        reader = self._readers["indices"]
        for first, last in windows(int(self._starts[-1]), 1, reader.step_bytes):
            counts += np.bincount(self._rows(first, last), minlength=self.n_rows)
        return counts

    def _rows(self, first: int, last: int) -> Int64Array:
        reader = self._readers["indices"]
        rows = reader.values(first, last).astype(np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= self.n_rows):
            raise FormatError(
                f"{reader.place} holds {rows.min()} to {rows.max()}; expected rows from 0 to {self.n_rows - 1}. "
                "The file is damaged or was written wrongly: write it again with anndata"
            )
        return rows

    def items(self, places: Int64Array) -> Iterator[Items]:
        data, indices = self._readers["data"], self._readers["indices"]
        size = max(data.step_bytes, indices.step_bytes)
        if self._by_rows:
            for first, last in self._row_windows(size):
                span = int(self._starts[first]), int(self._starts[last])
                parts = {part: (reader.read(*span), reader.step_bytes) for part, reader in self._readers.items()}
                yield Items(places[first:last], self.lengths[first:last], parts)
            return
        for first, last in windows(int(self._starts[-1]), 1, size):
            numbers = np.searchsorted(self._starts, np.arange(first, last), "right") - 1
            columns = numbers.astype(self.index_dtype).view(np.uint8)
            parts = {
                "data": (data.read(first, last), data.step_bytes),
                "indices": (columns, self.index_dtype.itemsize),
            }
            yield Items(places[self._rows(first, last)], None, parts)

    def _row_windows(self, size: int) -> Iterator[tuple[int, int]]:
        first = 0
        while first < self.n_rows:
            wanted = int(self._starts[first]) + max(1, layout.WINDOW // size)
            last = max(first + 1, int(np.searchsorted(self._starts, wanted, "right")) - 1)
            yield first, min(last, self.n_rows)
            first = last

    def columns(self, items: Items) -> Any:
        values, _ = items.parts["indices"]
        return values.view(self.index_dtype)

    def writers(self, parent: Any, name: str, lengths: Int64Array) -> dict[str, ArrayWriter]:
        group, job = parent.create_group(name), self._job
        copy_attributes(self._node, group)
        for key in ("encoding-type", "h5sparse_format"):
            if key in group.attrs:
                group.attrs[key] = text_of(group.attrs[key]).replace("csc", "csr")
        n = int(self._starts[-1])
        chunk = chunk_of_values(n, self.n_rows, self._node, job.chunk_rows)
        dtypes = {} if self.index_dtype is self._readers["indices"].dtype else {"indices": self.index_dtype}
        writers = {
            part: ArrayWriter(group, part, reader, (n,), chunk, job, dtypes.get(part))
            for part, reader in self._readers.items()
        }
        for part, writer in writers.items():
            copy_attributes(self._node[part], writer.dataset)
        return writers

    def write_rest(self, group: Any, starts: Int64Array) -> None:
        """Write the row pointers of the new matrix."""
        writer = ArrayWriter(group, "indptr", self._pointers, starts.shape, POINTERS, self._job)
        copy_attributes(self._node["indptr"], writer.dataset)
        writer.add(starts.astype(self._pointers.dtype).view(np.uint8))
        writer.finish()


def digests_of_sorted(path: str, node: Any, n_rows: int, job: Job) -> Digests:
    """Read a matrix by rows back; return a digest of each of its ``n_rows`` rows, as `write_sorted` does."""
    source = _Dense(path, node, job) if sparse_format(node) is None else _Sparse(path, node, job)
    digests = np.zeros(n_rows, np.uint64)
    for items in source.items(np.arange(n_rows, dtype=np.int64)):
        _add_digests(items, None, source, digests)
        job.progress(sum(len(values) for values, _ in items.parts.values()))
    return digests
