"""Pieces of a matrix that wait on disk: sorted into buckets in one pass, taken bucket by bucket in another."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from annfeed._core import ChunkEncoder, gather_items, order_by_key
from annfeed.arrays import Int64Array

Bytes = npt.NDArray[np.uint8]
#: LZ4 behind a shuffle: faster than a disk.
_LZ4 = [(2, (4,)), (32004, ())]


@dataclass(frozen=True)
class Items:
    """Rows or elements, each with the row that it goes to.

    Parameters
    ----------
    keys
        int64, the row that each goes to.
    lengths
        int64, the elements of each; None where each is one element.
    parts
        By name: the bytes of all items, one after the other, and the bytes of an element.
    """

    keys: Int64Array
    lengths: Int64Array | None
    parts: dict[str, tuple[Bytes, int]]

    def ordered(self, order: Int64Array) -> Items:
        """Return the items at ``order``."""
        parts = {}
        for name, (values, size) in self.parts.items():
            if self.lengths is None:
                parts[name] = values.view(f"u{size}")[order].view(np.uint8), size
            else:
                parts[name] = gather_items(values, starts_of(self.lengths * size), order), size
        return Items(self.keys[order], None if self.lengths is None else self.lengths[order], parts)


def starts_of(lengths: Int64Array) -> Int64Array:
    """Return where each item begins, and the end of the last.

    Examples
    --------
    >>> starts_of(np.array([2, 0, 3])).tolist()
    [0, 2, 2, 5]
    """
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


class Spool:
    """Items of buckets of rows, in a file without a name, which goes with its process.

    Parameters
    ----------
    folder
        Where the file lies.
    edges
        int64, the first row of each bucket, and the number of rows.
    """

    def __init__(self, folder: str, edges: Int64Array) -> None:
        self._file: Any = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (closed by `close`)
        self._edges = edges
        self._pieces: list[list[_Piece]] = [[] for _ in edges[1:]]

    def put(self, items: Items) -> None:
        """Keep items, in their order within each bucket."""
        n = len(self._pieces)
        buckets = np.searchsorted(self._edges, items.keys, "right") - 1
        items = items.ordered(order_by_key(buckets.astype(np.int64), n))
        counts = np.bincount(buckets, minlength=n)
        item_ends = np.cumsum(counts)
        elements = np.arange(len(items.keys) + 1) if items.lengths is None else starts_of(items.lengths)
        for bucket in np.flatnonzero(counts):
            first, last = item_ends[bucket] - counts[bucket], item_ends[bucket]
            span = slice(elements[first], elements[last])
            arrays = {"keys": items.keys[first:last].view(np.uint8)}
            if items.lengths is not None:
                arrays["lengths"] = items.lengths[first:last].view(np.uint8)
            sizes = {name: size for name, (_, size) in items.parts.items()}
            for name, (values, size) in items.parts.items():
                arrays[name] = values[span.start * size : span.stop * size]
            self._pieces[bucket].append(_Piece({name: self._write(part) for name, part in arrays.items()}, sizes))

    def take(self) -> Iterator[Items]:
        """Give the items of each bucket by their rows, those of one row in the order in which they came."""
        for first, last, pieces in zip(self._edges, self._edges[1:], self._pieces, strict=False):
            if not pieces:
                continue

            def joined(name: str, pieces: list[_Piece] = pieces) -> Bytes:
                return np.concatenate([self._read(piece.places[name]) for piece in pieces])

            keys = joined("keys").view(np.int64)
            lengths = joined("lengths").view(np.int64) if "lengths" in pieces[0].places else None
            parts = {name: (joined(name), size) for name, size in pieces[0].sizes.items()}
            yield Items(keys, lengths, parts).ordered(order_by_key(keys - first, int(last - first)))

    def close(self) -> None:
        """Remove the file."""
        self._file.close()

    def _write(self, values: Bytes) -> _Place:
        encoder = ChunkEncoder(_LZ4, 4, 0, max(1, len(values)))
        stored, mask = encoder.encode(np.ascontiguousarray(values))[0] if len(values) else (b"", 3)
        place = _Place(self._file.tell(), len(stored), mask, len(values))
        self._file.write(stored)
        return place

    def _read(self, place: _Place) -> Bytes:
        out = np.empty(place.length, np.uint8)
        self._file.seek(place.offset)
        stored = self._file.read(place.stored)
        if place.length:
            ChunkEncoder(_LZ4, 4, 0, place.length).decode(stored, place.mask, out)
        return out


@dataclass(frozen=True)
class _Place:
    offset: int
    stored: int
    mask: int
    length: int


@dataclass(frozen=True)
class _Piece:
    places: dict[str, _Place]
    sizes: dict[str, int]
